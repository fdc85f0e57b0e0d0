"""Short runs of training and search, and the verdict follows the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import sharpdarts as paper
from papyrax.papers.toys import mlp


def test_training():
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    y = np.argmax(x[:, :10], 1).astype(np.int32)
    params = paper.train(x, y, jax.random.key(0), jnp.float32(0.03), power=10.0, steps=60)
    assert (np.argmax(jax.jit(mlp)(params, x), 1) == y).mean() > 0.8


def test_search_moves_the_logits():
    logits = np.asarray(
        paper.search(jax.random.split(jax.random.key(0), 2), weighting="max_w", steps=100)
    )
    assert logits.shape == (2, 3)
    assert np.abs(logits).max(1).min() > 0.01  # they start at 1e-3
    assert (logits.std(0) > 1e-3).all()


@pytest.mark.parametrize("broken", [None, 1, 2])
def test_verdict(monkeypatch, broken):
    def accuracies(seed, power):
        rows = [0.9, 0.95, 0.94, 0.5]
        return tuple(np.array(rows) + (0.01 if power == 10.0 and broken != 1 else 0.0))

    monkeypatch.setattr(paper, "accuracies", accuracies)
    shares = {"max_w": 0.85, "softmax": 0.9 if broken == 2 else 0.7}
    monkeypatch.setattr(paper, "found", lambda seed, weighting: shares[weighting])
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [i != broken for i in range(3)]
    assert Result.from_json(result.to_json()) == result
