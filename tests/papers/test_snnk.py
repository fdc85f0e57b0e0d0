"""Verdicts of the reproduction follow its numbers, and its estimate is of the cosine."""

import jax
import numpy as np

from papyrax.papers import snnk as paper


def result(errors=(0.05, 0.016, 0.005), uniform=0.5, ours=0.94, dense=0.97):
    stacked = np.array([[errors, (uniform,) * 3]] * 3)
    accuracy = {"SNNK": np.full(3, ours), "dense": np.full(3, dense)}
    return [m.holds for m in paper._result("quick", (0, 1, 2), stacked, accuracy).measures]


def test_verdicts_follow_the_numbers():
    assert result() == [True, True, True]
    assert result(errors=(0.05, 0.05, 0.05)) == [False, False, True]
    assert result(uniform=0.01) == [False, True, True]
    assert result(errors=(0.5, 0.01, 0.001))[1] is False
    assert result(ours=0.92)[2] is False


def test_errors_are_those_of_the_cosine(monkeypatch):
    monkeypatch.setattr(paper, "COUNTS", (100, 4000))
    errors = paper.cosine_errors.__wrapped__(jax.random.split(jax.random.key(7), 4))
    assert errors.shape == (4, 2, 2)
    assert np.all(errors[:, 0, -1] < 0.25)
