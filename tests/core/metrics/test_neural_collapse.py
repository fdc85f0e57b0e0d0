"""Measures of neural collapse against covariance matrices in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.losses import simplex_etf
from papyrax.metrics import (
    frame_distance,
    nearest_centre_agreement,
    self_duality_distance,
    within_class_variability,
)


def test_variability():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])  # none of class 3
        x = rng.normal(size=(9, 5)) + 2 * rng.normal(size=(4, 5))[labels]
        within, between, mean = np.zeros((5, 5)), np.zeros((5, 5)), x.mean(0)
        for k in range(3):
            own = x[labels == k]
            within += (own - own.mean(0)).T @ (own - own.mean(0)) / 9
            between += len(own) * np.outer(own.mean(0) - mean, own.mean(0) - mean) / 9
        want = {
            "trace": np.trace(within) / np.trace(between),
            "pinv": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 4,
        }
        turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        for kind, value in want.items():
            for features in (x, 3 * x @ turn + 1):
                got = within_class_variability(features, jnp.asarray(labels), classes=4, kind=kind)
                np.testing.assert_allclose(got, value, rtol=1e-10)
        means = np.stack([x[labels == k].mean(0) for k in range(3)])[labels % 3]
        got = within_class_variability(means, jnp.asarray(labels), classes=4)
        assert got < 1e-25


def test_frames():
    with jax.enable_x64(True):
        etf = simplex_etf(jax.random.key(0), classes=4, features=6, dtype=jnp.float64)
        orthogonal = jnp.eye(4, 6) @ np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
        assert frame_distance(7 * etf) < 1e-7
        assert frame_distance(7e9 * orthogonal, kind="orthogonal") < 1e-7
        # Of unit length both, the two frames are sqrt(2 - 2 sqrt(3 / 4)) apart.
        want = np.sqrt(2 - 2 * np.sqrt(3 / 4))
        np.testing.assert_allclose(frame_distance(etf, kind="orthogonal"), want, rtol=1e-9)
        np.testing.assert_allclose(frame_distance(orthogonal), want, rtol=1e-9)
        np.testing.assert_allclose(frame_distance(jnp.zeros((3, 2))), 1, rtol=1e-12)


def test_self_duality():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        w, m = rng.normal(size=(2, 5, 3))
        want = np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m))
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        np.testing.assert_allclose(self_duality_distance(w, m), want, rtol=1e-12)
        np.testing.assert_allclose(self_duality_distance(1e9 * w @ turn, m @ turn), want, 1e-12)
        assert self_duality_distance(m, 2 * m) < 1e-15
        # One positive number for all classes: other lengths, or other signs, are no duality.
        assert self_duality_distance(m * np.arange(1, 6)[:, None], m) > 0.1
        np.testing.assert_allclose(self_duality_distance(m, -m), 2, rtol=1e-12)
        np.testing.assert_allclose(self_duality_distance(m, 0 * m), 1, rtol=1e-12)


def test_nearest_centres():
    rng = np.random.default_rng(0)
    means = 1000 + rng.normal(size=(4, 3))  # far from the origin, where |mu|^2 would round
    features = (1000 + 2 * rng.normal(size=(200, 3))).astype(np.float32)
    nearest = np.linalg.norm(features[:, None] - means, axis=-1).argmin(-1)
    logits = rng.normal(size=(200, 4))
    got = nearest_centre_agreement(features, jnp.asarray(logits), jnp.asarray(means, jnp.float32))
    np.testing.assert_allclose(got, np.mean(logits.argmax(-1) == nearest), rtol=1e-6)
    # The classifier that is the nearest centre, on features that are large.
    with jax.enable_x64(True):
        linear = features @ means.T - (means**2).sum(-1) / 2
        x, linear = features.astype(float), jnp.asarray(linear)
        agreement = jax.jit(nearest_centre_agreement)
        for size in (1, 1e200):
            assert agreement(size * x, linear, size * means) == 1
