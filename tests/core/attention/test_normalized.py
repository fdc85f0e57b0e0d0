"""Attention with any normalizer against NumPy and against the kernels of softmax attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papyrax import losses
from papyrax.attention import dot_product_attention, normalized_attention


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s) for s in ((2, 5, 4, 4), (2, 7, 2, 4), (2, 7, 2, 3)))
    mask = rng.random((2, 4, 5, 7)) > 0.3
    mask[0, :, 2] = False
    return q, k, v, rng.normal(size=(4, 5, 7)), mask


@pytest.mark.parametrize("normalizer", ["softmax", "two_pass_softmax"])
def test_softmax_by_either_name_is_softmax_attention(normalizer):
    arguments = draw()
    options = {"scale": 0.7, "is_causal": True}
    got = jax.jit(functools.partial(normalized_attention, normalizer=normalizer, **options))(
        *arguments
    )
    want = jax.jit(functools.partial(dot_product_attention, implementation="xla", **options))(
        *arguments
    )
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-14)
    assert np.all(np.asarray(got)[0, 2] == 0)


def test_stablemax_is_that_of_the_losses():
    q, k, v, bias, mask = draw()
    got = jax.jit(functools.partial(normalized_attention, normalizer="stablemax"))(
        q, k, v, bias, mask
    )
    logits = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 2, 2)) / 2 + bias
    weights = np.asarray(jax.jit(losses.stablemax)(logits, where=mask))
    want = np.einsum("bnts,bsne->btne", weights, np.repeat(v, 2, 2))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


def test_any_function_will_do():
    q, k, v, bias, mask = draw()

    def relu(logits, where):
        return jnp.maximum(logits, 0) / jnp.maximum(where.sum(-1, keepdims=True), 1)

    got = jax.jit(lambda *a: normalized_attention(*a, normalizer=relu))(q, k, v, bias, mask)
    logits = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 2, 2)) / 2 + bias
    weights = np.where(mask, np.maximum(logits, 0), 0) / np.maximum(mask.sum(-1, keepdims=True), 1)
    want = np.einsum("bnts,bsne->btne", weights, np.repeat(v, 2, 2))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 0, 2), (1, 3, 0)])
def test_nothing_to_attend_to(shape):
    batch, queries, keys = shape
    q, k, v = (np.ones((batch, n, 2, 4)) for n in (queries, keys, keys))
    assert np.array_equal(normalized_attention(q, k, v), np.zeros((batch, queries, 2, 4)))
