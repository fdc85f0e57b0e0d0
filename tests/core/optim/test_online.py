"""Optimistic online mirror descent against its recurrences in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

from papyrax.optim import (
    entropic_mirror,
    euclidean_mirror,
    optimistic_omd,
    optimistic_omd_strongly_convex,
)

RNG = np.random.default_rng(0)
ROUNDS, DIM = 12, 4
TARGETS = RNG.normal(size=(ROUNDS, DIM))
START = np.full(DIM, 1 / DIM)


def play(tx, targets, split=False):
    """The points that are played on f_t(x) = |x - b_t|^2 / 2."""

    def body(carry, target):
        params, state = carry
        flat = jnp.concatenate([params["a"], params["b"]]) if split else params
        grads = flat - target
        grads = {"a": grads[:1], "b": grads[1:]} if split else grads
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), flat

    start = jnp.asarray(START)
    params = {"a": start[:1], "b": start[1:]} if split else start
    return jax.jit(lambda t: jax.lax.scan(body, (params, tx.init(params)), t)[1])(targets)


def slow(targets, rate, step, norm):
    """Points by the definition: z moves by gradients, x is z moved by the hint."""
    z, hint, variation, points = START, np.zeros(DIM), 0.0, []
    for t, target in enumerate(targets):
        x = step(z, hint, rate(t, variation))
        points.append(x)
        g = x - target
        z = step(z, g, rate(t, variation))
        variation += norm(g - hint) ** 2
        hint = g
    return np.stack(points)


def ball(z, g, r, radius=0.8):
    y = z - r * g
    return y * min(1, radius / np.linalg.norm(y))


def simplex(z, g, r):
    return softmax(np.log(z) - r * g)


def adaptive(t, variation, d=1.5, g=2.0, smooth=0.5):
    return d / np.sqrt(10 * d**2 * smooth**2 + 4 * g**2 + variation)


@pytest.mark.parametrize("split", [False, True])
def test_convex_on_a_ball(split):
    with jax.enable_x64(True):
        tx = optimistic_omd(1.5, 2.0, 0.5, mirror=euclidean_mirror(0.8))
        got = np.asarray(play(tx, jnp.asarray(TARGETS), split))
    np.testing.assert_allclose(got, slow(TARGETS, adaptive, ball, np.linalg.norm), rtol=1e-10)
    assert np.linalg.norm(got, axis=1).max() <= 0.8 + 1e-12


def test_convex_on_the_simplex():
    with jax.enable_x64(True):
        tx = optimistic_omd(1.5, 2.0, 0.5, mirror=entropic_mirror())
        got = np.asarray(play(tx, jnp.asarray(TARGETS)))
    largest = lambda g: np.abs(g).max()  # noqa: E731
    np.testing.assert_allclose(got, slow(TARGETS, adaptive, simplex, largest), rtol=1e-9)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-12)


def test_strongly_convex():
    with jax.enable_x64(True):
        got = play(optimistic_omd_strongly_convex(1.2), jnp.asarray(TARGETS))
    free = lambda z, g, r: z - r * g  # noqa: E731
    want = slow(TARGETS, lambda t, _: 2 / (1.2 * (t + 1)), free, np.linalg.norm)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_hint_of_zero_is_online_gradient_descent():
    tx = optimistic_omd_strongly_convex(2.0)
    params = jnp.array([1.0, -2.0])
    zero, grads = jnp.zeros(2), jnp.array([0.5, 1.0])
    updates, state = tx.update(grads, tx.init(params), params, hint=zero)
    np.testing.assert_allclose(updates, -grads, rtol=1e-6)
    updates, _ = tx.update(grads, state, params + updates, hint=zero)
    np.testing.assert_allclose(updates, -grads / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="params: got None"):
        tx.update(grads, state)


def test_small_weights_come_back():
    """A weight far below the least number that float32 can hold."""
    mirror = entropic_mirror()
    far = jnp.array([0.0, 400.0])
    dual = mirror.step(mirror.to_dual(jnp.array([0.5, 0.5])), far, 1.0)
    assert mirror.to_primal(dual)[1] == 0
    np.testing.assert_allclose(mirror.to_primal(mirror.step(dual, -far, 1.0)), 0.5, rtol=1e-4)
