"""The MALA block against its definition in NumPy, one pixel and one head at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.layers import MALABlock


def elu_map(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def brute(block, x, heads, use_rope=True, eps=1e-6):
    """z from plain features, the kernel from turned ones, both scaled by dim^-1/2 / N."""
    get = lambda p: np.asarray(p[...], np.float64)  # noqa: E731
    B, H, W, C = x.shape
    D, N = C // heads, H * W
    y = x @ get(block.qkvo.kernel) + get(block.qkvo.bias)
    q, k, v, o = np.split(y, 4, axis=-1)

    kernel, bias = get(block.local.kernel), get(block.local.bias)
    half = kernel.shape[0] // 2
    padded = np.pad(v, ((0, 0), (half, half), (half, half), (0, 0)))
    local = np.zeros_like(v) + bias
    for dy, dx in np.ndindex(*kernel.shape[:2]):
        local += padded[:, dy : dy + H, dx : dx + W] * kernel[dy, dx, 0]

    frequencies = 10000.0 ** -np.linspace(0, 1, D // 4)
    rows, columns = np.divmod(np.arange(N), W)
    theta = np.concatenate([rows[:, None] * frequencies, columns[:, None] * frequencies], axis=1)

    def turn(f):
        if not use_rope:
            return f
        z = (f[:, ::2] + 1j * f[:, 1::2]) * np.exp(1j * theta)
        return np.stack([z.real, z.imag], -1).reshape(f.shape)

    out = np.zeros((B, N, C))
    for b, h in np.ndindex(B, heads):
        part = slice(h * D, (h + 1) * D)
        fq, fk = (elu_map(a[b].reshape(N, C)[:, part]) for a in (q, k))
        values = v[b].reshape(N, C)[:, part]
        z = fq @ fk.mean(0) * D**-0.5
        A = turn(fq) @ turn(fk).T * D**-0.5 / N
        out[b, :, part] = (1 + 1 / (z + eps))[:, None] * (A @ values) - z[:, None] * values.mean(0)
    y = o * (out.reshape(x.shape) + local)
    return y @ get(block.proj.kernel) + get(block.proj.bias)


@pytest.mark.parametrize("use_rope", [True, False])
def test_equals_the_definition(use_rope):
    with jax.enable_x64(True):
        block = MALABlock(16, 2, use_rope=use_rope, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
        for layer in (block.qkvo, block.local, block.proj):
            layer.bias[...] = jax.random.normal(jax.random.key(2), layer.bias.shape, jnp.float64)
        x = np.random.default_rng(0).normal(size=(2, 4, 5, 16))
        # The angles are float32, so RoPE limits the agreement.
        np.testing.assert_allclose(
            block(x), brute(block, x, 2, use_rope), rtol=2e-5 if use_rope else 1e-11, atol=1e-5
        )


def test_trains_under_nnx_jit_and_grad():
    block = MALABlock(8, 1, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))

    @nnx.jit
    def grads(block):
        return nnx.grad(lambda block: jnp.mean(jnp.square(block(x) - 1)))(block)

    leaves = jax.tree.leaves(grads(block))
    assert len(leaves) == 6
    assert all(jnp.all(jnp.isfinite(g)) and jnp.any(g != 0) for g in leaves)


def test_other_image_sizes_and_dtypes():
    block = MALABlock(8, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert block(jnp.ones((1, 3, 7, 8))).shape == (1, 3, 7, 8)
    assert block(jnp.ones((1, 3, 7, 8))).dtype == jnp.bfloat16


def test_errors():
    with pytest.raises(ValueError, match="heads: got 3"):
        MALABlock(16, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="dim: got 12 for 2 heads"):
        MALABlock(12, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="kernel_size: got 4"):
        MALABlock(16, 2, kernel_size=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"x: got shape \(2, 4, 16\)"):
        MALABlock(16, 2, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 16)))
