#!/usr/bin/env python3
"""Measures how alike voices are, one person's in two recordings and two people's: ./dev bench --voices

A person's voice in a recording is the mean vector of the stretches in which the reference says that nobody else speaks: what
an enrolled print is compared with. Recordings and references are read from the folder `shared` beside the checkout.
"""

import argparse
import itertools
import math
import os
import struct
from pathlib import Path

from engine_child import RATE_HZ, Engine

# File, shortest piece in samples, and the likeness from which a print names a speaker: as in `Tuning` and the lock file.
MODELS = {"ge2e": ("ge2e_waveform.onnx", 26_000, 0.86), "demo-voice": ("demo-voice.onnx", 8_000, 0.90)}
WINDOW_S, HOP_S, PIECES = 1.6, 0.8, 3


def read_wav(path):
    """16-bit samples at 16 kHz, as bytes; Python's `wave` reads no floats, which some of the recordings are in."""
    data, at, chunks = path.read_bytes(), 12, {}
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks[name], at = data[at + 8:at + 8 + size], at + 8 + size + size % 2
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<2H2I2H", chunks[b"fmt "])
    assert (channels, rate_hz, kind, bits) in [(1, RATE_HZ, 1, 16), (1, RATE_HZ, 3, 32)], path
    if kind == 1:
        return chunks[b"data"]
    floats = struct.unpack(f"<{len(chunks[b'data']) // 4}f", chunks[b"data"])
    return struct.pack(f"<{len(floats)}h", *(max(-32768, min(32767, round(32768 * x))) for x in floats))


def read_rttm(path):
    """Stretches by file: (start, end, speaker), seconds."""
    files = {}
    for field in (line.split() for line in path.read_text().splitlines()):
        if field and field[0] == "SPEAKER":
            start = float(field[3])
            files.setdefault(field[1], []).append((start, start + float(field[4]), field[7]))
    return files


def alone(turns):
    """Stretches of each speaker in which nobody else speaks."""
    edges = sorted({edge for start, end, _ in turns for edge in (start, end)})
    found = {}
    for start, end in zip(edges, edges[1:]):
        speaking = {who for a, b, who in turns if a < end and b > start}
        if len(speaking) == 1:
            stretches = found.setdefault(speaking.pop(), [])
            if stretches and stretches[-1][1] == start:
                stretches[-1] = (stretches[-1][0], end)
            else:
                stretches.append((start, end))
    return found


def pieces(stretches):
    for start, end in stretches:
        at = start
        while at + WINDOW_S <= end:
            yield round(at * RATE_HZ), round((at + WINDOW_S) * RATE_HZ)
            at += HOP_S


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def voices(engine, wav, turns):
    """The mean vector of each speaker with enough pieces."""
    pcm, found = read_wav(wav), {}
    for who, stretches in alone(turns).items():
        ranges = [[{"start": a, "end": b}] for a, b in pieces(stretches) if 2 * b <= len(pcm)]
        if len(ranges) >= PIECES:
            reply, binary = engine.ask({"embed": {"pieces": ranges}}, pcm)
            dimension = reply["vectors"]["dimension"]
            vectors = [unit(struct.unpack_from(f"<{dimension}f", binary, 4 * dimension * n)) for n in range(len(ranges))]
            found[who] = unit([sum(column) for column in zip(*vectors)])
    return found


def recordings(shared):
    """Name of a recording, whose people are the same in it, its file and its turns."""
    for name in ("30s", "2min", "10min"):
        wav = shared / f"audio/conversation/sample-{name}.wav"
        yield wav, "conversation", read_rttm(wav.with_suffix(".rttm"))[wav.stem]
    for name, turns in sorted(read_rttm(shared / "audio/ami/ami.rttm").items()):
        yield shared / f"audio/ami/{name}.wav", "ami", turns
    phone = shared / "audio/phone-call/sample.wav"
    yield phone, "phone-call", next(iter(read_rttm(phone.with_suffix(".rttm")).values()))


def measure(engine, shared):
    """Likeness of one person in two recordings, and of two people, with whose it is."""
    heard = [((where, who), wav.stem, vector) for wav, where, turns in recordings(shared)
             for who, vector in voices(engine, wav, turns).items()]
    same, other = [], []
    for (a, file_a, x), (b, file_b, y) in itertools.combinations(heard, 2):
        if a != b or file_a != file_b:
            (same if a == b else other).append((sum(p * q for p, q in zip(x, y)), f"{a[1]} / {b[1]}"))
    return sorted(same), sorted(other, reverse=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    arguments.add_argument("--library", default=os.environ.get("ROOMSCRIBE_ONNXRUNTIME"), help="ONNX Runtime")
    given = arguments.parse_args()
    print("| voice model | one person, least (pairs) | two people, most alike (pairs) | next | a print names from |")
    print("|---|---|---|---|---|")
    for name, (file, minimum, limit) in MODELS.items():
        models = given.shared / "models"
        engine = Engine(given.roomscribe, "voices", "--vad", models / "silero_vad.onnx", "--voice", models / file,
                        "--minimum", minimum, "--threads", 1, "--library", given.library)
        same, other = measure(engine, given.shared)
        engine.close()
        print(f"| {name} | {same[0][0]:.2f} ({len(same)}) | {other[0][0]:.2f}, {other[0][1]} ({len(other)}) |"
              f" {other[1][0]:.2f} | {limit:.2f} |", flush=True)


if __name__ == "__main__":
    main()
