"""GRACE's parts against its author's code and what is meant by them."""

import jax
import jax.numpy as jnp
import numpy as np
from authors_code import compare, recorded

import papyrax.losses as losses

AUTHORS = recorded("grace")
EPSILON = 1e-6  # added to every difference by torch's pairwise_distance


def test_authors_preference():
    compare(AUTHORS["preference"], lambda **a: losses.relaxed_preference_loss(**a).mean())


def test_authors_separation():
    def loss(safe, unsafe, jailbreak):
        return losses.grace_loss(
            safe + EPSILON, unsafe, jailbreak, jnp.zeros(5), merge_weight=0.0
        ).mean()

    compare(AUTHORS["separation"], loss)


def test_authors_merge():
    def loss(unsafe, jailbreak):
        return losses.grace_loss(
            unsafe, unsafe + EPSILON, jailbreak, jnp.zeros(5), separation_weight=0.0
        ).mean()

    compare(AUTHORS["merge"], loss)


def test_relaxed_preference_between_dpo_and_none():
    scores = np.random.default_rng(0).normal(size=(4, 6))
    with jax.enable_x64(True):
        relaxed = jax.jit(losses.relaxed_preference_loss)
        want = losses.dpo_loss(*map(jnp.asarray, scores), beta=1.0)
        np.testing.assert_allclose(relaxed(*scores, reference_weight=1.0), want, rtol=1e-12)
        want = np.log1p(np.exp(scores[1] - scores[0]))
        np.testing.assert_allclose(relaxed(*scores, reference_weight=0.0), want, rtol=1e-12)


def test_terms_vanish_where_the_geometry_is_right():
    rng = np.random.default_rng(1)
    u = rng.normal(size=(4, 3))
    j = u + 0.3 * rng.normal(size=(4, 3)) / np.sqrt(3)
    p = np.arange(4.0)
    loss = jax.jit(jax.value_and_grad(lambda s, u, j: losses.grace_loss(s, u, j, p).sum(), (0, 1)))
    value, (ds, du) = loss(u + 20, u, j)
    assert value == p.sum()
    assert not np.any(ds)
    assert not np.any(du)
    value, (ds, du) = loss(u + 1, u, j)
    assert value > p.sum()
    # Descent moves a safe answer that is too near away from both.
    assert np.all(np.sum(np.asarray(ds) * (u + 1 - (u + j) / 2), 1) < 0)


def test_layerwise_pool():
    rng = np.random.default_rng(2)
    h = rng.normal(size=(4, 3, 2)).astype(np.float32)
    one = losses.layerwise_pool(h, jnp.array([0.0, 90.0, 0.0, 0.0]))
    np.testing.assert_allclose(one, h[1], rtol=1e-6)
    a = rng.normal(size=4).astype(np.float32)
    weights = np.exp(a / 0.5) / np.exp(a / 0.5).sum()
    got = losses.layerwise_pool(h, a, temperature=0.5)
    np.testing.assert_allclose(got, sum(w * x for w, x in zip(weights, h)), rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda h, a: losses.layerwise_pool(h, a).sum(), argnums=(0, 1))(h, a)
    assert not np.any(grad[0])
    assert np.any(grad[1])
