#!/usr/bin/env python3
"""Makes tests/fixtures/diarization/fbank.json: what kaldi-native-fbank gives for the signal of the filter bank's test.

    pip install kaldi-native-fbank && tests/tools/fbank_reference.py > tests/fixtures/diarization/fbank.json
"""

import json
import math
import struct
import sys

import kaldi_native_fbank as knf

RATE = 16000


def samples():
    """The signal of `engine/fbank.rs`, rounded to 32-bit floats as there."""
    state = 1
    for n in range(4000):
        t = n / RATE
        state = (state * 1664525 + 1013904223) % 2**32
        noise = (state >> 8) / 16777216 - 0.5
        chirp = math.sin(math.tau * (200 * t + 6000 * t * t))
        value = 0.4 * chirp * (1 + math.sin(40 * t)) + 0.2 * noise + 0.1
        yield struct.unpack("f", struct.pack("f", value))[0]


def features(window):
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = 80
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE, [s * 32768 for s in samples()])
    bank.input_finished()
    return [round(float(v), 5) for n in range(bank.num_frames_ready) for v in bank.get_frame(n)]


json.dump({window: features(window) for window in ("hamming", "povey")}, sys.stdout)
print()
