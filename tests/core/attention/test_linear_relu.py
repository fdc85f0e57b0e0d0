"""ReLU linear attention against weights written out, above and on the floor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import attention

from . import brute_linear as brute

FORM = ("is_causal", "implementation", "chunk_size")
relu_linear_attention = jax.jit(attention.relu_linear_attention, static_argnames=FORM)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(2, 7, n, h)) for n, h in ((4, 3), (2, 3), (2, 5)))


def brute_weights(q, k, scale, floor, causal=False, mask=None):
    kernel = np.einsum("btnh,bsnh->bnts", np.maximum(q, 0), np.repeat(np.maximum(k, 0), 2, 2))
    if causal:
        kernel = kernel * np.tril(np.ones((7, 7)))
    if mask is not None:
        kernel = kernel * mask
    total = np.maximum(kernel.sum(-1, keepdims=True), floor)
    return np.reshape(scale, (-1, 1, 1)) * kernel / total


@pytest.mark.parametrize("floor", [100.0, 1.5])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("implementation", ["linear", "quadratic"])
def test_equals_weights_written_out(floor, causal, implementation):
    q, k, v = draw()
    scale = np.array([0.5, 1.0, 2.0, 3.0])
    got = relu_linear_attention(
        q, k, v, scale=scale, floor=floor, is_causal=causal, implementation=implementation
    )
    want = brute.apply(brute_weights(q, k, scale, floor, causal), v)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_defaults_and_masks():
    q, k, v = draw()
    mask = np.arange(7) < 4
    want = brute.apply(brute_weights(q, k, 3**-0.5, 100.0, mask=mask), v)
    np.testing.assert_allclose(relu_linear_attention(q, k, v, mask=mask), want, rtol=1e-12)
    hidden = relu_linear_attention(q, k, v, mask=np.zeros(7, bool))
    assert np.all(np.asarray(hidden) == 0)


def test_above_the_floor_rows_sum_to_scale_and_ignore_magnitude():
    q, k, v = draw()
    q, k = np.abs(q) + 0.1, np.abs(k) + 0.1
    op = functools.partial(relu_linear_attention, floor=1e-3, scale=0.25)
    np.testing.assert_allclose(op(q, k, np.ones_like(v)), 0.25, rtol=1e-12)
    np.testing.assert_allclose(op(3 * q, k, v), op(q, k, v), rtol=1e-12)


def test_on_the_floor_the_output_is_linear_in_the_query_and_zero_at_zero():
    q, k, v = draw()
    op = functools.partial(relu_linear_attention, floor=1e4)
    np.testing.assert_allclose(op(3 * q, k, v), 3 * np.asarray(op(q, k, v)), rtol=1e-12)
    assert np.all(np.asarray(op(-np.abs(q), k, v)) == 0)
    assert np.all(np.asarray(op(-np.abs(q), k, v, floor=0.0)) == 0)


def test_flops_grow_linearly():
    def flops(n):
        x = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
        cost = jax.jit(attention.relu_linear_attention).lower(x, x, x).compile().cost_analysis()
        return cost["flops"]

    assert flops(4096) <= 2.05 * flops(2048)
