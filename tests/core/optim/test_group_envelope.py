"""The envelope of few groups and its proximal step against minimization in SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq, minimize

from papyrax.optim import group_envelope, group_envelope_prox, proximal_group_envelope

RNG = np.random.default_rng(0)
X, WEIGHTS = RNG.normal(size=(2, 5)), RNG.uniform(0.5, 2, 5)
prox = jax.jit(group_envelope_prox, static_argnames="k")
value = jax.jit(group_envelope, static_argnames="k")


def best_shares(cost, k):
    """Minimize a function of u over [0, 1]^5 with a sum of k at most."""
    room = {"type": "ineq", "fun": lambda u: k - u.sum()}
    found = minimize(
        cost,
        np.full(5, k / 5),
        method="SLSQP",
        bounds=[(1e-9, 1)] * 5,
        constraints=[room],
        tol=1e-14,
    )
    return found.x, found.fun


@pytest.mark.parametrize("k", [1, 3, 5])
def test_against_minimization(k):
    squares = WEIGHTS * (X**2).sum(0)
    with jax.enable_x64(True):
        got = float(value(X, k, weights=WEIGHTS))
        moved = np.asarray(prox(X, k, 0.3, weights=WEIGHTS))
    np.testing.assert_allclose(got, best_shares(lambda u: (squares / u).sum() / 2, k)[1], rtol=1e-6)
    # For given shares u the best point is u x / (lam d + u).
    u, _ = best_shares(lambda u: (0.3 * squares / (0.3 * WEIGHTS + u)).sum() / 2, k)
    np.testing.assert_allclose(moved, u / (0.3 * WEIGHTS + u) * X, atol=2e-4)
    if k == 5:
        np.testing.assert_allclose(got, squares.sum() / 2, rtol=1e-12)
        np.testing.assert_allclose(moved, X / (1 + 0.3 * WEIGHTS), rtol=1e-12)


def test_shares_that_rise_from_a_kink():
    """Round numbers have ties and shares that begin to rise just where the sum comes near k."""
    rng = np.random.default_rng(1)
    x = np.round(2 * rng.normal(size=(300, 1, 8)), 1)
    weights = np.where(rng.random((300, 1)) < 0.5, 1.0, np.round(rng.uniform(0.5, 2, (300, 8)), 1))
    strength = np.round(10 ** rng.uniform(-1, 1, 300), 1)

    def slow(x, d, lam):
        shares = lambda eta: np.clip(np.sqrt(d) * np.abs(x) * eta - lam * d, 0, 1)  # noqa: E731
        if (x != 0).sum() <= 3:
            return x / (lam * d + 1)
        u = shares(brentq(lambda eta: shares(eta).sum() - 3, 0, 1e6, xtol=1e-15, rtol=1e-15))
        return u * x / (lam * d + u)

    with jax.enable_x64(True):
        one = lambda x, d, lam: group_envelope_prox(x, 3, lam, weights=d)  # noqa: E731
        got = jax.jit(jax.vmap(one))(x, weights, strength)[:, 0]
    want = [slow(*case) for case in zip(x[:, 0], weights, strength)]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_value_for_single_entries_is_that_of_the_k_support_norm():
    """Argyriou, Foygel and Srebro, proposition 2.1: the largest count, the others together."""
    x = 2 * np.random.default_rng(2).normal(size=(300, 8))

    def slow(x, k=5):
        z = np.sort(np.abs(x))[::-1]
        for r in range(k):
            mean = z[k - r - 1 :].sum() / (r + 1)
            if (r == k - 1 or z[k - r - 2] > mean) and mean >= z[k - r - 1]:
                return (np.sum(z[: k - r - 1] ** 2) + (r + 1) * mean**2) / 2
        raise AssertionError("no such r")

    with jax.enable_x64(True):
        got = jax.jit(jax.vmap(lambda x: group_envelope(x, 5)))(x)
    np.testing.assert_allclose(got, [slow(row) for row in x], rtol=1e-12)


def test_what_is_known_of_the_envelope():
    sparse = X * np.array([1, 0, 0, 1, 0])
    other = RNG.normal(size=X.shape)
    with jax.enable_x64(True):
        np.testing.assert_allclose(value(X[:1], 1), np.abs(X[0]).sum() ** 2 / 2, rtol=1e-12)
        np.testing.assert_allclose(value(sparse, 3), (sparse**2).sum() / 2, rtol=1e-12)
        assert value(X, 3) > (X**2).sum() / 2
        largest = np.sort((other**2).sum(0))[-3:].sum() / 2
        assert value(X, 3) + largest >= (X * other).sum()
        a, b = np.asarray(prox(X, 2, 0.4)), np.asarray(prox(other, 2, 0.4))
        np.testing.assert_array_equal(prox(X, 3, 0.0), X)
    assert np.linalg.norm(a - b) <= np.linalg.norm(X - other)
    assert (np.abs(a).sum(0) == 0).any()


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_sizes_ties_and_zeros(scale):
    x = scale * np.array([[1.0, 1, 1, 0, 0]], np.float32)
    np.testing.assert_allclose(prox(x, 2, 0.5), 2 / 3 / (0.5 + 2 / 3) * x, rtol=1e-5)
    assert not np.asarray(prox(0 * x, 2, 0.5)).any()


def test_in_a_chain():
    tx = optax.chain(optax.sgd(0.5), proximal_group_envelope(2, 0.6, lambda count: 0.5))
    params = {"w": jnp.asarray(X, jnp.float32), "b": jnp.ones(5)}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    want = np.asarray(prox(jnp.asarray(X - 0.5, jnp.float32), 2, 0.3))
    np.testing.assert_allclose(params["w"] + updates["w"], want, atol=1e-6)
    np.testing.assert_array_equal(updates["b"], -0.5)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(params, tx.init(params))
