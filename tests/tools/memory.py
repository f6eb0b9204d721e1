#!/usr/bin/env python3
"""Measures how much memory a session takes, short and long: ./dev bench --memory [--segmentation]

Processes the ten-minute conversation, then the same again and again for four hours, and reads the most memory that
`roomscribe` itself held (VmHWM) and the most that its engine processes held. Of what is kept of a session only its words
and its voices may grow. Recordings are read from the folder `shared` beside the checkout.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import wave
from pathlib import Path

REPEATS = 24


def repeat(source, target, times):
    with wave.open(str(source)) as one, wave.open(str(target), "wb") as many:
        many.setparams(one.getparams())
        frames = one.readframes(one.getnframes())
        for _ in range(times):
            many.writeframes(frames)


def with_demonstration_networks(roomscribe, root, models):
    """Fills a root so that the demonstration segmentation network is used, beside the voice model of its kind."""
    fetch = [roomscribe, "models", "fetch", "--root", root, "--from", models]
    for more in [[], ["--role", "segmentation"], ["--role", "voice", "--all"]]:
        subprocess.run([*fetch, *more], stdout=subprocess.DEVNULL, check=True)
    Path(root, "var/lib/roomscribe/models/ge2e_waveform.onnx").unlink()


def high_water(pid):
    """The most memory a process has held so far, MiB; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    held = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(held[0]) / 1024 if held else 0.0


def children(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split() + [
            child for task in os.listdir(f"/proc/{pid}/task") if task != str(pid)
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        return []


def process(roomscribe, root, wav):
    """The record of a file, the seconds it took, and the most memory of roomscribe and of its largest engine, MiB."""
    began, own, engine = time.monotonic(), 0.0, 0.0
    with tempfile.TemporaryFile() as out:
        running = subprocess.Popen([roomscribe, "process", "--root", root, wav], stdout=out)
        while running.poll() is None:
            own = max(own, high_water(running.pid))
            engine = max([engine, *map(high_water, children(running.pid))])
            time.sleep(0.05)
        out.seek(0)
        record = json.loads(out.read())
    assert (running.returncode, record["diarization_status"]) == (0, "ok"), record["error_message"]
    return record, time.monotonic() - began, own, engine


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    arguments.add_argument("--segmentation", action="store_true", help="with the demonstration segmentation network")
    given = arguments.parse_args()
    source = given.shared / "audio/conversation/sample-10min.wav"
    print("| recording | speakers | segments | took | roomscribe, most | largest engine, most |")
    print("|---|---|---|---|---|---|")
    most = []
    with tempfile.TemporaryDirectory() as folder:
        root, long = f"{folder}/root", f"{folder}/4-hours.wav"
        if given.segmentation:
            with_demonstration_networks(given.roomscribe, root, given.shared / "models")
        else:
            fetch = [given.roomscribe, "models", "fetch", "--root", root, "--from", given.shared / "models"]
            subprocess.run(fetch, stdout=subprocess.DEVNULL, check=True)
        repeat(source, long, REPEATS)
        for name, wav in [("10 min", source), ("4 h", long)]:
            record, took, own, engine = process(given.roomscribe, root, wav)
            most.append(own)
            print(f"| {name} | {record['speaker_count']['best']} | {len(record['segments'])} | {took:.0f} s |"
                  f" {own:.0f} MiB | {engine:.0f} MiB |", flush=True)
    print(f"\nFour hours took {most[1] - most[0]:.0f} MiB more than ten minutes.")


if __name__ == "__main__":
    main()
