#!/usr/bin/env python3
"""Measures what a box costs while it records: ./dev bench --idle

A box with the demonstration Whisper and ge2e records through ALSA: no session, then silence, then the ten-minute conversation, each
for so many minutes. For each: CPU time of the recorder and of its engines as a share of one core, and bytes that they had
written (what the kernel counts at the block layer for each process, so a page that is written twice counts twice), by the
hour. Recordings are read from the folder `shared` beside the checkout.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import wave
from pathlib import Path

HZ = os.sysconf("SC_CLK_TCK")
RATE = 16000


def tree(pid):
    """The process and all below it."""
    below = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += below.get(found[-1], [])
    return found


def reading(pid):
    """By process: seconds of CPU time, bytes written."""
    read = {}
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            io = dict(line.split(": ") for line in Path(f"/proc/{one}/io").read_text().splitlines())
        except OSError:
            continue
        read[one] = ((int(fields[11]) + int(fields[12])) / HZ, int(io["write_bytes"]))
    return read


def measured(pid, seconds):
    """Share of one core of the recorder and of its engines, and MB an hour that all of them wrote."""
    before, begun = reading(pid), time.monotonic()
    time.sleep(seconds)
    after, took = reading(pid), time.monotonic() - begun

    def since(one, which):
        return after[one][which] - before.get(one, (0, 0))[which]

    recorder = since(pid, 0)
    engines = sum(since(one, 0) for one in after if one != pid)
    written = sum(since(one, 1) for one in after)
    return recorder / took, engines / took, written / took * 3600 / 1e6


def silence(path, seconds):
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(bytes(2 * RATE * seconds))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    arguments.add_argument("--minutes", type=float, default=5.0)
    given = arguments.parse_args()
    seconds = given.minutes * 60
    room = Path(given.roomscribe).with_name("room")
    print("| while | recorder, share of a core | engines | written, MB an hour |\n|---|---|---|---|")
    for what in ["idle", "silence", "speech"]:
        with tempfile.TemporaryDirectory() as root:
            fetch = [given.roomscribe, "models", "fetch", "--root", root, "--from", given.shared / "models"]
            subprocess.run(fetch, stdout=subprocess.DEVNULL, check=True)
            fifo, conf = Path(root, "microphone.fifo"), Path(root, "asound.conf")
            os.mkfifo(fifo)
            conf.write_text(
                f'pcm.bench {{ type file slave.pcm {{ type null }} file "/dev/null" infile "{fifo}" format raw }}\n'
            )
            played = Path(root, "silence.wav")
            if what == "speech":
                played = given.shared / "audio/conversation/sample-10min.wav"
            else:
                silence(played, int(seconds) + 60)
            environment = dict(os.environ, ROOMSCRIBE_ROOT=root, ALSA_CONFIG_PATH=str(conf))
            environment["ROOMSCRIBE_CAPTURE_DEVICE"] = "bench"
            sound = subprocess.Popen([room, "play", played, fifo, "--hold"], stderr=subprocess.DEVNULL)
            box = subprocess.Popen([given.roomscribe, "run"], env=environment, stderr=subprocess.DEVNULL)
            try:
                ask = [given.roomscribe, "--json"]
                while subprocess.run([*ask, "status"], env=environment, capture_output=True).returncode != 0:
                    time.sleep(0.2)
                if what != "idle":
                    start = subprocess.run(
                        [*ask, "start", "--consent", "verbal"], env=environment, capture_output=True, check=True
                    )
                    json.loads(start.stdout)
                # The first window is thirty seconds away; before it nothing is worked on.
                time.sleep(35)
                recorder, engines, written = measured(box.pid, seconds)
                print(f"| {what} | {recorder:.2%} | {engines:.1%} | {written:.1f} |", flush=True)
            finally:
                box.terminate()
                box.wait()
                sound.kill()


if __name__ == "__main__":
    main()
