"""Scenes have the labels that they show; a short training with soft targets already helps."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import softcon as paper


def test_scenes():
    x, labels = paper.scenes(100)
    assert x.shape == (2 * paper.SCENES, 256)
    assert set(labels.sum(1)) == {1, 2, 3}
    # A scene of one texture has four like patches.
    quarters = x[labels.sum(1) == 1].reshape(-1, 2, 8, 2, 8).swapaxes(2, 3).reshape(-1, 4, 64)
    likeness = [np.corrcoef(q)[0, 1:].min() for q in quarters]
    assert min(likeness) > 0.5


def test_reproduce_shortened(monkeypatch):
    pretrain = paper.pretrain
    monkeypatch.setattr(paper, "pretrain", lambda k, w, x, y, _: pretrain(k, w, x, y, 40))
    monkeypatch.setattr(paper, "SCENES", 400)
    monkeypatch.setattr(paper, "WEIGHTS", (0.0, 5.0))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    precision, correlation = result.measures
    assert precision.method[0] > precision.baseline[0] + 0.01
    assert correlation.method[0] > correlation.baseline[0] + 0.1
