"""The sub-gradient method of robust matrix recovery against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papyrax.optim import recovery_subgradient, subdifferential_init, subgm

RNG = np.random.default_rng(0)
COUNT, DIM = 40, 4
SENSING = RNG.normal(size=(COUNT, DIM, DIM))
TRUTH = RNG.normal(size=(DIM, 1)) @ np.ones((1, 1))
TARGETS = np.einsum("mij,ij->m", SENSING, TRUTH @ TRUTH.T) + 9 * (RNG.random(COUNT) < 0.2)


def slow_q(u):
    total = np.zeros((DIM, DIM))
    for a, y in zip(SENSING, TARGETS):
        total += np.sign(np.trace(a.T @ u @ u.T) - y) * (a + a.T) / 2
    return total / COUNT


@jax.jit
def train(sensing, targets, start):
    tx = subgm(0.2, 0.9)

    def body(carry, _):
        u, state = carry
        q = recovery_subgradient(u, sensing, targets)
        updates, state = tx.update(2 * q @ u, state, u, subgradient=q)
        return (optax.apply_updates(u, updates), state), q

    return jax.lax.scan(body, (start, tx.init(start)), length=15)


def test_trajectory():
    u = RNG.normal(size=(DIM, 3))
    u[:, 2] = 0
    with jax.enable_x64(True):
        (got, _), first = train(jnp.asarray(SENSING), jnp.asarray(TARGETS), jnp.asarray(u))
        scaled = train(jnp.asarray(7 * SENSING), jnp.asarray(7 * TARGETS), jnp.asarray(u))[0][0]
    np.testing.assert_allclose(first[0], slow_q(u), atol=1e-14)
    for t in range(15):
        q = slow_q(u)
        u = u - 0.2 * 0.9**t / np.linalg.norm(q) * 2 * q @ u
    np.testing.assert_allclose(got, u, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(scaled, u, rtol=1e-10, atol=1e-14)  # units do not matter
    assert not np.asarray(got)[:, 2].any()  # a column of zeros stays one


def test_sub_gradient_is_that_of_the_loss():
    u = RNG.normal(size=(DIM, 2))
    loss = lambda u: np.abs(np.einsum("mij,ij->m", SENSING, u @ u.T) - TARGETS).mean()  # noqa: E731
    move = 1e-6 * RNG.normal(size=u.shape)
    with jax.enable_x64(True):
        q = recovery_subgradient(jnp.asarray(u), jnp.asarray(SENSING), jnp.asarray(TARGETS))
    slope = (loss(u + move) - loss(u - move)) / 2
    np.testing.assert_allclose(np.sum(2 * np.asarray(q) @ u * move), slope, rtol=1e-6)


def test_start():
    with jax.enable_x64(True):
        start = subdifferential_init(jnp.asarray(SENSING), jnp.asarray(TARGETS), 3, alpha=1e-3)
    values, vectors = np.linalg.eigh(-slow_q(np.zeros((DIM, 1))))
    best = vectors[:, 1:] @ np.diag(np.maximum(values[1:], 0)) @ vectors[:, 1:].T
    start = np.asarray(start)
    np.testing.assert_allclose(start @ start.T, 1e-6 * best, atol=1e-18)
    leading = np.abs(vectors[:, -1] @ TRUTH[:, 0]) / np.linalg.norm(TRUTH)
    assert leading > 0.8  # the direction of what was measured, in spite of wrong measurements


def test_the_norm_is_of_all_entries_and_needed():
    tx, grads = subgm(1.0, 1.0), jnp.array([2.0])
    updates, _ = tx.update(grads, tx.init(grads), subgradient=[jnp.array([3.0]), jnp.array([4.0])])
    np.testing.assert_allclose(updates, [-0.4], rtol=1e-6)
    with pytest.raises(ValueError, match="subgradient: got None"):
        tx.update(grads, tx.init(grads))
