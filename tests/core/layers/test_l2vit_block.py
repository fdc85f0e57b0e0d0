"""The blocks of L2ViT against their definitions in NumPy, one pixel, head or window at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.layers import L2ViTBlock, LocalConcentration


def get(p):
    return np.asarray(p[...], np.float64)


def depthwise(conv, x):
    kernel = get(conv.kernel)
    half, (H, W) = kernel.shape[0] // 2, x.shape[1:3]
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    out = np.zeros_like(x) + get(conv.bias)
    for dy, dx in np.ndindex(*kernel.shape[:2]):
        out += padded[:, dy : dy + H, dx : dx + W] * kernel[dy, dx, 0]
    return out


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def layer_norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * get(layer.scale) + get(layer.bias)


def linear(layer, x):
    return x @ get(layer.kernel) + get(layer.bias)


def lcm(layer, x, mean=None, var=None):
    x = gelu(depthwise(layer.conv1, x))
    mean = x.mean((0, 1, 2)) if mean is None else mean
    var = x.var((0, 1, 2)) if var is None else var
    x = (x - mean) / np.sqrt(var + 1e-5) * get(layer.norm.scale) + get(layer.norm.bias)
    return depthwise(layer.conv2, x)


def heads_of(block, x):
    """Query, key and value [tokens, heads, dim] of some tokens [tokens, channels]."""
    q, k, v = np.split(linear(block.qkv, x), 3, axis=-1)
    return (y.reshape(len(x), block.heads, -1) for y in (q, k, v))


def global_attention(block, x):
    out = np.zeros_like(x)
    for b in range(len(x)):
        q, k, v = heads_of(block, x[b].reshape(-1, block.dim))
        for h in range(block.heads):
            weights = np.maximum(q[:, h], 0) @ np.maximum(k[:, h], 0).T
            weights /= np.maximum(weights.sum(1, keepdims=True), block.floor)
            part = slice(h * q.shape[2], (h + 1) * q.shape[2])
            out[b, ..., part] = (get(block.scale)[h] * weights @ v[:, h]).reshape(*x.shape[1:3], -1)
    return linear(block.proj, out)


def window_attention(block, x):
    size, (B, H, W, C) = block.window_size, x.shape
    x = np.pad(x, ((0, 0), (0, -H % size), (0, -W % size), (0, 0)))
    out = np.zeros_like(x)
    for b, i, j in np.ndindex(B, x.shape[1] // size, x.shape[2] // size):
        place = (b, slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size))
        q, k, v = heads_of(block, x[place].reshape(-1, C))
        logits = np.einsum("thd,shd->hts", q, k) * q.shape[2] ** -0.5
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        out[place] = np.einsum("hts,shd->thd", weights, v).reshape(size, size, C)
    return linear(block.proj, out)[:, :H, :W]


def brute(block, x):
    x = x + depthwise(block.position, x)
    if block.window_size is None:
        x = x + global_attention(block, layer_norm(block.norm1, x))
        x = x + lcm(block.local, layer_norm(block.norm2, x))
    else:
        x = x + window_attention(block, layer_norm(block.norm1, x))
        x = x + depthwise(block.local, x)
    return x + linear(block.down, gelu(linear(block.up, layer_norm(block.norm3, x))))


def randomize(module):
    """No parameter at its start, so that none can be left out unseen."""
    rng = np.random.default_rng(5)
    state = nnx.state(module, nnx.Param)
    draw = lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape) + 0.2, a.dtype)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, state))
    return module


IMAGE = np.random.default_rng(0).normal(size=(2, 4, 5, 8))


@pytest.mark.parametrize("window_size", [None, 2, 3])
def test_block_equals_the_definition(window_size):
    with jax.enable_x64(True):
        options = {"window_size": window_size, "floor": 3.0, "kernel_size": 3, "mlp_ratio": 1.5}
        block = L2ViTBlock(8, 2, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
        want = brute(randomize(block), IMAGE)
        np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(block, IMAGE), want, rtol=1e-10)


def test_concentration_uses_the_statistics_of_the_batch_and_then_its_own():
    with jax.enable_x64(True):
        module = randomize(LocalConcentration(8, param_dtype=jnp.float64, rngs=nnx.Rngs(1)))
        apply = nnx.jit(lambda m, x: m(x))
        np.testing.assert_allclose(apply(module, IMAGE), lcm(module, IMAGE), rtol=1e-10)
        inside = gelu(depthwise(module.conv1, IMAGE))
        mean, var = 0.1 * inside.mean((0, 1, 2)), 0.9 + 0.1 * inside.var((0, 1, 2))
        module.eval()
        want = lcm(module, IMAGE[:1], mean, var)
        np.testing.assert_allclose(apply(module, IMAGE[:1]), want, rtol=1e-6)


def test_concentration_moves_with_the_image_away_from_the_border():
    module = randomize(LocalConcentration(8, kernel_size=3, rngs=nnx.Rngs(0)))
    module.eval()
    x = np.zeros((2, 12, 12, 8), np.float32)
    x[0, 4:6, 4:7] = x[1, 5:7, 6:9] = np.random.default_rng(1).normal(size=(2, 3, 8))
    y = np.asarray(module(x))
    np.testing.assert_allclose(y[0, 2:8, 2:8], y[1, 3:9, 4:10], rtol=1e-5, atol=1e-5)


def test_every_parameter_learns():
    block = L2ViTBlock(8, 2, kernel_size=3, rngs=nnx.Rngs(0))
    x = jnp.asarray(IMAGE, jnp.float32)

    @nnx.jit
    def grads(block):
        return nnx.grad(lambda block: jnp.mean(jnp.square(block(x) - 1)))(block)

    leaves = jax.tree.leaves(grads(block))
    assert len(leaves) == 23
    assert all(jnp.all(jnp.isfinite(g)) and jnp.any(g != 0) for g in leaves)


def test_parts_can_be_left_out():
    block = L2ViTBlock(8, 2, concentrate=False, mlp_ratio=0, rngs=nnx.Rngs(0))
    assert (block.local, block.norm2, block.up, block.norm3) == (None,) * 4
    x = IMAGE + depthwise(block.position, IMAGE)
    want = x + global_attention(block, layer_norm(block.norm1, x))
    got = nnx.jit(lambda m, x: m(x))(block, jnp.asarray(IMAGE, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
