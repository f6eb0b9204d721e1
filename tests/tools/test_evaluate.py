"""The evaluation on recordings whose scores are known by hand, with a scripted roomscribe: ./dev eval --self-test

The scorers are the real ones; MD_EVAL names md-eval.pl.
"""

import contextlib
import io
import json
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path

import evaluate
from evaluation import report, scores, timeline
from evaluation.recordings import Stretch, Turn

MD_EVAL = os.environ["MD_EVAL"]

# Its recordings say what it is to answer.
SCRIPTED = f"""#!{sys.executable}
import json, pathlib, sys
command, arguments = sys.argv[1], sys.argv[2:]
root = pathlib.Path(arguments[arguments.index("--root") + 1]) if "--root" in arguments else None
if command == "--version":
    print("roomscribe 9.9.9")
elif command == "models":
    print("no models are needed")
elif command == "process":
    play = json.loads(pathlib.Path(arguments[-1]).read_text())
    (root / play["record"].get("session_id", "none")).write_text(play["rttm"])
    print(play["says"] if "says" in play else json.dumps(play["record"]))
    print(play.get("complains", ""), file=sys.stderr)
    sys.exit(play.get("code", 0))
elif command == "export":
    print((root / arguments[2]).read_text(), end="")
"""

LINE = 'print " OVERALL SPEAKER DIARIZATION ERROR = 12.34 percent of scored speaker time  `({})\\n";'
OTHER_MD_EVAL, SHORT_MD_EVAL = LINE.format("f=x") + LINE.format("ALL"), LINE.format("ALL")


def rttm(turns):
    """`turns`: "A 0 10, B 10 20"."""
    fields = [turn.split() for turn in turns.split(",") if turn]
    return "".join(f"SPEAKER x 1 {start} {float(end) - float(start)} <NA> <NA> {who} <NA> <NA>\n"
                   for who, start, end in fields)


