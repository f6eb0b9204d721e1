#!/usr/bin/env python3
"""Makes tests/fixtures/diarization/plda: a small PLDA of chance, and what pyannote.audio 4 makes of embeddings with it.

    pip install numpy scipy && tests/tools/plda_reference.py tests/fixtures/diarization/plda

The formulas are those of `vbx_setup` in pyannote/audio/utils/vbx.py (BUT Speech@FIT and Hervé Bredin, Apache-2.0).
"""

import json
import pathlib
import sys

import numpy as np
from scipy.linalg import eigh

TAKES, GIVES = 16, 8


def l2_norm(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def features(embeddings, mean1, mean2, lda, mu, tr, psi):
    within = np.linalg.inv(tr.T.dot(tr))
    between = np.linalg.inv((tr.T / psi).dot(tr))
    acvar, wccn = eigh(between, within)
    phi, basis = acvar[::-1], wccn.T[::-1]
    inner = np.sqrt(lda.shape[0]) * l2_norm(embeddings - mean1)
    outer = np.sqrt(lda.shape[1]) * l2_norm(lda.T.dot(inner.T).T - mean2)
    return (outer - mu).dot(basis.T), phi


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(2026)
    single = {
        "mean2": chance.normal(size=GIVES).astype(np.float32),
        "lda": chance.normal(size=(TAKES, GIVES)).astype(np.float32),
    }
    transform = {"mean1": chance.normal(size=TAKES), **single}
    # One array in Fortran's order: NumPy stores a transposed one so. The numbers of `psi` are in no order.
    tr = np.asfortranarray(np.eye(GIVES) + 0.3 * chance.normal(size=(GIVES, GIVES)))
    plda = {"mu": chance.normal(size=GIVES), "tr": tr, "psi": chance.permutation(np.geomspace(0.5, 20.0, GIVES))}
    np.savez(folder / "xvec_transform.npz", **transform)
    np.savez(folder / "plda.npz", **plda)
    # Two voices, three embeddings of each.
    voices = np.repeat(6.0 * chance.normal(size=(2, TAKES)), 3, axis=0)
    embeddings = (voices + chance.normal(size=voices.shape)).astype(np.float32)
    expected, phi = features(embeddings.astype(np.float64), **transform, **plda)
    case = {"embeddings": embeddings.tolist(), "features": expected.tolist(), "phi": phi.tolist()}
    (folder / "expected.json").write_text(json.dumps(case) + "\n")


main(pathlib.Path(sys.argv[1]))
