"""Spherical losses over a linear layer in chunks against the formulas on all logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_layers import assert_derivatives, assert_sharded, with_bias
from spherical_members import DENSE, MEMBERS, MOMENTS, own

from papyrax.losses import linear_spherical_loss


@pytest.mark.parametrize("name", MEMBERS)
def test_members_of_moments_are_those_of_logits(name):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        z, y = jnp.asarray(rng.normal(size=(5, 7))), jnp.asarray(rng.integers(7, size=5))
        got = MOMENTS[name](z.mean(-1), z.var(-1), own(z, y), 7)
        np.testing.assert_allclose(got, DENSE[name](z, y), rtol=1e-12)


@pytest.mark.parametrize("name", ["z", "taylor"])
def test_all_derivatives_are_those_of_the_logits(name):
    with jax.enable_x64(True):
        ours = with_bias(linear_spherical_loss, loss=MOMENTS[name])
        assert_derivatives(ours, DENSE[name], rtol=1e-11)


def test_a_vocabulary_on_eight_devices():
    with jax.enable_x64(True):
        ours = with_bias(linear_spherical_loss, loss=MOMENTS["z"])
        assert_sharded(ours, DENSE["z"], rtol=1e-11)


def test_variance_far_from_zero_keeps_its_digits():
    """Logits around 1e4 that differ by less than one, in float32."""
    rng = np.random.default_rng(0)
    x = np.ones((3, 2), np.float32)
    w = np.stack([np.full(500, 1e4), rng.normal(size=500)]).astype(np.float32)
    y = np.array([0, 1, 2])
    z = x.astype(float) @ w.astype(float)
    want = (z[np.arange(3), y] - z.mean(-1)) / z.std(-1)
    z_score = lambda m, v, o, classes: (o - m) / jnp.sqrt(v)  # noqa: E731
    got = jax.jit(functools.partial(linear_spherical_loss, loss=z_score, chunk_size=64))(x, w, y)
    np.testing.assert_allclose(got, want, atol=1e-3)
