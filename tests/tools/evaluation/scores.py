"""Scores, by other people's scorers: pyannote.metrics and md-eval.pl for speakers, meeteval for words.

Speakers: collar 0, overlap counted, inside the scored stretches. Words: those of utterances that touch them, with
meeteval's own normalizer. A score is a plain dict; pooling adds what was counted and divides once.
"""

import re
import subprocess
from importlib.metadata import version

from meeteval.io import SegLST
from meeteval.wer.normalizer import normalize
from meeteval.wer.wer import (combine_error_rates, cp_word_error_rate, greedy_orc_word_error_rate,
                              siso_word_error_rate)
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate
from pyannote.metrics.errors.identification import IdentificationErrorAnalysis

from .recordings import Stretch, Turn

NORMALIZER = "lower,rm([^a-z0-9 ])"
WORD_ERRORS = ("wer", "cpwer", "orcwer")
PARTS = {"missed": "missed detection", "false_alarm": "false alarm", "confusion": "confusion"}
# md-eval.pl prints two decimals of a percentage.
ROUNDING = 0.0051 / 100
UNKNOWN = "Unknown_Speaker"


def versions():
    return {name: version(name) for name in ("pyannote.metrics", "meeteval")}


def annotation(turns):
    """Turns of one speaker that touch or overlap are one."""
    every = Annotation()
    for number, turn in enumerate(turns):
        every[Segment(turn.start, turn.end), number] = turn.speaker
    return every.support()


class Speakers:
    """One recording's speakers, ours beside the reference."""

    def __init__(self, reference, hypothesis, scored):
        # Stretches that touch or overlap are one.
        self.uem = Timeline([Segment(*s) for s in scored]).support()
        self.reference = annotation(reference).crop(self.uem)
        self.hypothesis = annotation(hypothesis).crop(self.uem)
        error_rate, jaccard = DiarizationErrorRate(collar=0, skip_overlap=False), JaccardErrorRate(collar=0)
        given = (self.reference, self.hypothesis)
        self.error_parts = error_rate(*given, uem=self.uem, detailed=True)
        self.jaccard_parts = jaccard(*given, uem=self.uem, detailed=True)
        self.mapping = error_rate.optimal_mapping(*given, uem=self.uem)

    def errors(self):
        """Turns whose speaker is the kind of error."""
        # Whoever stands for nobody must not be taken for somebody of the same name.
        names = {label: self.mapping.get(label, f"{label}, nobody") for label in self.hypothesis.labels()}
        mapped = self.hypothesis.rename_labels(mapping=names)
        found = IdentificationErrorAnalysis().difference(self.reference, mapped, uem=self.uem)
        return [Turn(s.start, s.end, kind) for s, _, (kind, *_) in found.itertracks(yield_label=True)]

    def has_speech(self):
        return self.error_parts["total"] > 0

    def scored(self):
        return [Stretch(s.start, s.end) for s in self.uem]


def speaker_scores(several):
    """Of one recording or of several together."""
    error_parts, jaccard_parts = _added(s.error_parts for s in several), _added(s.jaccard_parts for s in several)
    speech = error_parts["total"]
    scores = {"reference_s": round(speech, 3)}
    for name, part in PARTS.items():
        scores[f"{name}_s"] = round(error_parts[part], 3)
        scores[name] = error_parts[part] / speech if speech else None
    scores["der"] = DiarizationErrorRate().compute_metric(error_parts) if speech else None
    scores["jer"] = JaccardErrorRate().compute_metric(jaccard_parts) if speech else None
    return scores


def speaker_count(speakers):
    """People, so that Unknown Speaker is nobody."""
    found = len([label for label in speakers.hypothesis.labels() if label != UNKNOWN])
    true = len(speakers.reference.labels())
    return {"found": found, "true": true, "error": found - true}


def _added(several):
    total = {}
    for parts in several:
        for key, value in parts.items():
            if isinstance(value, (int, float)):
                total[key] = total.get(key, 0) + value
    return total


def rttm(file_id, turns):
    return "".join(f"SPEAKER {file_id} 1 {t.start:.6f} {t.end - t.start:.6f} <NA> <NA> {t.speaker} <NA> <NA>\n"
                   for t in turns)


def uem(file_id, stretches):
    return "".join(f"{file_id} 1 {s.start:.6f} {s.end:.6f}\n" for s in stretches)


class MdEvalFailed(Exception):
    """What md-eval.pl said."""


def md_eval(program, reference, hypothesis, scored):
    """DER by file id, and by None for all, from three files. A recording without reference speech has none."""
    command = ["perl", program, "-n", "-a", "f", "-c", "0", "-r", reference, "-s", hypothesis, "-u", scored]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = re.findall(r"OVERALL SPEAKER DIARIZATION ERROR = ([0-9.]+) percent of scored speaker time +"
                       r"`\((?:ALL|f=(.*))\)", done.stdout)
    if done.returncode or not lines:
        raise MdEvalFailed(f"{program} failed (code {done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return {name or None: round(float(percent) / 100, 6) for percent, name in lines}


def md_eval_version(program):
    found = re.search(r'^my \$version = "(.*)";', program.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else "unknown"


def agree(one, other):
    return one is None or other is None or abs(one - other) <= ROUNDING


class Words:
    """One recording's words, ours beside the reference."""

    def __init__(self, reference, hypothesis, scored):
        kept = lambda utterances: _segments([u for u in utterances if any(
            u.start <= s.end and s.start <= u.end for s in scored)])
        self.reference, self.hypothesis = kept(reference), kept(hypothesis)
        given = (self.reference, self.hypothesis)
        self.error_rates = {"wer": siso_word_error_rate(*map(_as_one, given)), "cpwer": cp_word_error_rate(*given),
                            "orcwer": greedy_orc_word_error_rate(*given)}


def word_scores(several):
    """Of one recording or of several together."""
    scores = {}
    for name in WORD_ERRORS:
        rate = combine_error_rates([words.error_rates[name] for words in several])
        scores["reference_words"] = rate.length
        scores[name] = rate.error_rate
        scores[f"{name}_errors"] = {k: getattr(rate, k) for k in ("insertions", "deletions", "substitutions")}
    return scores


def seglst(file_id, utterances):
    """As meeteval reads it."""
    return [{"session_id": file_id, "speaker": u.speaker, "start_time": u.start, "end_time": u.end, "words": u.words}
            for u in sorted(utterances)]


def _segments(utterances):
    return normalize(SegLST(seglst("one", utterances)), normalizer=NORMALIZER)


def _as_one(segments):
    """Everything said, in the order in which it began, as if by one person."""
    return SegLST([{"words": " ".join(filter(None, (s["words"] for s in segments)))}])
