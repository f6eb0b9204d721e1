#!/usr/bin/env python3
"""Measures a built roomscribe against its peers and references, in one run: ./dev bench

Words: word error rate on the synthetic conversations, beside whisper.cpp (pywhispercpp) with the same model and file,
and how long each took. Speakers: counts and error rates on real recordings, by pyannote.metrics (collar 0, overlap
counted). Recordings are read from the folder `shared` beside the checkout.
"""

import argparse
import itertools
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import jiwer
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from pywhispercpp.model import Model

CONVERSATIONS = ["sample-30s", "sample-2min", "sample-10min"]


def plain(text):
    return re.sub(r"[^a-z' ]", "", text.lower()).strip()


def process(roomscribe, root, wav):
    """The record of one file, and the seconds it took."""
    began = time.monotonic()
    done = subprocess.run([roomscribe, "process", "--root", root, wav], capture_output=True, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - began


def whisper_cpp(model, wav, **settings):
    """The text of whisper.cpp alone, and the seconds it took, its start included."""
    began = time.monotonic()
    engine = Model(str(model), redirect_whispercpp_logs_to=None, n_threads=1, language="en", no_context=True,
                   params_sampling_strategy=1, print_progress=False, print_realtime=False, print_timestamps=False,
                   **settings)
    text = " ".join(plain(s.text) for s in engine.transcribe(str(wav)))
    return text, time.monotonic() - began


def measure_words(roomscribe, root, shared):
    model = shared / "models/demo-whisper-q8_0.bin"
    print("| recording | words | roomscribe | whisper.cpp, no_context | whisper.cpp, no context at all | time, ratio |"
          " right speaker |")
    print("|---|---|---|---|---|---|---|")
    for name in CONVERSATIONS:
        wav = shared / f"audio/conversation/{name}.wav"
        turns = json.loads(wav.with_suffix(".json").read_text())["turns"]
        reference = " ".join(plain(t["text"]) for t in turns)
        record, ours_s = process(roomscribe, root, wav)
        ours = " ".join(plain(s["text"]) for s in record["segments"])
        alone, alone_s = whisper_cpp(model, wav)
        strict, _ = whisper_cpp(model, wav, n_max_text_ctx=0)
        wer = [f"{100 * jiwer.wer(reference, text):.2f} %" for text in (ours, alone, strict)]
        print(f"| {name} | {len(reference.split())} | {' | '.join(wer)} | {ours_s / alone_s:.2f} |"
              f" {right_speaker(record['segments'], turns)} of {len(record['segments'])} |", flush=True)


def right_speaker(segments, turns):
    """How many segments lie in a turn of the person their label stands for, by the best naming of the labels."""
    heard = {}
    for segment in segments:
        middle = (segment["start"] + segment["end"]) / 2
        turn = min(turns, key=lambda t: max(t["start"] - middle, middle - t["end"], 0))
        pair = (segment["speaker"], turn["speaker"])
        heard[pair] = heard.get(pair, 0) + 1
    labels, people = ({pair[i] for pair in heard} for i in (0, 1))
    names = list(people) + [None] * len(labels)
    return max(sum(heard.get(pair, 0) for pair in zip(labels, naming))
               for naming in itertools.permutations(names, len(labels)))


def read_rttm(text, wanted=None):
    """Annotations by file."""
    files = {}
    for line in text.splitlines():
        field = line.split()
        if field and field[0] == "SPEAKER" and (wanted is None or field[1] == wanted):
            start, length = float(field[3]), float(field[4])
            annotation = files.setdefault(field[1], Annotation())
            annotation[Segment(start, start + length), len(annotation)] = field[7]
    return files


def measure_speakers(roomscribe, root, shared):
    ami = read_rttm((shared / "audio/ami/ami.rttm").read_text())
    cases = [(n, shared / f"audio/ami/{n}.wav", ref) for n, ref in sorted(ami.items())]
    phone = shared / "audio/phone-call/sample.wav"
    cases.append(("phone-call", phone, next(iter(read_rttm((phone.with_suffix(".rttm")).read_text()).values()))))
    print("\n| recording | speakers found / true | DER | missed | false alarm | confusion |")
    print("|---|---|---|---|---|---|")
    totals = {}
    for name, wav, reference in cases:
        record, _ = process(roomscribe, root, wav)
        assert (record["status"], record["diarization_status"]) == ("done", "ok"), record["error_message"]
        export = [roomscribe, "export", "--root", root, record["session_id"], "--format", "rttm"]
        rttm = subprocess.run(export, capture_output=True, text=True, check=True).stdout
        hypothesis = next(iter(read_rttm(rttm).values()), Annotation())
        uem = Timeline([Segment(0, record["duration_s"])])
        parts = DiarizationErrorRate(collar=0, skip_overlap=False)(reference, hypothesis, uem=uem, detailed=True)
        for key, value in parts.items():
            totals[key] = totals.get(key, 0) + value
        print(line(name, f"{record['speaker_count']['best']} / {len(reference.labels())}", parts), flush=True)
    print(line("all", "", totals))


def line(name, counts, parts):
    share = lambda key: f"{100 * parts[key] / parts['total']:.1f} %"
    errors = ["missed detection", "false alarm", "confusion"]
    der = 100 * sum(parts[e] for e in errors) / parts["total"]
    return f"| {name} | {counts} | {der:.1f} % | {' | '.join(share(e) for e in errors)} |"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as root:
        fetch = [given.roomscribe, "models", "fetch", "--root", root, "--from", given.shared / "models"]
        print(subprocess.run(fetch, capture_output=True, text=True, check=True).stdout)
        measure_words(given.roomscribe, root, given.shared)
        measure_speakers(given.roomscribe, root, given.shared)


if __name__ == "__main__":
    main()
