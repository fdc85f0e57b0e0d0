"""A short run separates, and the losses that are not there do not pass."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import icnn_proto_triplet as paper


def test_separability():
    z = np.array([[0.0, 1], [0, -1], [8, 1], [8, -1]])
    silhouette, ratio = paper.separability(z, np.array([0, 0, 1, 1]))
    assert ratio == 1 / 8
    assert 0.7 < silhouette < 0.8


def test_reproduce_shortened(monkeypatch):
    draw = paper.episodes
    monkeypatch.setattr(paper, "episodes", lambda seed, _: draw(seed, 60))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    icnn, triplet, ratio = result.measures
    assert icnn.method[0] > icnn.baseline[0]
    assert triplet.method[0] > triplet.baseline[0]
    assert ratio.method[0] < ratio.baseline[0]
    train = paper.train
    monkeypatch.setattr(paper, "train", lambda k, x, r, _: train(k, x, r, "prototypes alone"))
    assert not any(m.holds for m in paper.reproduce(seed=100, seeds=1).measures)
