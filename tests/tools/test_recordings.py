"""What the evaluation takes for recordings and references. Needs nothing but the standard library."""

import tempfile
import unittest
from pathlib import Path

from evaluation.recordings import Stretch, Turn, Unusable, Utterance, find

RTTM = "SPEAKER {} 1 0.5 1.25 <NA> <NA> {} <NA> <NA>\n"


class Recordings(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name).resolve()

    def lay(self, **files):
        """`a__b_wav="text"` is the file a/b.wav."""
        for name, text in files.items():
            path = self.folder / ".".join(name.replace("__", "/").rsplit("_", 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def found(self, *paths):
        return {r.name: r for r in find([self.folder / p for p in paths or [""]])}

    def refusal(self, *paths):
        with self.assertRaises(Unusable) as refused:
            self.found(*paths)
        return str(refused.exception)

    def test_a_reference_lies_beside_its_recording(self):
        speaker = "SPKR-INFO any 1 <NA> <NA> <NA> unknown A <NA> <NA>\n;; a remark\n"
        self.lay(x_wav="", x_rttm=speaker + RTTM.format("any", "A"),
                 x_uem="any 1 0.25 10\n", x_stm="any 1 A 0.5 1.75 <o,f0,female> Good morning.\nany 1 B 2 3 Yes\n")
        x = self.found()["x"]
        self.assertEqual(x.turns, [Turn(0.5, 1.75, "A")])
        self.assertEqual(x.scored, [Stretch(0.25, 10)])
        self.assertEqual(x.utterances, [Utterance(0.5, 1.75, "A", "Good morning."), Utterance(2, 3, "B", "Yes")])

    def test_one_file_may_describe_several_recordings(self):
        self.lay(a_flac="", b_ogg="", all_rttm=RTTM.format("a", "A") + RTTM.format("b", "B"), all_uem="a 1 0 9\n")
        found = self.found()
        self.assertEqual([r.turns[0].speaker for r in found.values()], ["A", "B"])
        self.assertEqual((found["a"].scored, found["b"].scored), ([Stretch(0, 9)], None))

    def test_folders_are_looked_through_and_name_their_recordings(self):
        self.lay(one__x_wav="", two__x_mp3="", two__deep__y_WAV="")
        self.assertEqual(list(self.found()), ["one/x", "two/deep/y", "two/x"])
        self.assertEqual([r.group for r in self.found().values()], ["one", "two/deep", "two"])

    def test_a_recording_without_reference_is_there(self):
        self.lay(x_wav="")
        x = self.found()["x"]
        self.assertEqual((x.turns, x.scored, x.utterances), (None, None, None))

    def test_an_empty_reference_says_that_nobody_speaks(self):
        self.lay(x_wav="", x_rttm="")
        self.assertEqual(self.found()["x"].turns, [])

    def test_words_are_read_from_json(self):
        self.lay(x_wav="", x_json='{"turns": [{"speaker": "A", "start": 0, "end": 1, "text": "Hm."}]}',
                 y_wav="", y_json='[{"session_id": "y", "speaker": 1, "start_time": 0, "end_time": 2, "words": "no"}]',
                 other_json='{"what": "ever"}')
        found = self.found()
        self.assertEqual(found["x"].utterances, [Utterance(0, 1, "A", "Hm.")])
        self.assertEqual(found["y"].utterances, [Utterance(0, 2, "1", "no")])

    def test_references_without_recording_are_named_all(self):
        self.lay(x_wav="", gone_rttm=RTTM.format("gone", "A"), all_stm="x 1 A 0 1 yes\nlost 1 A 0 1 no\n",
                 away_json='{"turns": []}')
        self.assertRegex(self.refusal(), r"(?s)all\.stm: describes 'lost'.*away\.json: describes 'away'.*"
                                         r"gone\.rttm: describes 'gone', and beside it there is no recording gone")

    def test_a_recording_alone_does_not_ask_for_its_neighbours(self):
        self.lay(x_wav="", y_wav="", all_rttm=RTTM.format("x", "A") + RTTM.format("gone", "A"))
        self.assertEqual(list(self.found("x.wav")), ["x"])

    def test_a_line_that_is_wrong_is_named(self):
        self.lay(x_wav="", x_rttm=RTTM.format("x", "A") + "SPEAKER x 1 0.5\n")
        self.assertIn("x.rttm:2: not a line of RTTM", self.refusal())
        self.lay(x_rttm="SPEAKER x 1 3 -1 <NA> <NA> A <NA> <NA>\n")
        self.assertIn("x.rttm:1: not a line of RTTM: from 3 to 2.0 is no stretch of time", self.refusal())

    def test_what_cannot_be_told_apart_is_refused(self):
        self.lay(x_wav="", x_flac="")
        self.assertIn("cannot be told apart", self.refusal())

    def test_two_descriptions_of_one_recording_are_refused(self):
        self.lay(x_wav="", a_rttm=RTTM.format("x", "A"), b_rttm=RTTM.format("x", "B"))
        self.assertRegex(self.refusal(), r"x\.wav: described by .*a\.rttm and by .*b\.rttm")

    def test_words_in_two_files_are_refused(self):
        self.lay(x_wav="", x_stm="x 1 A 0 1 yes\n", x_json='{"turns": []}')
        self.assertIn("x.wav: has its words both in STM and in x.json", self.refusal())

    def test_nothing_to_evaluate_is_refused(self):
        self.lay(notes_txt="")
        self.assertIn("there is no recording", self.refusal())
        self.assertIn("there is no such folder", self.refusal("elsewhere"))


if __name__ == "__main__":
    unittest.main()
