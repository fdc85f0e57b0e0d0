"""The random slopes against a transcription, and what makes them those of a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.losses import ensloss


def draw(seed=0, n=40):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=n) * 2, jnp.float32), jnp.asarray(rng.integers(0, 2, n))


@jax.jit
def slopes(f, y, key, power):
    """Derivatives by the margins."""
    return jax.grad(lambda f: ensloss(f, y, key, power=power).sum())(f) * (2 * y - 1)


@pytest.mark.parametrize("power", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_transcription(power):
    f, y = draw()
    key = jax.random.key(3)
    xi = np.asarray(jax.random.normal(key, (40,)), np.float64)
    with np.errstate(divide="ignore"):
        e = np.exp(xi) if power == 0 else np.maximum(1 + power * xi, 0) ** (1 / power)
    g = np.maximum(np.sort(-e), -1)
    s = np.asarray(f) * (2 * np.asarray(y) - 1)
    want = np.empty(40)
    want[np.argsort(s)] = g
    want = np.where(s > 1, want / s, want) - 1e-6
    np.testing.assert_allclose(slopes(f, y, key, power), want, rtol=1e-4, atol=2e-7)


def test_negative_bounded_and_convex():
    for seed in range(10):
        f, y = draw(seed)
        g = np.asarray(slopes(f, y, jax.random.key(seed), seed / 5 - 1))
        assert (g < 0).all()
        assert (np.abs(g) <= 1 + 2e-6).all()
        s = np.asarray(f) * (2 * np.asarray(y) - 1)
        inside = s <= 1
        assert (np.diff(g[inside][np.argsort(s[inside])]) >= 0).all()


def test_only_ranks_matter_below_one():
    f, y = draw()
    f = f - 10 * (2 * y - 1)  # every margin far below one
    key = jax.random.key(0)
    moved = f - 3.0 * (2 * y - 1)
    np.testing.assert_array_equal(slopes(f, y, key, 0.0), slopes(moved, y, key, 0.0))


def test_keys_give_different_losses_with_the_same_mean_slopes():
    f, y = draw()
    keys = jax.random.split(jax.random.key(0), 500)
    all_slopes = jax.vmap(lambda k: slopes(f, y, k, 0.0))(keys)
    assert (all_slopes[0] != all_slopes[1]).any()
    # The mean of min(exp(n), 1) over normal n is 1/2 + exp(1/2) Phi(-1) = 0.7616.
    s = np.asarray(f) * (2 * np.asarray(y) - 1)
    undone = np.asarray(all_slopes + 1e-6) * np.maximum(s, 1)
    np.testing.assert_allclose(undone.mean(), -0.7616, atol=0.01)


def test_descends_to_a_classifier():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(200, 3)), jnp.float32)
    y = (x @ jnp.array([1.0, -2.0, 0.5]) > 0).astype(jnp.int32)

    @jax.jit
    def step(w, key):
        return w - 0.5 * jax.grad(lambda w: ensloss(x @ w, y, key).mean())(w)

    w = jnp.zeros(3)
    for i in range(100):
        w = step(w, jax.random.key(i))
    assert jnp.mean((x @ w > 0) == y) > 0.97
