#!/usr/bin/env python3
"""Runs a built roomscribe over recordings with references, and scores it with other people's scorers: ./dev eval

Prints a table; writes it to --out as results.md, with results.json (its `fields` say what is in it), index.html with
timelines, and scored/, which holds what the scorers were given. The code is 0 if every recording has a result and the
two scorers of speakers agree.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from evaluation import report, scores, timeline
from evaluation.box import Box, Failed
from evaluation.recordings import Stretch, Unusable, find

OURS = {"index.html", "results.json", "results.md", "scored", "timelines"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def check(out):
    """Nothing but what an evaluation left may be removed for a new one."""
    there = {f.name for f in out.iterdir()} if out.is_dir() else set()
    if (out.exists() and not out.is_dir()) or there - OURS or (there and "results.json" not in there):
        raise Unusable(f"{out}: is not what an evaluation left; give another folder, or empty this one")


def clear(out):
    check(out)
    shutil.rmtree(out, ignore_errors=True)
    (out / "scored").mkdir(parents=True)


@contextmanager
def some_root(given):
    """The root that was given, or one for this run."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="roomscribe-eval.") as root:
        yield Path(root)


class Case:
    """A recording, what became of it, and its scores."""

    def __init__(self, recording, heard):
        self.recording, self.heard = recording, heard
        self.duration_s = heard.record.get("duration_s", 0.0)
        self.scored = recording.scored or [Stretch(0.0, self.duration_s)]
        self.speakers = self.words = None
        if heard.is_diarized and recording.turns is not None:
            self.speakers = scores.Speakers(recording.turns, heard.turns, self.scored)
        if heard.is_transcribed and recording.utterances is not None:
            self.words = scores.Words(recording.utterances, heard.utterances, self.scored)

    def entry(self):
        found = self.speakers
        return {"name": self.recording.name, "file_id": self.recording.file_id,
                "status": "failed" if self.heard.has_failed else "done",
                "problem": self.heard.problem or None, **timing([self]),
                "speaker_count": scores.speaker_count(found) if found else None,
                "speakers": {**scores.speaker_scores([found]), "mapping": found.mapping} if found else None,
                "words": scores.word_scores([self.words]) if self.words else None, "picture": None}

    def draw(self, out, title):
        """The path of the picture below `out`, if there is something to show."""
        if not self.heard.is_diarized:
            return None
        path = Path("timelines", f"{self.recording.file_id}.svg")
        gaps = [(g["start"], g["end"], g["cause"]) for g in self.heard.record["gaps"]]
        found = self.speakers
        lanes = timeline.lanes(self.recording.turns, self.heard.turns, found.mapping if found else {},
                               found.errors() if found else None)
        timeline.draw(out / path, title, self.duration_s, lanes, gaps,
                      timeline.unscored(self.scored, self.duration_s))
        return str(path)


def timing(cases):
    duration, taken = sum(c.duration_s for c in cases), sum(c.heard.seconds for c in cases)
    # Without a duration there is no factor, and its time would spoil the others'.
    timed = sum(c.heard.seconds for c in cases if c.duration_s)
    return {"duration_s": round(duration, 3), "processing_s": round(taken, 3),
            "real_time_factor": round(timed / duration, 4) if duration else None}


def pool(name, cases):
    speakers, words = [c.speakers for c in cases if c.speakers], [c.words for c in cases if c.words]
    errors = [scores.speaker_count(s)["error"] for s in speakers]
    return {"name": name, **timing(cases),
            "counts": {"recordings": len(cases), "done": sum(not c.heard.has_failed for c in cases),
                       "with_speakers": len(speakers), "with_words": len(words)},
            "speaker_count": {"right": errors.count(0), "mean_absolute_error": sum(map(abs, errors)) / len(errors)}
            if errors else None,
            "speakers": scores.speaker_scores(speakers) if speakers else None,
            "words": scores.word_scores(words) if words else None}


