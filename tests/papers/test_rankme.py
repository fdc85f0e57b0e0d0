"""A short sweep runs, and ranks that say nothing do not pass."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import rankme as paper


def test_reproduce_shortened(monkeypatch):
    train = paper.train
    monkeypatch.setattr(paper, "WEIGHTS", (0.0, 4.0))
    monkeypatch.setattr(paper, "train", lambda k, w, x, _: train(k, w, x, 40))
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    # What the covariance term is for.
    ranks = result.figure.lines[0].y[0]
    assert ranks[0] < ranks[1] == 1
    assert result.measures[1].method[0] > 0.5

    def backwards(key, weight, x, steps):
        noise = jax.random.normal(key, x.shape)
        return x + 3 * weight * noise, 1 + weight

    monkeypatch.setattr(paper, "train", backwards)
    assert not any(m.holds for m in paper.reproduce(seed=100, seeds=1).measures)
    assert np.isclose(paper.correlation(np.array([1, 2, 3]), np.array([2, 4, 8])), 1)
