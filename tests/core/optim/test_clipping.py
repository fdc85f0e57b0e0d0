"""Coordinate-wise clipping against a sort in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import coordinate_clip, diminishing_radius

RNG = np.random.default_rng(0)
TREE = {
    "kernel": RNG.normal(size=(7, 5)) * 10,
    "bias": RNG.normal(size=3),
    "zero": np.zeros(2),
    "n": np.arange(3, dtype=np.int32),
}
FLOATS = ("kernel", "bias", "zero")


@functools.partial(jax.jit, static_argnames=("scope",))
def clip(updates, fraction, scope="global"):
    return coordinate_clip(fraction, scope=scope).update(updates, optax.EmptyState())[0]


def slow(x, fraction, of):
    """Entries cut to the order statistic of the magnitudes `of`."""
    ordered = np.sort(np.abs(of).ravel())[::-1]
    k = int(len(ordered) * fraction)
    most = ordered[k] if k < len(ordered) else 0.0
    return np.sign(x) * np.minimum(np.abs(x), most)


@pytest.mark.parametrize("scope", ["global", "leaf"])
def test_formula(scope):
    everything = np.concatenate([TREE[k].ravel() for k in FLOATS])
    with jax.enable_x64(True):
        tree = jax.tree.map(jnp.asarray, TREE)
        for fraction in (0.0, 0.025, 0.1, 0.5, 0.99, 1.0):
            got = clip(tree, fraction, scope=scope)
            for k in FLOATS:
                of = everything if scope == "global" else TREE[k]
                np.testing.assert_array_equal(got[k], slow(TREE[k], fraction, of))
            np.testing.assert_array_equal(got["n"], TREE["n"])


def test_float32_and_what_clipping_keeps():
    g = jnp.asarray(RNG.normal(size=(40, 25)) ** 3, jnp.float32)
    got = np.asarray(clip(g, 0.1), np.float64)
    exact = np.asarray(g, np.float64)
    np.testing.assert_array_equal(got, slow(exact, 0.1, exact))
    assert (got != exact).sum() == 100
    np.testing.assert_array_equal(np.sign(got), np.sign(exact))
    assert (got * exact).sum() >= (got**2).sum() > 0
    # Of mostly ties, of subnormal and of infinite entries too.
    hard = jnp.array([1e-42, 2.0, 2.0, -2.0, jnp.inf, 0.0, -0.0, 1e-45, 2.0, 3.0], jnp.float32)
    got = np.asarray(clip(hard, 0.25))
    np.testing.assert_array_equal(got[[1, 3, 4, 9]], [2, -2, 2, 2])
    assert np.isnan(np.asarray(clip(jnp.array([1.0, jnp.nan]), 0.5))).sum() == 1


def test_fixed_threshold_and_scale():
    g = jnp.array([-4.0, 0.5, 2.0])
    fixed = coordinate_clip(threshold=1.5)
    once = fixed.update(g, fixed.init(g))[0]
    np.testing.assert_array_equal(once, [-1.5, 0.5, 1.5])
    np.testing.assert_array_equal(fixed.update(once, fixed.init(g))[0], once)
    half = coordinate_clip(0.0, threshold_scale=0.5)
    np.testing.assert_array_equal(half.update(g, half.init(g))[0], [-2, 0.5, 2])
    assert coordinate_clip().update({}, optax.EmptyState())[0] == {}


def test_bf16():
    g = jnp.asarray(RNG.normal(size=64), jnp.bfloat16)
    got = clip(g, 0.25)
    assert got.dtype == jnp.bfloat16
    exact = np.asarray(g, np.float64)
    np.testing.assert_array_equal(np.asarray(got, np.float64), slow(exact, 0.25, exact))


def test_diminishing_radius():
    tx = diminishing_radius(2.0, 0.7)
    with jax.enable_x64(True):
        state, update = tx.init(TREE), jax.jit(tx.update)
        for t in range(3):
            got, state = update(TREE, state)
            most = 2.0 * (t + 1) ** -0.7 / np.log(t + 2)
            for name in FLOATS:
                norm = np.linalg.norm(TREE[name])
                want = TREE[name] * min(1, most / norm) if norm else TREE[name]
                np.testing.assert_allclose(got[name], want, rtol=1e-12)
            np.testing.assert_array_equal(got["n"], TREE["n"])


def test_blocks_within_a_radius_descend_where_whole_steps_do_not():
    """|x - w h|^2 by alternate steps far too long for its curvature: the radius tames them."""
    x = RNG.normal(size=(8, 2)) @ RNG.normal(size=(2, 6))

    def loss(p):
        return jnp.sum((x - p["w"] @ p["h"]) ** 2)

    def descend(*last):
        tx = optax.chain(optax.sgd(0.5), *last)

        def step(carry, block):
            params, state = carry
            grads = jax.grad(loss)(params)
            grads = {k: jnp.where(block == i, g, 0) for i, (k, g) in enumerate(grads.items())}
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss(params)

        params = {"h": jnp.ones((2, 6)) + x[:2] / 4, "w": jnp.ones((8, 2)) + x[:, :2] / 4}
        blocks = jnp.arange(600) % 2
        return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), blocks)[1])()

    tamed, wild = descend(diminishing_radius(5.0, 0.9)), descend()
    assert tamed[-1] < 0.02 * tamed[0]
    assert not wild[-1] < wild[0]
