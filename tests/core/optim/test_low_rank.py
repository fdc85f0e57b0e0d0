"""Projection to low rank against NumPy, and descent that contracts as the theory says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import low_rank_factors, low_rank_projection, lpgd

RNG = np.random.default_rng(0)


def test_projection():
    x = RNG.normal(size=(2, 6, 4))
    with jax.enable_x64(True):
        project = jax.jit(low_rank_projection, static_argnames="rank")
        got = np.asarray(project(x, rank=2))
        again = np.asarray(project(got, rank=2))
        whole = np.asarray(project(x, rank=9))
    for one, near in zip(x, got):
        assert np.linalg.matrix_rank(near) == 2
        tail = np.linalg.svd(one, compute_uv=False)[2:]
        np.testing.assert_allclose(np.linalg.norm(one - near), np.linalg.norm(tail), rtol=1e-12)
        np.testing.assert_allclose(np.sum((one - near) * near), 0, atol=1e-12)  # orthogonal
    np.testing.assert_allclose(again, got, atol=1e-12)
    np.testing.assert_allclose(whole, x, atol=1e-12)


def test_factors():
    x = RNG.normal(size=(2, 6, 4))
    with jax.enable_x64(True):
        left, right = map(np.asarray, low_rank_factors(x, 2))
        np.testing.assert_allclose(left @ right, low_rank_projection(x, 2), atol=1e-12)
        assert [f.shape for f in low_rank_factors(x, 9)] == [(2, 6, 4), (2, 4, 4)]
    for one, l, r in zip(x, left, right):
        np.testing.assert_allclose(l.T @ l, r @ r.T, atol=1e-12)  # balanced
        nuclear = np.linalg.svd(one, compute_uv=False)[:2].sum()
        np.testing.assert_allclose((l**2).sum() + (r**2).sum(), 2 * nuclear, rtol=1e-12)


def test_descent():
    """Curvatures of 1 and 2 and a minimum of rank 2: the distance shrinks by 2/3 or better."""
    best = RNG.normal(size=(2, 3, 2)) @ RNG.normal(size=(2, 5))
    scale = RNG.choice([1.0, 2.0], size=(2, 3, 5))
    tx = lpgd(2 / 3, 2)
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(RNG.normal(size=(2, 3, 5))), "b": jnp.ones(3)}

        @jax.jit
        def step(params):
            slope = {"w": scale * (params["w"] - best), "b": params["b"]}
            updates, _ = tx.update(slope, tx.init(params), params)
            return optax.apply_updates(params, updates)

        away = [np.linalg.norm(params["w"] - best)]
        for _ in range(12):
            params = step(params)
            away.append(np.linalg.norm(params["w"] - best))
        assert np.linalg.matrix_rank(params["w"].reshape(6, 5)) == 2
    assert max(b / a for a, b in itertools.pairwise(away)) <= 2 / 3
    np.testing.assert_allclose(params["b"], (1 / 3) ** 12, rtol=1e-9)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(jnp.ones((2, 2)), tx.init(jnp.ones((2, 2))))
