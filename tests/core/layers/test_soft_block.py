"""The SOFT block against its definition in NumPy, one head and landmark at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.layers import SOFTBlock


def get(p):
    return np.asarray(p[...], np.float64)


def linear(layer, x):
    return x @ get(layer.kernel) + get(layer.bias)


def gaussian(a, b):
    return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1))


def landmarks_of(block, q):
    """[landmarks, size] of one head's queries [height, width, size]."""
    stride, kernel = block.landmark_stride, get(block.landmark.kernel)
    rows, columns = q.shape[0] // stride, q.shape[1] // stride
    out = np.zeros((rows, columns, q.shape[2]))
    for i, j in np.ndindex(rows, columns):
        patch = q[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
        out[i, j] = np.einsum("yxc,yxcd->d", patch, kernel)
    out = out.reshape(-1, q.shape[2])
    out = (out - out.mean(-1, keepdims=True)) / np.sqrt(out.var(-1, keepdims=True) + 1e-5)
    out = out * get(block.norm.scale) + get(block.norm.bias)
    return 0.5 * out * (1 + np.vectorize(math.erf)(out / math.sqrt(2)))


def convolved(block, v, head):
    """One head's values [height, width, size] under the head's one filter."""
    kernel, (H, W) = get(block.local.kernel)[..., 0, head], v.shape[:2]
    half = len(kernel) // 2
    padded = np.pad(v, ((half, half), (half, half), (0, 0)))
    out = np.zeros_like(v)
    for dy, dx in np.ndindex(*kernel.shape):
        out += padded[dy : dy + H, dx : dx + W] * kernel[dy, dx]
    return out


def brute(block, x):
    B, _, _, C = x.shape
    size = C // block.heads
    queries, values = linear(block.query, x) * size**-0.25, linear(block.value, x)
    out = np.zeros_like(x)
    for b, h in np.ndindex(B, block.heads):
        part = slice(h * size, (h + 1) * size)
        q, v = queries[b, ..., part], values[b, ..., part]
        points = landmarks_of(block, q)
        A = gaussian(points, points)
        middle = np.linalg.inv(A + block.ridge * np.eye(len(A)))
        if block.normalize:
            D = np.diag(A.sum(1) ** -0.5)
            middle = D @ middle @ D
        to = gaussian(q.reshape(-1, size), points)
        mixed = (to @ middle @ to.T @ v.reshape(-1, size)).reshape(v.shape)
        out[b, ..., part] = mixed + (convolved(block, v, h) if block.local is not None else 0)
    return linear(block.proj, out)


def randomize(module):
    """No parameter at its start, so that none can be left out unseen."""
    rng = np.random.default_rng(5)
    draw = lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape) + 0.1, a.dtype)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module


IMAGE = np.random.default_rng(0).normal(size=(2, 4, 5, 8))


@pytest.mark.parametrize(("normalize", "kernel_size"), [(True, 3), (False, None)])
def test_equals_the_definition(normalize, kernel_size):
    with jax.enable_x64(True):
        block = SOFTBlock(
            *(8, 2),
            landmark_stride=2,
            kernel_size=kernel_size,
            normalize=normalize,
            inverse="exact",
            param_dtype=jnp.float64,
            rngs=nnx.Rngs(1),
        )
        want = brute(randomize(block), IMAGE)
        np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(block, IMAGE), want, rtol=1e-9)


def test_every_parameter_learns():
    block = SOFTBlock(8, 2, landmark_stride=2, rngs=nnx.Rngs(0))
    x = jnp.asarray(IMAGE, jnp.float32)

    @nnx.jit
    def grads(block):
        return nnx.grad(lambda block: jnp.mean(jnp.square(block(x) - 1)))(block)

    leaves = jax.tree.leaves(grads(block))
    assert len(leaves) == 10
    assert all(jnp.all(jnp.isfinite(g)) and jnp.any(g != 0) for g in leaves)


def test_an_image_smaller_than_a_landmark_is_refused():
    with pytest.raises(ValueError, match="landmark_stride 8"):
        SOFTBlock(8, 2, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 9, 8)))
