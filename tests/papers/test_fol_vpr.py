"""Images of a place share its tokens; a short training finds some, and does not yet pass."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import fol_vpr as paper


def test_draw(monkeypatch):
    monkeypatch.setattr(paper, "NOISE", 0.0)
    x, own = paper.draw(100)
    assert np.all(own.sum(-1) == paper.OWN)
    a, b = (np.unique(x[0, 7, i][own[0, 7, i]], axis=0) for i in (0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, np.unique(x[0, 8, 0][own[0, 8, 0]], axis=0))


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    for name, value in (("PLACES", 16), ("NOISE", 0.2), ("HITS", 5)):
        monkeypatch.setattr(paper, name, value)
    monkeypatch.setattr(paper, "train", lambda k, w, x, _: train(k, w, x, 40))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    first, _, area = result.measures
    assert first.method[0] > 0.3  # one in sixteen by chance
    assert area.method[0] > area.baseline[0]
    assert not area.holds