class Evaluation(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.folder, self.out, self.program = self.top / "in", self.top / "out", self.top / "roomscribe"
        self.folder.mkdir()
        self.program.write_text(SCRIPTED)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def lay(self, name, reference=None, ours="", duration_s=22.0, words=None, our_words="", record=None, **play):
        """A recording, its reference, and what the scripted program answers. Words: "A 0 4 good morning, B 4 6 yes"."""
        segments = [w.split(maxsplit=3) for w in our_words.split(",") if w]
        answer = {"session_id": name, "status": "done", "diarization_status": "ok", "duration_s": duration_s,
                  "gaps": [], "models": [{"role": "vad", "id": "scripted", "file": "f", "sha256": "0"}], "error": None,
                  "segments": [{"speaker": s, "start": float(a), "end": float(b), "text": t}
                               for s, a, b, t in segments]}
        self.folder.joinpath(f"{name}.wav").write_text(
            json.dumps({"record": {**answer, **(record or {})}, "rttm": rttm(ours), **play}))
        if reference is not None:
            self.folder.joinpath(f"{name}.rttm").write_text(rttm(reference))
        if words is not None:
            said = [w.split(maxsplit=3) for w in words.split(",")]
            self.folder.joinpath(f"{name}.stm").write_text("".join(f"x 1 {s} {a} {b} {t}\n" for s, a, b, t in said))

    def evaluate(self, md_eval=MD_EVAL):
        """The code, the results, and what went to standard error."""
        sys.argv = ["evaluate.py", "--roomscribe", str(self.program), "--md-eval", str(md_eval), "--out", str(self.out),
                    str(self.folder)]
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = evaluate.main()
        results = self.out / "results.json"
        return code, json.loads(results.read_text()) if results.exists() else None, said.getvalue()

    def scores(self):
        code, results, _ = self.evaluate()
        self.assertEqual((code, results["scorers_agree"]), (0, True))
        return {r["name"]: r for r in results["recordings"]}, results["pooled"][-1]

    def assert_rates(self, scores, **percents):
        for key, percent in percents.items():
            self.assertAlmostEqual(100 * scores[key], percent, places=2, msg=key)

    def test_missed_and_confusion(self):
        self.lay("x", "A 0 10, B 10 20", "s1 0 12, s2 12 18")
        scores, _ = self.scores()
        x = scores["x"]["speakers"]
        self.assert_rates(x, der=20, md_eval_der=20, missed=10, confusion=10, false_alarm=0)
        # A: 2 of 12 s are wrong; B: 4 of 10.
        self.assert_rates(x, jer=100 * (2 / 12 + 4 / 10) / 2)
        self.assertEqual((x["reference_s"], x["confusion_s"], x["mapping"]), (20, 2, {"s1": "A", "s2": "B"}))
        self.assertEqual(scores["x"]["speaker_count"], {"found": 2, "true": 2, "error": 0})

    def test_overlap_is_counted_and_nobody_is_twice_at_once(self):
        self.lay("x", "A 0 10, B 5 10, B 7 9", "s1 0 10")
        scores, _ = self.scores()
        self.assert_rates(scores["x"]["speakers"], der=100 / 3, md_eval_der=33.33, missed=100 / 3, jer=50)
        self.assertEqual(scores["x"]["speaker_count"], {"found": 1, "true": 2, "error": -1})

    def test_only_what_the_uem_has_is_scored(self):
        self.lay("x", "A 0 10, B 15 20", "s1 0 10, s2 10 14")
        self.folder.joinpath("x.uem").write_text("x 1 0 5\nx 1 5 12\n")
        scores, _ = self.scores()
        self.assert_rates(scores["x"]["speakers"], der=20, md_eval_der=20, false_alarm=20)
        self.assertEqual(scores["x"]["speaker_count"], {"found": 2, "true": 1, "error": 1})

    def test_totals_pool_time_and_words_and_do_not_average(self):
        self.lay("a", "A 0 10, B 10 20", "s1 0 12, s2 12 18", words="A 0 4 yes", our_words="s1 0 4 no")
        self.lay("b", "A 0 10, B 5 10", "s1 0 10", words="A 0 4 one two three", our_words="s1 0 4 One? TWO. Three!")
        _, pooled = self.scores()
        self.assert_rates(pooled["speakers"], der=100 * 9 / 35, md_eval_der=25.71, confusion=100 * 2 / 35)
        self.assert_rates(pooled["words"], wer=25)
        self.assertEqual(pooled["speaker_count"], {"right": 1, "mean_absolute_error": 0.5})
        self.assertEqual(pooled["counts"], {"recordings": 2, "done": 2, "with_speakers": 2, "with_words": 2})

    def test_a_word_with_the_wrong_speaker_is_two_errors(self):
        self.lay("x", words="A 0 3 one two three, B 3 5 four five", our_words="s1 0 4 one two three four, s2 4 5 five")
        scores, _ = self.scores()
        self.assert_rates(scores["x"]["words"], wer=0, cpwer=40, orcwer=40)
        self.assertEqual(scores["x"]["words"]["cpwer_errors"], {"insertions": 1, "deletions": 1, "substitutions": 0})

    def test_an_utterance_with_the_wrong_speaker_costs_orcwer_nothing(self):
        self.lay("x", words="A 0 3 one two, B 3 5 three", our_words="s1 0 5 one two three")
        scores, _ = self.scores()
        self.assert_rates(scores["x"]["words"], wer=0, cpwer=100 * 2 / 3, orcwer=0)

    def test_silence_is_no_division_by_zero(self):
        self.lay("x", "", "s1 0 5")
        self.lay("y", "A 0 10", "s1 0 10")
        scores, pooled = self.scores()
        self.assertEqual((scores["x"]["speakers"]["der"], scores["x"]["speakers"]["false_alarm_s"]), (None, 5))
        self.assert_rates(pooled["speakers"], der=50)
        self.assertIsNone(pooled["speakers"]["md_eval_der"], "md-eval.pl leaves such a recording out")

    def test_no_answer_at_all_is_scored(self):
        self.lay("x", "A 0 10", "", words="A 0 4 yes")
        scores, _ = self.scores()
        self.assert_rates(scores["x"]["speakers"], der=100, md_eval_der=100, missed=100, jer=100)
        self.assert_rates(scores["x"]["words"], wer=100, cpwer=100, orcwer=100)

    def test_names_that_scorers_stumble_over_are_scored(self):
        self.lay("50 % (a.b)", "A 0 10", "s1 0 5")
        scores, _ = self.scores()
        self.assert_rates(scores["50 % (a.b)"]["speakers"], der=50, md_eval_der=50)

    def test_a_failed_recording_is_a_row_and_a_code(self):
        self.lay("broken", "A 0 10", record={"status": "failed", "diarization_status": "skipped", "duration_s": 0.0,
                                             "error": {"chain": ["The audio is invalid", "no header"]}}, code=3)
        self.lay("silent", "A 0 10", says="", complains="Killed", code=137)
        self.lay("well", "A 0 10", "s1 0 10")
        code, results, _ = self.evaluate()
        rows = {r["name"]: (r["status"], r["problem"]) for r in results["recordings"]}
        self.assertEqual(code, 1)
        self.assertEqual(rows, {"broken": ("failed", "The audio is invalid: no header (code 3)"),
                                "silent": ("failed", "Killed (code 137)"), "well": ("done", None)})
        self.assertEqual(results["pooled"][-1]["counts"],
                         {"recordings": 3, "done": 1, "with_speakers": 1, "with_words": 0})
        table = (self.out / "results.md").read_text()
        self.assertRegex(table, r"\| broken \|.*\*\*failed\*\*: The audio is invalid: no header")
        self.assertIn("FAILED: broken, silent.", table)

    def test_speakers_that_failed_are_a_failure_and_speakers_not_asked_for_are_none(self):
        self.lay("x", "A 0 10", words="A 0 4 yes", our_words="Nobody 0 4 yes", record={"diarization_status": "failed"})
        code, results, _ = self.evaluate()
        self.assertEqual((code, results["recordings"][0]["status"]), (1, "failed"))
        self.assert_rates(results["recordings"][0]["words"], wer=0)
        self.lay("x", "A 0 10", record={"diarization_status": "skipped"})
        code, results, _ = self.evaluate()
        self.assertEqual((code, results["recordings"][0]["speakers"]), (0, None))

    def test_a_recording_without_reference_is_listed_without_scores(self):
        self.lay("x", None, "s1 0 10")
        scores, pooled = self.scores()
        self.assertEqual([scores["x"][k] for k in ("speakers", "words", "speaker_count")], [None] * 3)
        self.assertEqual(pooled["counts"]["recordings"], 1)
        self.assertTrue((self.out / scores["x"]["picture"]).exists())

    def test_scorers_that_disagree_are_a_failure(self):
        self.lay("x", "A 0 10", "s1 0 10")
        other = self.top / "other.pl"
        for text, agree, said in ((OTHER_MD_EVAL, False, "DISAGREE"), (SHORT_MD_EVAL, None, "md-eval.pl FAILED"),
                                  ("exit 1", None, "md-eval.pl FAILED")):
            other.write_text(text)
            code, results, _ = self.evaluate(other)
            self.assertEqual((code, results["scorers_agree"]), (1, agree))
            self.assertIn(said, (self.out / "results.md").read_text())

    def test_a_folder_with_something_else_in_it_is_left_alone(self):
        self.lay("x", "A 0 10", "s1 0 10")
        self.out.mkdir()
        (self.out / "diary.txt").write_text("mine")
        code, results, said = self.evaluate()
        self.assertEqual((code, results), (1, None))
        self.assertIn("is not what an evaluation left", said)
        self.assertEqual((self.out / "diary.txt").read_text(), "mine")

    def test_every_field_for_machines_is_explained(self):
        self.lay("x", "A 0 10", "s1 0 10", words="A 0 4 yes", our_words="s1 0 4 yes")
        _, results, _ = self.evaluate()
        there = {key for key in results if key not in ("recordings", "pooled")} | {"recordings[]", "pooled[]"}
        for entry in results["recordings"] + results["pooled"]:
            there |= set(entry)
            there |= {f"{part}.{key}" for part in ("speakers", "words", "speaker_count") for key in entry[part]}
        self.assertEqual(there, set(report.FIELDS))

    def test_the_page_shows_table_and_pictures(self):
        self.lay("a<b $x$", "A 0 10", "s1 0 10", record={"gaps": [{"start": 12.0, "end": 15.0, "cause": "power_loss"}]})
        self.scores()
        page = (self.out / "index.html").read_text()
        self.assertIn("a&lt;b $x$", page)
        self.assertNotIn("a<b", page)
        picture = (self.out / "timelines" / "a_b__x_.svg").read_text()
        for text in ("a&lt;b $x$: DER 0.00 %", "s1 = A", "power loss", "gap in the record", "0:10"):
            self.assertIn(text, picture)


class Timeline(unittest.TestCase):
    def test_speakers_that_stand_for_each_other_have_one_colour(self):
        turns = lambda *who: [Turn(i, i + 1, w) for i, w in enumerate(who)]
        lanes = timeline.lanes(turns("A", "B"), turns("s1", "s2", "s3"), {"s1": "B", "s2": "A"}, [])
        colour = {lane.label: lane.colour for lane in lanes}
        self.assertEqual((colour["s1 = B"], colour["s2 = A"]), (colour["B"], colour["A"]))
        self.assertNotEqual(colour["A"], colour["B"])
        self.assertEqual(colour["s3 = nobody"], timeline.NOBODY)

    def test_who_stands_for_nobody_is_confused_also_under_the_name_of_somebody(self):
        speakers = scores.Speakers([Turn(0, 10, "A")], [Turn(0, 8, "s1"), Turn(8, 10, "A")], [Stretch(0, 10)])
        wrong = [turn for turn in speakers.errors() if turn.speaker != "correct"]
        self.assertEqual(wrong, [Turn(8, 10, "confusion")])

    def test_what_is_not_scored_is_what_lies_between(self):
        self.assertEqual(timeline.unscored([(2, 4), (6, 9)], 10), [(0.0, 2), (4, 6), (9, 10)])


if __name__ == "__main__":
    unittest.main()
