"""Polarized self-attention against NumPy, and what each order keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax.attention import (
    polarized_channel_context,
    polarized_self_attention,
    polarized_spatial_gate,
)
from papyrax.layers import PolarizedSelfAttention

ORDERS = ("paper", "released_parallel", "released_sequential")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(pixels=6, dim=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, pixels, dim)), rng.normal(size=(2, pixels, dim))


def brute_gate(q, v, order):
    """One image at a time."""
    out = []
    for a, b in zip(q, v):
        g = a.mean(0)
        if order == "paper":
            out.append(sigmoid(b @ softmax(g)))
        elif order == "released_parallel":
            out.append(sigmoid(softmax(b @ g)))
        else:
            out.append(sigmoid(softmax(b, axis=0) @ g))
    return np.stack(out)


@pytest.mark.parametrize("order", ORDERS)
def test_spatial_gate(order):
    q, v = draw()
    gate = jax.jit(lambda q, v, mask=None: polarized_spatial_gate(q, v, mask, order=order))
    np.testing.assert_allclose(gate(q, v), brute_gate(q, v, order), rtol=1e-12)
    order_of = np.random.default_rng(1).permutation(6)
    moved = gate(q[:, order_of], v[:, order_of])
    np.testing.assert_allclose(moved, brute_gate(q, v, order)[:, order_of], rtol=1e-12)
    mask = np.arange(6) < 4
    got = np.asarray(gate(q, v, np.stack([mask, ~mask])))
    np.testing.assert_allclose(got[0, :4], brute_gate(q[:1, :4], v[:1, :4], order)[0], rtol=1e-12)
    assert np.all(got[0, 4:] == 0)
    shifted = gate(q + 3.0, v)
    # A softmax over channels does not see what is added to all of them.
    assert np.allclose(shifted, gate(q, v)) == (order == "paper")
    if order == "released_parallel":
        assert np.all((gate(50 * q, v) >= 0.5) & (gate(50 * q, v) < 0.7311))


def test_channel_context():
    q, v = draw()[0][..., 0], draw()[1]
    context = jax.jit(polarized_channel_context)
    np.testing.assert_allclose(context(q, v), np.einsum("bp,bpd->bd", softmax(q), v), rtol=1e-12)
    mask = np.arange(6) < 4
    got = context(q, v, np.stack([mask, np.zeros(6, bool)]))
    np.testing.assert_allclose(got[0], softmax(q[0, :4]) @ v[0, :4], rtol=1e-12)
    assert np.all(got[1] == 0)


def test_layouts():
    x = draw()[0]
    channel = lambda x: sigmoid(np.asarray(x).max(1))  # noqa: E731
    spatial = lambda x: sigmoid(np.asarray(x).sum(2))  # noqa: E731
    side = x * channel(x)[:, None] + x * spatial(x)[..., None]
    z = x * channel(x)[:, None]
    one_after = z * spatial(z)[..., None]
    for layout, want in (("parallel", side), ("sequential", one_after)):
        got = polarized_self_attention(jnp.asarray(x), channel, spatial, layout=layout)
        np.testing.assert_allclose(got, want, rtol=1e-12)


def module_brute(m, x):
    get = lambda p: np.asarray(p[...], np.float64)  # noqa: E731
    B, H, W, C = x.shape

    def channel(x):
        q, v = x @ get(m.channel_query.kernel)[:, 0], x @ get(m.channel_value.kernel)
        y = np.einsum("bp,bpd->bd", softmax(q), v) @ get(m.up.kernel)
        if m.up.bias is not None:
            y = y + get(m.up.bias)
        if m.norm is not None:
            y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
            y = y * get(m.norm.scale) + get(m.norm.bias)
        if m.expand is not None:
            y = np.maximum(y, 0) @ get(m.expand.kernel) + get(m.expand.bias)
        return sigmoid(y)[:, None]

    def spatial(x):
        q, v = x @ get(m.spatial_query.kernel), x @ get(m.spatial_value.kernel)
        return brute_gate(q, v, m.order)[..., None]

    x = x.reshape(B, H * W, C)
    if m.layout == "parallel":
        y = channel(x) * x + spatial(x) * x
    else:
        z = channel(x) * x
        y = spatial(z) * z
    return y.reshape(B, H, W, C)


@pytest.mark.parametrize("layout", ["parallel", "sequential"])
@pytest.mark.parametrize("order", ["paper", "released"])
def test_module(layout, order):
    m = PolarizedSelfAttention(
        16, layout=layout, order=order, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(5)
    draw = lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape) + 0.1)  # noqa: E731
    nnx.update(m, jax.tree.map(draw, nnx.state(m, nnx.Param)))
    x = rng.normal(size=(2, 3, 4, 16))
    got = np.asarray(nnx.jit(lambda m, x: m(x))(m, x))
    np.testing.assert_allclose(got, module_brute(m, x), rtol=1e-9)
    top = 2 if layout == "parallel" else 1
    assert np.all((got / x > 0) & (got / x < top))


def test_module_of_zeros():
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 8))
    for layout, order, want in (
        ("parallel", "released", 0.5 + sigmoid(1 / 8)),
        ("sequential", "released", 0.25),
        ("parallel", "paper", 1.0),
        ("sequential", "paper", 0.25),
    ):
        m = PolarizedSelfAttention(8, layout=layout, order=order, rngs=nnx.Rngs(0))
        nnx.update(m, jax.tree.map(jnp.zeros_like, nnx.state(m, nnx.Param)))
        np.testing.assert_allclose(m(x), want * x, rtol=1e-6)
