"""UDIM's direction is SAM's and a gradient, and the acceptance needs its effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import udim as paper


def test_without_its_weight_it_is_sam(monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(6, 64)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, 6))
    params = paper.mlp_init(jax.random.key(0), (64, 5, 10))
    run = {m: jax.jit(lambda p, m=m: paper.direction(m, p, x, y)) for m in paper.METHODS}
    with_it, sam, plain = (run[m](params) for m in paper.METHODS)
    monkeypatch.setattr(paper, "WEIGHT", 0.0)
    without = jax.jit(lambda p: paper.direction("UDIM", p, x, y))(params)
    flat = [jax.flatten_util.ravel_pytree(t)[0] for t in (without, sam, plain, with_it)]
    np.testing.assert_allclose(flat[0], flat[1], rtol=1e-5, atol=1e-7)
    assert np.abs(flat[1] - flat[2]).max() > 1e-4
    assert np.abs(flat[3] - flat[1]).max() > 1e-4


@pytest.mark.parametrize("gain", [0.03, 0.01])
def test_verdict(monkeypatch, gain):
    def run(data, keys, *, method):
        after = 0.7 + gain * (method == "UDIM")
        return {"source": np.float32(0.97), **dict.fromkeys(paper.DOMAINS, after)}

    monkeypatch.setattr(paper, "accuracies", run)
    result = paper.reproduce(seed=100, seeds=2)
    assert [m.holds for m in result.measures] == [gain > 0.02, gain > 0.02, True]
    assert Result.from_json(result.to_json()) == result
