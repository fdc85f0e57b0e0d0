"""Label-robust losses against the maximum they are defined by, and a transcription."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from papyrax.losses import aldr_kl, aldr_kl_init, ldr_kl


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4)) * 2, rng.integers(0, 4, 5)


@pytest.mark.parametrize("t", [0.1, 1.0, 5.0])
def test_closed_form_is_the_maximum_over_weightings(data, t):
    """A solver for the weights on the simplex finds no more and no less."""
    f, y = data
    with jax.enable_x64(True):
        got = np.asarray(ldr_kl(jnp.asarray(f), y, temperature=t, margin=0.5))
    for i in range(5):
        gain = f[i] - f[i, y[i]] + 0.5 * (np.arange(4) != y[i])

        def negative(u, gain=gain):
            p = np.exp(u - u.max())
            p /= p.sum()
            return -(p @ gain - t * (p * np.log(4 * p + 1e-300)).sum())

        best = min(minimize(negative, start, tol=1e-12).fun for start in (np.zeros(4), gain / t))
        np.testing.assert_allclose(got[i], -best, rtol=1e-6, atol=1e-8)


def test_limits(data):
    f, y = map(jnp.asarray, data)
    xent = optax.softmax_cross_entropy_with_integer_labels(f, y)
    np.testing.assert_allclose(ldr_kl(f, y, margin=0.0), xent - np.log(4), rtol=1e-4, atol=1e-5)
    gain = f - f[jnp.arange(5), y][:, None] + 0.1 * (jnp.arange(4) != y[:, None])
    np.testing.assert_allclose(ldr_kl(f, y, temperature=1e-4), gain.max(-1), atol=1e-3)
    with jax.enable_x64(True):
        wide = jnp.asarray(data[0])
        np.testing.assert_allclose(ldr_kl(wide, y, temperature=1e6), gain.mean(-1), atol=1e-4)


def test_shift_and_normalized_scale(data):
    f, y = map(jnp.asarray, data)
    np.testing.assert_allclose(ldr_kl(f + 3, y), ldr_kl(f, y), rtol=1e-4, atol=1e-5)
    for factor in (1e-20, 7.0, 1e20):
        got = ldr_kl(factor * f, y, normalization="l1")
        np.testing.assert_allclose(got, ldr_kl(f, y, normalization="l1"), rtol=1e-4, atol=1e-5)
    soft = np.log1p(np.exp(data[0]))
    want = ldr_kl(jnp.asarray(soft / soft.mean(-1, keepdims=True)), y)
    np.testing.assert_allclose(ldr_kl(f, y, normalization="softplus"), want, rtol=1e-4)


def slow_aldr(f, y, t, t0, a, c):
    f, k = f / np.abs(f).mean(), len(f)
    p = np.exp(f / t) / np.exp(f / t).sum()
    t = t0 - t0 / (a * np.log(k)) * (p * np.log(k * p)).sum()
    gain = f - f[y] + c * (np.arange(k) != y)
    prior = a * np.log(k) / (2 * t0) * (t - t0) ** 2
    return t * np.log(np.exp(gain / t).mean()) - prior, t


def test_adaptive_step(data):
    f, y = data
    indices = np.array([3, 0, 6, 2, 5])
    with jax.enable_x64(True):
        state = aldr_kl_init(7, temperature=1.5)
        kwargs = {"temperature": 1.5, "adaptivity": 3.0, "margin": 0.2, "normalization": "l1"}
        for step in range(3):
            before = np.asarray(state.temperatures, float)
            loss, state = aldr_kl(state, jnp.asarray(f + step), y, indices, **kwargs)
            for i, n in enumerate(indices):
                want, t = slow_aldr(f[i] + step, y[i], before[n], 1.5, 3.0, 0.2)
                np.testing.assert_allclose(loss[i], want, rtol=1e-5)
                np.testing.assert_allclose(state.temperatures[n], t, rtol=1e-5)
    assert state.temperatures[1] == 1.5
    assert state.temperatures[4] == 1.5


def test_temperatures_stay_in_range_and_follow_confidence():
    scores = jnp.stack([jnp.zeros(10), 1e4 * jax.nn.one_hot(2, 10)])
    _, state = aldr_kl(aldr_kl_init(2), scores, jnp.array([0, 2]), jnp.array([0, 1]))
    np.testing.assert_allclose(state.temperatures, [1.0, 0.5], rtol=1e-5)


def test_iterating_maximizes_over_temperature_too(data):
    """At its fixed point the step's value is the joint maximum over weights and temperature."""
    f, y = data
    with jax.enable_x64(True):
        f = jnp.asarray(f)
        state = aldr_kl_init(5)
        for _ in range(60):
            loss, state = aldr_kl(state, f, y, np.arange(5), margin=0.0)
        ts = np.linspace(0.5, 1.0, 2001)
        each = jax.vmap(lambda t: ldr_kl(f, y, temperature=t, margin=0.0))(jnp.asarray(ts))
        prior = 2 * np.log(4) / 2 * (ts - 1) ** 2
        np.testing.assert_allclose(loss, (np.asarray(each) - prior[:, None]).max(0), atol=1e-6)


def test_no_gradient_goes_through_the_temperature(data):
    f, y = map(jnp.asarray, data)
    state = aldr_kl_init(5)
    _, after = aldr_kl(state, f, y, jnp.arange(5))
    temperatures = after.temperatures.tolist()

    def adaptive(f):
        return aldr_kl(state, f, y, jnp.arange(5))[0].sum()

    def fixed(f):
        return sum(ldr_kl(f[i], y[i], temperature=temperatures[i]) for i in range(5))

    got, want = (jax.jit(jax.grad(h))(f) for h in (adaptive, fixed))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
