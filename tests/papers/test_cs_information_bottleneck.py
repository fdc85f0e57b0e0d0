"""The data are what they say, and a short run."""

import numpy as np

from papyrax.papers import Result
from papyrax.papers import cs_information_bottleneck as paper


def test_data():
    x, y = paper.make_data(5)
    gap = (y - paper.truth(x))[:, 0]
    np.testing.assert_allclose(gap[paper.TRAIN :], 0, atol=1e-5)
    wrong = np.abs(gap[: paper.TRAIN]) > 0.6
    assert 0.12 < wrong.mean() < 0.22
    assert (gap[: paper.TRAIN][wrong] > 0).all()


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 10)
    monkeypatch.setattr(paper, "BATCH", 16)
    monkeypatch.setattr(paper, "WAYS", paper.WAYS[:2])
    result = paper.reproduce(seed=9, seeds=2)
    assert result.measures[0].method != result.measures[0].baseline
    assert Result.from_json(result.to_json()) == result
