"""Allocation over layers: sums, order and the ends."""

import jax
import jax.numpy as jnp
import numpy as np

from papyrax.optim import layerwise_scales, layerwise_sparsity

ALPHAS, SIZES = jnp.array([3.1, 2.0, 4.0, 2.5]), np.array([100, 4000, 50, 700])
sparsity = jax.jit(layerwise_sparsity)


def test_scales():
    want = np.interp(ALPHAS, [2.0, 4.0], [0.6, 1.4])
    np.testing.assert_allclose(layerwise_scales(ALPHAS, low=0.6, high=1.4), want, rtol=1e-6)
    np.testing.assert_array_equal(layerwise_scales(jnp.full(3, 2.5)), 1)


def test_sparsity():
    shares = np.asarray(sparsity(ALPHAS, SIZES, 0.6))
    np.testing.assert_allclose((shares * SIZES).sum(), 0.6 * SIZES.sum(), rtol=1e-6)
    assert (np.argsort(shares) == np.argsort(ALPHAS)).all()
    np.testing.assert_allclose(shares.max() / shares.min(), 1.5, rtol=1e-6)
    np.testing.assert_allclose(sparsity(jnp.full(4, 3.0), SIZES, 0.6), 0.6, rtol=1e-6)
    assert sparsity(ALPHAS, SIZES, 0.95).max() == 1
    np.testing.assert_array_equal(sparsity(ALPHAS, SIZES, 0.0), 0)