def ask_md_eval(program, folder, cases):
    """DER by file id, and by None for all of them, by md-eval.pl on files that are left in `folder`."""
    cases = [c for c in cases if c.speakers]
    if not any(c.speakers.has_speech() for c in cases):
        return {}
    turns = lambda of: "".join(scores.rttm(c.recording.file_id, of(c)) for c in cases)
    texts = {"reference.rttm": turns(lambda c: c.recording.turns), "hypothesis.rttm": turns(lambda c: c.heard.turns),
             "scored.uem": "".join(scores.uem(c.recording.file_id, c.speakers.scored()) for c in cases)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    ders = scores.md_eval(program, *(folder / name for name in texts))
    unanswered = [c.recording.name for c in cases if c.speakers.has_speech() and c.recording.file_id not in ders]
    if unanswered:
        raise scores.MdEvalFailed(f"{program} left out {', '.join(unanswered)}")
    # It leaves out who has no reference speech, with all their false alarms: then it is another question.
    return ders if all(c.speakers.has_speech() for c in cases) else {**ders, None: None}


def add_second_opinion(program, out, cases, entries, pooled):
    """`pooled` are pairs of cases and entry. Whether the opinions agree; None if there is no second one."""
    speakers = [entry["speakers"] for entry in (*entries, *(entry for _, entry in pooled))]
    for scored in filter(None, speakers):
        scored["md_eval_der"] = None
    try:
        ders = ask_md_eval(program, out / "scored", cases)
        second = [ders.get(entry["file_id"]) for entry in entries]
        for some, _ in pooled:
            with tempfile.TemporaryDirectory() as folder:
                second.append(ask_md_eval(program, Path(folder), some).get(None))
    except scores.MdEvalFailed as why:
        say(f"evaluate: {why}")
        return None
    given = [(scored, der) for scored, der in zip(speakers, second) if scored]
    for scored, der in given:
        scored["md_eval_der"] = der
    return all(scores.agree(scored["der"], der) for scored, der in given)


def pools(cases):
    """All cases, and before them those of each folder, if there are several."""
    groups = {}
    for case in cases:
        groups.setdefault(case.recording.group or "(no folder)", []).append(case)
    named = list(groups.items()) if len(groups) > 1 else []
    return [(some, pool(name, some)) for name, some in [*named, ("all", cases)]]


def evaluate(box, recordings, md_eval, out):
    """The results; pictures and scored files lie in `out` then."""
    began, version, cases, models = time.monotonic(), box.version(), [], {}
    for number, recording in enumerate(recordings, 1):
        case = Case(recording, box.process(recording.audio))
        cases.append(case)
        models |= {(m["role"], m["id"]): m for m in case.heard.record.get("models", [])}
        problem = f"  {case.heard.problem}" if case.heard.problem else ""
        say(f"   {number}/{len(recordings)} {recording.name}: {case.heard.seconds:.1f} s{problem}")
    clear(out)
    entries, pooled = [case.entry() for case in cases], pools(cases)
    agree = add_second_opinion(md_eval, out, cases, entries, pooled)
    for side, of in (("reference", lambda c: c.recording.utterances), ("hypothesis", lambda c: c.heard.utterances)):
        segments = [s for c in cases if c.words for s in scores.seglst(c.recording.file_id, of(c))]
        (out / "scored" / f"{side}.seglst.json").write_text(json.dumps(segments, indent=1, ensure_ascii=False))
    for case, entry in zip(cases, entries):
        entry["picture"] = case.draw(out, report.title(entry))
    return {"version": 1, "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1), "roomscribe": version,
            "models": list(models.values()), "normalizer": scores.NORMALIZER, "fields": report.FIELDS,
            "scorers": {**scores.versions(), "md-eval": scores.md_eval_version(md_eval)}, "scorers_agree": agree,
            "recordings": entries, "pooled": [entry for _, entry in pooled]}


def arguments():
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("recordings", nargs="+", type=Path, help="folders, looked through to the bottom, or recordings")
    given.add_argument("--roomscribe", required=True, type=Path)
    given.add_argument("--root", type=Path, help="with models; left out: one for this run, filled by models fetch")
    given.add_argument("--md-eval", required=True, type=Path)
    given.add_argument("--out", required=True, type=Path)
    return given.parse_args()


def main():
    given = arguments()
    try:
        recordings = find(given.recordings)
        check(given.out)
        with some_root(given.root) as root:
            box = Box(given.roomscribe, root)
            if not given.root:
                say(box.fetch_models())
            results = evaluate(box, recordings, given.md_eval, given.out)
    except (Unusable, Failed) as why:
        say(f"evaluate: {why}")
        return 1
    table = report.markdown(results)
    (given.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (given.out / "results.md").write_text(table)
    (given.out / "index.html").write_text(report.page(results))
    print(table)
    say(f"-- With pictures: {given.out / 'index.html'}; for machines: {given.out / 'results.json'}")
    return 0 if results["scorers_agree"] and all(r["status"] == "done" for r in results["recordings"]) else 1


if __name__ == "__main__":
    sys.exit(main())
