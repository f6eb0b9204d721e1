#!/usr/bin/env python3
"""Measures steps of the segmentation network: ./dev bench --steps

Processes the conversations with both demonstration networks, chunks so many seconds apart, and scores the speakers by
pyannote.metrics (collar 0, overlap counted). Recordings are read from the folder `shared` beside the checkout.
"""

import argparse
import tempfile
from pathlib import Path
import subprocess

from measure import process, read_rttm
from memory import with_demonstration_networks
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

STEPS_S = [1.0, 2.5, 5.0]
CONVERSATIONS = ["sample-2min", "sample-10min"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--roomscribe", required=True)
    arguments.add_argument("--shared", required=True, type=Path)
    given = arguments.parse_args()
    print("| step | recording | speakers found | DER | confusion | engines worked |\n|---|---|---|---|---|---|")
    for step in STEPS_S:
        with tempfile.TemporaryDirectory() as root:
            with_demonstration_networks(given.roomscribe, root, given.shared / "models")
            settings = Path(root, "etc/roomscribe")
            settings.mkdir(parents=True)
            (settings / "step.toml").write_text(f"[engine]\nsegmentation_step = {step}\n")
            for name in CONVERSATIONS:
                wav = given.shared / f"audio/conversation/{name}.wav"
                record, _ = process(given.roomscribe, root, wav)
                export = [given.roomscribe, "export", "--root", root, record["session_id"], "--format", "rttm"]
                rttm = subprocess.run(export, capture_output=True, text=True, check=True).stdout
                hypothesis = next(iter(read_rttm(rttm).values()), Annotation())
                reference = read_rttm(wav.with_suffix(".rttm").read_text())[name]
                uem = Timeline([Segment(0, record["duration_s"])])
                metric = DiarizationErrorRate(collar=0, skip_overlap=False)
                parts = metric(reference, hypothesis, uem=uem, detailed=True)
                print(f"| {step} s | {name} | {record['speaker_count']['best']} |"
                      f" {100 * parts['diarization error rate']:.1f} % | {100 * parts['confusion'] / parts['total']:.1f} % |"
                      f" {record['processing']['seconds']:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
