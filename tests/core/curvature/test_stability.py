"""Stability of SGD against dense operators on matrices and simulated second moments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import curvature

RNG = np.random.default_rng(0)
TALL, WIDE = RNG.normal(size=(9, 4)), RNG.normal(size=(3, 6))
WIDE[2] = 3 * WIDE[0]


@functools.partial(jax.jit, static_argnames=("batch_size",))
def measures(gradients, batch_size):
    return curvature.sgd_stability(gradients, batch_size=batch_size)


@functools.partial(jax.jit, static_argnames=("batch_size",))
def growth(gradients, learning_rate, batch_size):
    return curvature.sgd_moment_growth(gradients, learning_rate, batch_size=batch_size)


def dense(a, rate, batch_size):
    """The map of second moments as a matrix on vectors of d^2 entries, in the span of `a`."""
    basis = np.linalg.svd(a)[2][: np.linalg.matrix_rank(a)].T
    a = a @ basis
    n, d = a.shape
    h, eye = a.T @ a / n, np.eye(d)
    single = sum(np.kron(np.outer(x, x), np.outer(x, x)) for x in a) / n
    noise = single / batch_size + (1 - 1 / batch_size) * np.kron(h, h)
    return np.eye(d * d) - rate * (np.kron(h, eye) + np.kron(eye, h)) + rate**2 * noise


def radius(*arguments):
    return np.abs(np.linalg.eigvals(dense(*arguments))).max()


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("a", [TALL, WIDE], ids=["tall", "wide"])
def test_exact_threshold(a, batch_size):
    with jax.enable_x64(True):
        got = [float(x) for x in measures(jnp.asarray(a), batch_size)]
        eigenvalues = np.linalg.eigvalsh(a.T @ a / len(a))
        np.testing.assert_allclose(got[0], eigenvalues[-1], rtol=1e-10)
        np.testing.assert_allclose(got[2], eigenvalues.sum() / batch_size, rtol=1e-10)
        np.testing.assert_allclose(got[3], np.linalg.norm(eigenvalues), rtol=1e-10)
        assert got[1] >= max(got[0], got[2])
        low, high = 1e-3, 2 / got[0]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if radius(a, middle, batch_size) < 1 else (low, middle)
        np.testing.assert_allclose(2 / got[1], low, rtol=1e-7)
        for rate in (0.3 * low, low, 1.5 * low):
            value = growth(jnp.asarray(a), jnp.asarray(rate), batch_size)
            np.testing.assert_allclose(value, radius(a, rate, batch_size), rtol=1e-7)


def test_large_batches_are_gradient_descent():
    with jax.enable_x64(True):
        got = measures(jnp.asarray(TALL), 10**9)
    np.testing.assert_allclose(got.critical, got.largest, rtol=1e-6)


def test_units_and_nothing():
    big, small = measures(jnp.asarray(TALL * 1e6), 1), measures(jnp.asarray(TALL), 1)
    np.testing.assert_allclose(np.stack(big), np.stack(small) * 1e12, rtol=1e-4)
    assert not np.any(np.stack(measures(jnp.zeros((9, 4)), 1)))


def test_noise_alignment():
    residuals = RNG.normal(size=9)
    h = TALL.T @ TALL / 9
    s = (TALL.T * residuals**2) @ TALL / 9
    with jax.enable_x64(True):
        got = curvature.noise_alignment(jnp.asarray(TALL), jnp.asarray(residuals))
    norm = np.linalg.norm
    factor = np.sum(s * h) / (np.mean(residuals**2) * norm(h) ** 2)
    np.testing.assert_allclose(got.factor, factor, rtol=1e-10)
    np.testing.assert_allclose(got.cosine, np.sum(s * h) / norm(s) / norm(h), rtol=1e-10)
