"""Shrinkage against sorting in NumPy, and what it does to weights over several steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import iterative_soft_shrinkage, magnitude_masks

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3, 8, 10)).astype(np.float32)
masks = jax.jit(magnitude_masks, static_argnames=("sparsity", "pattern"))


def smallest(w, sparsity):
    """The authors' order: indices of the smallest, never more than 99.5%."""
    count = min(math.ceil(sparsity * w.size), int(w.size * 0.995))
    return np.argsort(np.abs(w).ravel())[:count]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95, 1.0])
def test_masks(sparsity):
    want = np.ones(W.size, bool)
    want[smallest(W, sparsity)] = False
    got = masks({"w": W, "b": W[0, 0, 0]}, sparsity)
    np.testing.assert_array_equal(np.ravel(got["w"]), want)
    assert got["b"].all()


def test_pattern():
    got = np.asarray(masks(W, pattern=(3, 4)))
    groups = np.moveaxis(W, 2, 3).reshape(-1, 4)
    want = np.abs(groups) == np.abs(groups).max(1, keepdims=True)
    np.testing.assert_array_equal(np.moveaxis(got, 2, 3).reshape(-1, 4), want)
    with pytest.raises(ValueError, match="pattern: got"):
        magnitude_masks(W, pattern=(1, 3))


def test_steps():
    """After an optimizer's step: what is kept is untouched, the rest keeps its order."""
    tx = optax.chain(optax.sgd(0.5), iterative_soft_shrinkage(0.8, 0.9))
    gradient = RNG.normal(size=W.shape).astype(np.float32)
    params = {"w": jnp.asarray(W), "b": jnp.ones(3)}
    updates, state = jax.jit(tx.update)({"w": gradient, "b": jnp.ones(3)}, tx.init(params), params)
    want = (W - 0.5 * gradient).ravel()
    small = smallest(want, 0.8)
    want[small] *= np.float32(0.9)
    np.testing.assert_allclose(np.ravel(params["w"] + updates["w"]), want, atol=1e-6)
    np.testing.assert_array_equal(updates["b"], -0.5)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(params, state)


def test_without_gradients():
    """k steps multiply by ratio^k; at a ratio of 0 the small are gone, at 1 nothing happens."""
    still = jnp.zeros_like(W)
    small = smallest(W, 0.5)
    for ratio, steps in ((0.9, 3), (0.0, 1), (1.0, 1)):
        tx = iterative_soft_shrinkage(0.5, ratio)

        @jax.jit
        def step(w, tx=tx):
            return w + tx.update(still, tx.init(w), w)[0]

        w = jnp.asarray(W)
        for _ in range(steps):
            w = step(w)
        want = W.ravel().copy()
        want[small] *= ratio**steps
        np.testing.assert_allclose(np.ravel(w), want, rtol=1e-5, atol=1e-7)
        if ratio == 0:
            assert not np.ravel(w)[small].any()
