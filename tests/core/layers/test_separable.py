"""Blocks of architecture search against values and gradients of sharpDARTS' code, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded
from flax import nnx

from papyrax.layers import MixedOperation, SharpSepConv

ENTRIES = recorded("search", "layers")
KERNELS = ("depthwise1", "pointwise1", "depthwise2", "pointwise2")


def separable(x, static, depthwise1, pointwise1, depthwise2, pointwise2, **affine):
    kernels = (depthwise1, pointwise1, depthwise2, pointwise2)
    kinds = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    features = x.shape[-1], pointwise2.shape[-1]
    module = SharpSepConv(*features, mid_features=pointwise1.shape[-1], **static, **kinds)
    for name, kernel in zip(KERNELS, kernels):
        getattr(module, name).kernel[...] = kernel
    for name, x_ in affine.items():  # scale1, bias1, scale2, bias2
        getattr(getattr(module, "norm" + name[-1]), name[:-1])[...] = x_
    return module(x)


def mixed(x, logits, static):
    operations = (jnp.sin, jnp.square, jnp.negative)
    module = MixedOperation(operations, param_dtype=jnp.float64, **static)
    module.logits[...] = logits
    return module(x)


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    entry = ENTRIES[name]
    call = separable if name.startswith("SharpSepConv") else mixed
    compare(entry, functools.partial(call, static=entry["static"]))


def test_statistics_are_those_that_were_seen():
    """A fresh module in evaluation does not normalize, and one that has trained does."""
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 2))
    module = SharpSepConv(2, 3, dilation=2, rngs=nnx.Rngs(0))
    root = np.sqrt(1 + 1e-5)

    @nnx.jit
    def both(module, x):
        hidden = module.pointwise1(module.depthwise1(jax.nn.relu(x))) / root
        return module(x), module.pointwise2(module.depthwise2(jax.nn.relu(hidden))) / root

    module.eval()
    np.testing.assert_allclose(*both(module, x), rtol=1e-4, atol=1e-6)
    module.train()
    for _ in range(60):
        trained, _ = both(module, x)
    module.eval()
    np.testing.assert_allclose(both(module, x)[0], trained, rtol=0.02, atol=0.02)
