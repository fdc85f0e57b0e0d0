"""The slow network against the formula, and kernels that know no resolution."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from papyrax.layers import MAGNet, RecursiveGatedUnit


def test_is_the_formula():
    with jax.enable_x64(True):
        net = MAGNet((3, 4), 2, hidden=5, layers=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        net.position[...] = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 1)))
        y, x = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-1, 1, 4), indexing="ij")
        c = np.stack([y, x], -1)

        def affine(layer, h):
            return h @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

        h = np.sin(affine(net.sines[0], c))
        for i in (1, 2):
            h = np.sin(affine(net.sines[i], c)) * affine(net.linears[i - 1], h)
            h = h + np.asarray(net.position[...])
        np.testing.assert_allclose(net(), affine(net.out, h), rtol=1e-10, atol=1e-12)


def test_a_finer_grid_has_the_coarse_kernel_in_it():
    net = MAGNet((3, 3), 4, hidden=8, rngs=nnx.Rngs(1))
    line = np.linspace(-1, 1, 5)
    fine = np.stack(np.meshgrid(line, line, indexing="ij"), -1).astype(np.float32)
    np.testing.assert_allclose(net(jnp.asarray(fine))[::2, ::2], net(), atol=1e-5)


def test_starts_as_the_authors_do():
    net = MAGNet((6, 6), 3, hidden=400, layers=2, rngs=nnx.Rngs(2))
    assert np.all(np.asarray(net.linears[0].bias[...]) == 1)
    assert not np.any(net.position[...])
    np.testing.assert_allclose(np.var(net.linears[0].kernel[...]), 1 / 400, rtol=0.05)
    np.testing.assert_allclose(np.var(net.out.kernel[...]), 1 / 400 / 36, rtol=0.2)
    # Var of a product of a uniform weight and Gamma(a, 1): (a^2 + a) / (3 axes) (2 pi)^2.
    for i, sine in enumerate(net.sines):
        a = 6 / (i + 1)
        want = (a**2 + a) / 6 * (2 * np.pi) ** 2
        np.testing.assert_allclose(np.var(sine.kernel[...]), want, rtol=0.35)


def test_the_gated_unit_starts_as_the_authors_do():
    unit = RecursiveGatedUnit((2, 3), 300, rngs=nnx.Rngs(3))
    for layer in (unit.key, unit.value, unit.query, unit.out):
        np.testing.assert_allclose(np.var(layer.kernel[...]), 1 / 300, rtol=0.05)
        assert not np.any(layer.bias[...])
    assert not np.any(unit.position[...])
