"""Without a radius TRAM is Adam, and Adam is not accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.papers import Result
from papyrax.papers import tram as paper


def test_without_a_radius_it_is_adam(monkeypatch):
    monkeypatch.setattr(paper, "SCALE", 0.0)
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.normal(size=(20, 64)), jnp.float32), jnp.asarray(rng.integers(0, 10, 20))
    params = paper.mlp_init(jax.random.key(0), (64, 4, 10))
    run = jax.jit(paper.train, static_argnums=(0, 4))
    got, want = (run(m, params, data, jax.random.key(1), 1e-3)[0] for m in ("TRAM", "Adam"))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("gain", [0.01, 0.0])
def test_verdict(monkeypatch, gain):
    after = dict.fromkeys(paper.METHODS, 0.8) | {"TRAM": 0.8 + gain, "SAM 0.5": 0.812}

    def run(params, data, keys, *, method):
        accuracies = dict.fromkeys(("domain", "clean", "blurred"), after[method])
        return accuracies, np.tile(np.linspace(0, 1, 300), (2, 1))

    monkeypatch.setattr(paper, "fine_tune", run)
    monkeypatch.setattr(paper, "pretrain", lambda data, keys: None)
    result = paper.reproduce(seed=100, seeds=1)
    assert [m.holds for m in result.measures] == [gain > 0] * 3 + [True] * 2
    assert Result.from_json(result.to_json()) == result
