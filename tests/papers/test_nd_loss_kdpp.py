"""The measurement's ways differ in what they say, and a short run of it."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import nd_loss_kdpp as paper


def test_ways():
    assert paper.WAYS["KD"] == (1.0, 0.0)
    assert paper.WAYS["cross-entropy"] == (0.0, 0.0)
    assert paper.WAYS["KD++"][1] > 0


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 30)
    result = paper.reproduce(seed=9, seeds=2)
    cosine, length, accuracy, plain = result.measures
    assert Result.from_json(result.to_json()) == result
    assert accuracy.method == plain.method
    assert accuracy.baseline != plain.baseline
    # Already after 30 steps.
    assert np.mean(length.method) > np.mean(length.baseline)
    assert all(0.2 < a < 1 for a in accuracy.method)
    assert all(-1 <= c <= 1 for c in cosine.method)
