"""HyperZZW against loops, and what the authors say of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax.attention import (
    hyper_zzw_elementwise,
    hyper_zzw_global,
    hyper_zzw_local,
    instance_standardize,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_global_operator_is_a_matrix_product_a_channel():
    x, kernel, features = draw(2, 3, 4, 2), draw(1, 3, 4, 2, seed=1), draw(2, 4, 5, 2, seed=2)
    got = hyper_zzw_global(x, kernel, features)
    assert got.shape == (2, 3, 5, 2)
    for b, c in np.ndindex(2, 2):
        want = (x[b, :, :, c] * kernel[0, :, :, c]) @ features[b, :, :, c]
        np.testing.assert_allclose(got[b, :, :, c], want, rtol=1e-12)


def test_local_operator_is_a_correlation_a_channel():
    x, kernel = draw(2, 4, 5, 3), draw(3, 5, 3, seed=1)
    wide = np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)))
    want = np.zeros_like(x)
    for i, j in np.ndindex(3, 5):
        want += kernel[i, j] * wide[:, i : i + 4, j : j + 5]
    np.testing.assert_allclose(hyper_zzw_local(x, kernel), want, rtol=1e-12)


def test_operators_are_quadratic_in_what_they_gate_and_act_on():
    x, kernel = draw(1, 3, 3, 2), draw(1, 3, 3, 2, seed=1)
    np.testing.assert_allclose(
        hyper_zzw_global(3 * x, kernel, 3 * x), 9 * hyper_zzw_global(x, kernel, x), rtol=1e-12
    )
    two = hyper_zzw_elementwise(x, kernel)
    np.testing.assert_allclose(two, x**2 * kernel, rtol=1e-12)
    assert not np.any(hyper_zzw_global(0 * x, kernel, x))


def test_standardized_channels_have_mean_zero_and_variance_one():
    y = np.asarray(instance_standardize(5 + 3 * draw(2, 6, 7, 3), epsilon=1e-12))
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-9)
    assert not np.any(instance_standardize(jnp.full((1, 2, 2, 1), 7.0)))
