"""A short run gains, and a softmax in place of the decoupled one does not pass."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import dexml_decoupled_softmax as paper


def test_draw():
    x, targets = paper.draw(100)
    assert x.shape == (2, 400, 16)
    assert set(np.unique(targets.sum(-1))) == {paper.FEW, paper.MANY}


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "train", lambda k, x, t, which, _: train(k, x, t, which, 200))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    assert result.holds
    monkeypatch.setattr(paper, "train", lambda k, x, t, which, _: train(k, x, t, False, 200))
    assert not paper.reproduce(seed=100, seeds=1).measures[0].holds
