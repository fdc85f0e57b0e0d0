"""Mixtures of embeddings lie where no clean one does, and help to retrieve unseen classes."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.papers import Result
from papyrax.papers import metrix as paper


def test_mix():
    z = jnp.eye(4)
    mixed, targets = jax.jit(paper.mix)(jax.random.key(0), z, jnp.array([0, 0, 1, 2]))
    np.testing.assert_allclose(jnp.sum(mixed, 1), 1, rtol=1e-6)
    # Over the anchors of each class once, the labels of a mixture are shares that sum to one.
    np.testing.assert_allclose(jnp.sum(targets[1:], 0), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[0], mixed[:, 0] + mixed[:, 1], rtol=1e-6)


def test_reproduce_shortened(monkeypatch):
    train, kinds = paper.train, []

    def shorter(key, weight, x, y, kind, steps):
        kinds.append(kind)
        return train(key, weight, x, y, "multi-similarity", steps=60)  # one program to compile

    monkeypatch.setattr(paper, "train", shorter)
    result = paper.reproduce(seed=100, seeds=1)
    assert Result.from_json(result.to_json()) == result
    assert kinds == ["multi-similarity"] * 4 + ["contrastive"] * 2
    recall, _, explored, _ = result.measures
    assert recall.method[0] > recall.baseline[0] + 0.01
    assert explored.holds
