"""Targets are imbalanced as said, ranks are Spearman's, and a short run."""

import numpy as np
from scipy.stats import spearmanr

from papyrax.papers import Result
from papyrax.papers import conr as paper


def test_data():
    x, y = paper.make_data(5)
    assert x.shape == (3000, 20)
    assert y.min() >= 0
    assert y.max() <= 100
    assert np.mean(y[: paper.TRAIN] > 70) < 0.05
    np.testing.assert_allclose(np.mean(y[paper.TRAIN :] > 70), 0.3, atol=0.05)


def test_rank_correlation():
    rng = np.random.default_rng(1)
    f, y = rng.normal(size=(50, 3)), rng.uniform(size=50)
    i, j = np.random.default_rng(0).integers(0, 50, (2, 2000))
    u = f / np.linalg.norm(f, axis=1, keepdims=True)
    want = spearmanr(-(u[i] * u[j]).sum(1), np.abs(y[i] - y[j])).statistic
    np.testing.assert_allclose(paper.rank_correlation(f, y), want, atol=0.01)


def test_reproduce(monkeypatch):
    monkeypatch.setattr(paper, "STEPS", 10)
    monkeypatch.setattr(paper, "BATCH", 16)
    result = paper.reproduce(seed=9, seeds=2)
    assert [len(m.baseline) for m in result.measures] == [2, 2]
    assert result.measures[0].method != result.measures[0].baseline
    assert Result.from_json(result.to_json()) == result
