"""The small transformer is causal, and the verdict follows the numbers."""

import jax
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import directional_sharpness_clipping as paper


def test_data():
    batches, held = paper.make_data(100, 2)
    assert batches.shape == (2, paper.BATCH, paper.CONTEXT + 1)
    assert held.shape == (512, paper.CONTEXT + 1)
    tokens = paper.corpus()
    assert tokens.min() == 0
    assert tokens.max() == paper.WORDS - 1
    counts = np.bincount(tokens)[1:]
    assert np.all(counts[:-1] >= counts[1:])  # by rank


def test_sharpness():
    """The curvature along the gradient equals a difference of gradients."""
    batches, _ = paper.make_data(100, 1)
    tokens = batches[0, :16]
    params = paper.init(jax.random.key(100))
    sharp = paper.sharpness(params, paper.optimizer("Adam", 1.0).init(params), tokens)
    assert set(sharp) == {"SGD", "clip 10%", "clip 50%", "Adam"}
    grad = jax.jit(jax.grad(paper.loss))
    g = grad(params, tokens)
    size = float(np.sqrt(sum(np.sum(np.square(x)) for x in g.values())))
    h = 1e-2 / size
    ahead, behind = (grad({k: params[k] + d * g[k] for k in g}, tokens) for d in (h, -h))
    want = sum(np.sum(g[k] * (ahead[k] - behind[k])) for k in g) / (2 * h * size**2)
    np.testing.assert_allclose(sharp["SGD"], want, rtol=2e-2)


@pytest.mark.parametrize("gap", [0.2, 0.05])
def test_verdict(monkeypatch, gap):
    after = {"SGD": 3.3, "clipped SGD": 3.3 - gap, "Adam": 3.0}
    curve = np.zeros(300)
    monkeypatch.setattr(paper, "train", lambda *a, name: (None, None, curve, after[name]))
    sharp = {"SGD": 1.0, "clip 10%": 0.5, "clip 50%": 0.3, "Adam": -0.1}
    monkeypatch.setattr(paper, "sharpness", lambda *a: sharp)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [True, False, False, gap > 0.1]
    assert Result.from_json(result.to_json()) == result
