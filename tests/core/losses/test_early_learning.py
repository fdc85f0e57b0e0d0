"""The fit against SciPy's, the correction against a loop over pixels, the consistency by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import softmax

from papyrax import losses


def f(t, a, b, c):
    return a * (1 - np.exp(-(t**b) / c))


def misfit(params, y):
    t = np.arange(len(y))
    return (((f(t, *params) - y) * np.geomspace(1, 10, len(y))) ** 2).sum()


@pytest.fixture(scope="module")
def fit():
    return jax.jit(losses.fit_learning_curve)


@pytest.mark.parametrize("params", [(0.8, 0.6, 2.0), (0.5, 1.0, 8.0), (0.9, 0.3, 0.7)])
def test_fit_is_no_worse_than_scipys(fit, params):
    t = np.arange(24.0)
    y = f(t, *params) + np.random.default_rng(0).normal(size=24) * 0.01
    theirs, _ = curve_fit(
        f,
        t,
        y,
        p0=(1, 1, 1),
        sigma=np.geomspace(1, 0.1, 24),
        bounds=([0, 0, 0], [1, 1, np.inf]),
    )
    with jax.enable_x64(True):
        ours = np.array(fit(jnp.asarray(y)))
        slowdown = np.asarray(losses.learning_slowdown(jnp.asarray(y)))
    assert misfit(ours, y) <= misfit(theirs, y) * (1 + 1e-5)
    a, b, c = ours
    t = t + 1
    speed = a * b / c * t ** (b - 1) * np.exp(-(t**b) / c)
    np.testing.assert_allclose(slowdown, np.abs(speed[0] - speed) / speed[0], rtol=1e-8, atol=1e-12)


def test_a_curve_that_grows_is_fitted_by_one_program(fit):
    y = f(np.arange(24.0), 0.8, 0.6, 2.0)
    there = np.arange(24) < 9
    grown = np.where(there, y, 7.0)  # what is not there yet does not matter
    with jax.enable_x64(True):
        masked = jax.jit(lambda y, m: losses.fit_learning_curve(y, where=m))
        got = masked(jnp.asarray(grown), there)
        np.testing.assert_allclose(np.array(got), np.array(fit(jnp.asarray(y[:9]))), rtol=1e-6)
    flat = losses.learning_slowdown(jnp.zeros(24))
    assert (flat == 0).all()


def slow_correction(label, p, ended, threshold, low):
    """The authors' rules for one image [pixels]."""
    update = [c for c in np.flatnonzero(ended) if c > 0]
    present = set(label.tolist())
    if not present & set(update):
        return label
    new = label.copy()
    for i, (old, q) in enumerate(zip(label, p)):
        guess = int(q.argmax())
        sure = q[1:].max() > threshold or q[0] > low
        fits = guess == 0 or guess in present
        if sure and old in (0, *update) and guess in (0, *update) and fits:
            new[i] = guess
    return new


def test_correction():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (40, 6))
    labels[::5, 0] = 255
    p = rng.dirichlet(np.full(4, 0.3), (40, 6))
    changed = 0
    for ended in ([0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]):
        ended = np.array(ended, bool)
        got = losses.correct_labels(
            jnp.asarray(labels), jnp.asarray(p), ended, threshold=0.6, background_threshold=0.9
        )
        want = np.stack([slow_correction(y, q, ended, 0.6, 0.9) for y, q in zip(labels, p)])
        np.testing.assert_array_equal(got, want)
        changed += (want != labels).sum()
    assert changed > 50
    square = losses.correct_labels(
        jnp.asarray(labels.reshape(40, 2, 3)), jnp.asarray(p.reshape(40, 2, 3, 4)), ended
    )
    flat = losses.correct_labels(jnp.asarray(labels), jnp.asarray(p), ended)
    np.testing.assert_array_equal(square.reshape(40, 6), flat)
    assert (
        losses.correct_labels(jnp.asarray(labels), jnp.asarray(p), ended, threshold=1.0) == labels
    ).all()


def test_consistency():
    rng = np.random.default_rng(2)
    z, s = rng.normal(size=(3, 5, 4, 6)) * 3, rng.normal(size=3)
    p, w = softmax(z, -1), softmax(s)
    q = np.einsum("k,kbnc->bnc", w, p)
    level = np.median(q.max((1, 2))) + 1e-9
    sure = q.max((1, 2)) >= level
    assert sure.sum() == 2
    want = (p * np.log(p / q)).sum((0, -1)) * sure[:, None]
    clipped = np.clip(q, 1e-3, 1 - 1e-3)
    released = (p * np.log(p / clipped)).sum((0, -1)) * sure[:, None]
    with jax.enable_x64(True):
        args = jnp.asarray(z), jnp.asarray(s)
        got = losses.multiscale_consistency_loss(*args, threshold=level)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
        got = losses.multiscale_consistency_loss(*args, threshold=level, clip=1e-3)
        np.testing.assert_allclose(got, released, rtol=1e-9, atol=1e-12)
        same = jnp.broadcast_to(args[0][:1], z.shape)
        assert abs(losses.multiscale_consistency_loss(same, threshold=0.0)).max() < 1e-12
    assert (want >= 0).all()
