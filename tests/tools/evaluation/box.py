"""The program under test: `roomscribe process` and `roomscribe export --format rttm`."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .recordings import Turn, Unusable, Utterance, rttm

# Longer than any engine may take, with all its attempts, for a session of an hour: what still runs then, hangs.
LIMIT_S = 6 * 3600


@dataclass
class Heard:
    """What became of one recording. `problem` says why there are no words or no speakers; empty if there are."""

    problem: str = ""
    seconds: float = 0.0
    record: dict = field(default_factory=dict)
    is_transcribed: bool = False
    is_diarized: bool = False
    utterances: list[Utterance] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    @property
    def has_failed(self):
        """Speakers that were not asked for are no failure."""
        was_asked = self.record.get("diarization_status") != "skipped"
        return not self.is_transcribed or (was_asked and not self.is_diarized)


class Failed(Exception):
    """What the program said, or did, instead."""


class Box:
    """A built roomscribe and its root."""

    def __init__(self, program, root):
        self.program, self.root = program, root

    def version(self):
        return self._run("--version").stdout.strip().rpartition(" ")[2]

    def fetch_models(self):
        done = self._run("models", "fetch", "--root", self.root)
        if done.returncode:
            raise Failed(f"models fetch: {_last_line(done)} (code {done.returncode})")
        return done.stdout.strip()

    def process(self, audio):
        """Once, in a process of its own; `seconds` has its start too."""
        heard = Heard()
        try:
            self._transcribe(heard, audio)
            self._export(heard)
        except Failed as why:
            heard.problem = str(why)
        return heard

    def _transcribe(self, heard, audio):
        began = time.monotonic()
        try:
            done = self._run("process", "--root", self.root, audio)
        finally:
            heard.seconds = time.monotonic() - began
        try:
            answer = json.loads(done.stdout)
            status = answer["status"]
        except (ValueError, KeyError):
            raise Failed(f"{_last_line(done)} (code {done.returncode})") from None
        heard.record = answer
        if status != "done":
            because = ": ".join(([] if status == "failed" else [status]) + _reasons(answer))
            raise Failed(f"{because or 'no reason given'} (code {done.returncode})")
        heard.utterances = [Utterance(s["start"], s["end"], s["speaker"], s["text"]) for s in answer["segments"]]
        heard.is_transcribed = True

    def _export(self, heard):
        """Who spoke when, as the box hands it to others."""
        if heard.record["diarization_status"] != "ok":
            outcome = [f"no speakers, diarization {heard.record['diarization_status']}"]
            raise Failed(": ".join(outcome + _reasons(heard.record)))
        done = self._run("export", "--root", self.root, heard.record["session_id"], "--format", "rttm")
        if done.returncode:
            raise Failed(f"no speakers: export: {_last_line(done)} (code {done.returncode})")
        try:
            files = rttm(done.stdout, Path("export.rttm"))
        except Unusable as why:
            raise Failed(f"no speakers: {why}") from None
        heard.turns = [turn for turns in files.values() for turn in turns]
        heard.is_diarized = True

    def _run(self, *arguments):
        try:
            return subprocess.run([self.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{arguments[0]}: had not ended after {LIMIT_S} s") from None
        except OSError as why:
            raise Failed(f"{self.program}: {why.strerror}") from None


def _reasons(record):
    """The record's own, outermost first."""
    return (record.get("error") or {}).get("chain") or list(filter(None, [record.get("error_message")]))


def _last_line(done):
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else "said nothing"
