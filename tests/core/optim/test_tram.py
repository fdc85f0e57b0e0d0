"""TRAM is SAM with the distance for a radius."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax import optim

W = jnp.array([[0.5, -1.0, 0.2], [1.5, 0.3, -0.4]])
X, Y = jnp.array([[1.0, 2.0], [-1.0, 0.5]]), jnp.array([0, 2])


def loss(w):
    return optax.softmax_cross_entropy_with_integer_labels(X @ w, Y).mean()


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_constant_distance_is_sam_and_none_is_the_plain_gradient(adaptive):
    grads, none = jax.grad(loss)(W), optax.EmptyState()
    tx = optim.scale_by_tram(2.0, adaptive=adaptive)
    same = optim.scale_by_sam(0.2, adaptive=adaptive, eta=0.0)
    got, _ = tx.update(grads, none, W, obj_fn=loss, radius=0.1)
    want, _ = same.update(grads, none, W, obj_fn=loss)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert not np.allclose(got, grads, rtol=1e-3)
    still, _ = tx.update(grads, none, W, obj_fn=loss, radius=0.0)
    np.testing.assert_allclose(still, grads, rtol=1e-6)


def test_distance_is_the_divergence():
    rng = np.random.default_rng(0)
    now, past = rng.normal(size=(2, 4, 5))
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (now, past))
    forward, reverse = np.sum(q * np.log(q / p), -1), np.sum(p * np.log(p / q), -1)
    wanted = {"forward": forward, "reverse": reverse, "symmetric": forward + reverse}
    for kind, want in wanted.items():
        got = optim.tram_distance(jnp.float32(now), jnp.float32(past), kind=kind)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_no_gradient_flows_through_the_radius():
    def after(w, reference):
        distance = optim.tram_distance(X @ w, X @ reference).mean()
        tx = optim.scale_by_tram()
        step, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, obj_fn=loss, radius=distance)
        return jnp.sum(step)

    assert not np.any(jax.grad(after, 1)(W, W + 0.3))


@pytest.mark.parametrize("radius", [None, jnp.ones(2)])
def test_a_radius_is_needed(radius):
    tx = optim.scale_by_tram()
    with pytest.raises(ValueError, match="radius"):
        tx.update(W, tx.init(W), W, obj_fn=loss, radius=radius)
