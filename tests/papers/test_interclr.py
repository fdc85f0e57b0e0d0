"""Clusters of digits are of their classes more often than chance, and are followed in training."""

import jax
import numpy as np

from papyrax.papers import Result
from papyrax.papers import interclr as paper


def test_reproduce_shortened(monkeypatch):
    for name, value in (("SIZE", 128), ("POOL", 64), ("NEGATIVES", 16)):
        monkeypatch.setattr(paper, name, value)
    monkeypatch.setitem(paper.STEPS, "quick", 20)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    right = result.measures[1]
    # One in ten by chance.
    assert 0.5 < right.baseline[0] < 0.85
    assert not right.holds
    assert result.measures[0].method != result.measures[0].baseline


def test_cluster(monkeypatch):
    monkeypatch.setattr(paper, "CLUSTERS", 3)
    rng = np.random.default_rng(0)
    z = np.repeat(np.eye(3), 5, 0) + 0.05 * rng.normal(size=(15, 3))
    labels = np.asarray(jax.jit(paper.cluster)(jax.random.key(3), z.astype(np.float32)).labels)
    groups = labels.reshape(3, 5)
    assert np.all(groups == groups[:, :1])
