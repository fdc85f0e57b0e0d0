"""Layers that respond to hyper-parameters, against one plain layer an example."""

import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded
from flax import nnx
from scipy.signal import correlate2d

from papyrax.layers import HyperConv, HyperLinear

RNG = np.random.default_rng(0)
ENTRIES = recorded("hyper", "layers")


def parts(layer):
    """W, V, b, d, s, and the gates of U."""
    both = (np.split(np.asarray(p[...], np.float64), 2, -1) for p in (layer.kernel, layer.bias))
    return *both, float(layer.scale[...]), np.asarray(layer.gates[...], np.float64)


def test_linear_has_weights_of_its_own_for_every_example():
    layer = HyperLinear(5, 3, 2, rngs=nnx.Rngs(0))
    layer.scale[...] = jnp.asarray(1.5)
    layer.gates[...] = jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32)
    (w, v), (b, d), s, u = parts(layer)
    x, h = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 2))
    want = []
    for i in range(4):
        a, c = np.split(h[i] @ u, 2)
        want.append(x[i] @ (s * w + a * v) + s * b + c * d)
    np.testing.assert_allclose(layer(jnp.asarray(x), jnp.asarray(h)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_without_gates_it_is_a_plain_layer(use_bias):
    layer = HyperLinear(5, 3, 2, use_bias=use_bias, rngs=nnx.Rngs(0))
    layer.gates[...] = jnp.zeros((2, 6))
    x = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    want = x @ layer.kernel[...][:, :3] + (layer.bias[...][:3] if use_bias else 0)
    outputs = [layer(x, jnp.full((4, 2), h)) for h in (0.0, 7.0)]
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0], want, rtol=1e-6, atol=1e-6)


def test_convolution_has_kernels_of_its_own_for_every_example():
    layer = HyperConv(2, 3, 2, kernel_size=(3, 2), padding="VALID", rngs=nnx.Rngs(1))
    layer.gates[...] = jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32)
    (w, v), (b, d), s, u = parts(layer)
    x, h = RNG.normal(size=(2, 5, 4, 2)), RNG.normal(size=(2, 2))
    want = np.zeros((2, 3, 3, 3))
    for i, out in np.ndindex(2, 3):
        a, c = np.split(h[i] @ u, 2)
        kernel = s * w[..., out] + a[out] * v[..., out]
        planes = [correlate2d(x[i, :, :, k], kernel[:, :, k], "valid") for k in range(2)]
        want[i, :, :, out] = np.sum(planes, 0) + s * b[out] + c[out] * d[out]
    np.testing.assert_allclose(layer(jnp.asarray(x), jnp.asarray(h)), want, rtol=1e-5, atol=1e-5)


def test_initialization():
    layer = HyperLinear(400, 300, 7, rngs=nnx.Rngs(0))
    (w, v), (b, d), s, u = parts(layer)
    for part in (w, v, b, d):
        assert 0.9 / 20 < np.abs(part).max() <= 1 / 20
    assert s == 1
    np.testing.assert_allclose(u.std(), 0.01, rtol=0.05)


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient_of_the_authors_code(name):
    entry = ENTRIES[name]
    static = dict(entry["static"])

    def call(x, hyper, **weights):
        kinds = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        kind = HyperConv if name == "HyperConv" else HyperLinear
        module = kind(x.shape[-1], 2, hyper.shape[-1], **static, **kinds)
        for key, weight in weights.items():
            getattr(module, key)[...] = weight
        return module(x, hyper)

    compare(entry, call)
