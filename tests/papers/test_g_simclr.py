"""Batches of different clusters have fewer false negatives, while the clusters last."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import g_simclr as paper


def test_false_negatives():
    rows, labels = np.array([[0, 1, 2], [3, 4, 5]]), np.array([0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(paper.false_negatives(rows, labels), [1 / 3, 1])


def test_reproduce_shortened(monkeypatch):
    monkeypatch.setitem(paper.EPOCHS, "quick", 1)
    # Codes that need no training: the images.
    monkeypatch.setattr(paper, "codes", lambda _, x: x)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    guided, shuffled = result.figure.lines
    assert guided.y[0][0] < 0.9 * shuffled.y[0][0]
    assert result.measures[1].method[0] > 0.6
