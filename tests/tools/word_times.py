#!/usr/bin/env python3
"""Measures how exact the times of words are: ./dev bench --words

Sentences of the synthetic conversations are spoken by espeak-ng, which says when it begins each word; the demonstration
model writes them down, with the words of a phrase sharing its time by length, and with times by dynamic time warping over
its last layer. Counted are words that were heard right. Sentences are read from the folder `shared` beside the checkout.
"""

import argparse
import ctypes
import difflib
import json
import random
import re
import struct
from pathlib import Path

from engine_child import RATE_HZ, Engine

SENTENCES = 60
VOICES = ["en-us", "en-gb"]
SILENCE_S = 0.5


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_ms", ctypes.c_int), ("sample", ctypes.c_int),
                ("user", ctypes.c_void_p), ("id", ctypes.c_char * 8)]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
SYNCHRONOUS, WORD, LAST = 2, 1, 0


class Espeak:
    def __init__(self):
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate_hz = self.library.espeak_Initialize(SYNCHRONOUS, 0, None, 0)
        self.samples, self.words = [], []
        self.callback = CALLBACK(self._heard)
        self.library.espeak_SetSynthCallback(self.callback)

    def _heard(self, samples, count, events):
        if samples and count > 0:
            self.samples.extend(samples[:count])
        at = 0
        while events[at].type != LAST:
            if events[at].type == WORD:
                self.words.append((events[at].text_position - 1, events[at].length, events[at].audio_ms / 1000))
            at += 1
        return 0

    def say(self, text, voice):
        """Samples at 16 kHz with silence around them, and each word with the second at which it begins."""
        self.samples, self.words = [], []
        self.library.espeak_SetVoiceByName(voice.encode())
        said = text.encode()
        self.library.espeak_Synth(said, len(said) + 1, 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        silence = [0] * int(SILENCE_S * RATE_HZ)
        words = [(said[at:at + length].decode(), SILENCE_S + start) for at, length, start in self.words]
        return silence + resampled(self.samples, self.rate_hz) + silence, words


def resampled(samples, rate_hz):
    """Linear: enough to be understood."""
    step, last = rate_hz / RATE_HZ, len(samples) - 1
    places = (n * step for n in range(int(last / step)))
    return [round(samples[int(at)] + (samples[int(at) + 1] - samples[int(at)]) * (at % 1)) for at in places]


def plain(word):
    return re.sub(r"[^a-z']", "", word.lower())


def errors(engine, spoken):
    """Seconds that each word which was heard right begins too late."""
    found = []
    for samples, truth in spoken:
        reply, _ = engine.ask("transcribe", struct.pack(f"<{len(samples)}h", *samples))
        heard = [word for phrase in reply["phrases"] for word in phrase["words"]]
        same = difflib.SequenceMatcher(None, [plain(w) for w, _ in truth], [plain(w["text"]) for w in heard], False)
        for block in same.get_matching_blocks():
            pairs = zip(truth[block.a:block.a + block.size], heard[block.b:block.b + block.size])
            found += [word["start"] - start for (_, start), word in pairs]
    return sorted(found, key=abs)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    given = arguments.parse_args()
    talks = [json.loads((given.shared / f"audio/conversation/sample-{name}.json").read_text()) for name in ("2min", "10min")]
    sentences = [s["text"] for talk in talks for turn in talk["turns"] for s in turn["sentences"]]
    random.Random(5).shuffle(sentences)
    espeak = Espeak()
    spoken = [espeak.say(text, VOICES[n % len(VOICES)]) for n, text in enumerate(sentences[:SENTENCES])]
    print(f"{sum(len(truth) for _, truth in spoken)} words in {SENTENCES} sentences.\n")
    print("| times by | words heard right | half of them within | within 0.2 s |\n|---|---|---|---|")
    for name, alignment in [("length", "unknown"), ("attention of the last layer", "last-layer")]:
        model = given.shared / "models/demo-whisper-q8_0.bin"
        engine = Engine(given.roomscribe, "transcriber", "--model", model, "--threads", 1, "--alignment", alignment)
        late = errors(engine, spoken)
        engine.close()
        near = sum(abs(seconds) < 0.2 for seconds in late) / len(late)
        print(f"| {name} | {len(late)} | {abs(late[len(late) // 2]):.2f} s | {100 * near:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
