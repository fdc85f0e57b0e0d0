"""Pairs in the denominator push unseen identities apart, from the first steps on."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import unpg as paper


def test_verify():
    z = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    true, false = paper.verify(z, np.array([0, 0, 1]))
    assert true.tolist() == [1.0]
    assert false.tolist() == [0.0, 0.0]


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "train", lambda k, x, y, pairs, _: train(k, x, y, pairs, 40))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    far = result.measures[1]
    assert far.method[0] < far.baseline[0] - 0.01
