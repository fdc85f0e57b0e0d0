"""Softmax attention and rotary positions against torch, transformers and rotary-embedding-torch.

These have heads second. Values and gradients are in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors_code import compare, recorded

from papyrax import attention
from papyrax.attention import dot_product_attention

ENTRIES = recorded("softmax", "attention")
FUNCTIONS = {}


def of(*names):
    """Register what gives the entries of these names."""

    def register(function):
        return FUNCTIONS.update(dict.fromkeys(names, function))

    return register


@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(name):
    entry, function = ENTRIES[name], FUNCTIONS[name]
    compare(entry, lambda **arrays: function(**arrays, **entry.get("static", {})))


def swap_heads(x):
    """[batch, heads, length, dim] to [batch, length, heads, dim], or back."""
    return jnp.swapaxes(x, 1, 2)


@of("apply_rope")
def _(x, offset):
    rotary = attention.rope_1d(offset + jnp.arange(3), 6)
    return swap_heads(attention.apply_rope(swap_heads(x), rotary))


@of("rope_2d")
def _(x):
    rotary = attention.rope_2d(2, 3, 8, endpoint=False)
    tokens = swap_heads(x.reshape(1, 2, 6, 8))
    return swap_heads(attention.apply_rope(tokens, rotary)).reshape(x.shape)


@of("apply_rope in halves")
def _(query, key):
    def turn(x):
        # Feature i and i + 3 are a pair there, 2 i and 2 i + 1 here.
        pairs = jnp.swapaxes(x.reshape(*x.shape[:-1], 2, 3), -1, -2).reshape(x.shape)
        rotary = attention.rope_1d(jnp.arange(3), 6)
        y = swap_heads(attention.apply_rope(swap_heads(pairs), rotary))
        return jnp.swapaxes(y.reshape(*x.shape[:-1], 3, 2), -1, -2).reshape(x.shape)

    return jnp.concatenate([turn(query), turn(key)], axis=1)


@of("dot_product_attention with sinks")
def _(query, key, value, sinks):
    q, k, v = map(swap_heads, (query, key, value))
    # A sliding window of 3 has the query's own key in it. The result has heads third there, too.
    return dot_product_attention(
        q, k, v, scale=0.5, is_causal=True, local_window_size=(2, 0), sinks=sinks
    )


@of("dot_product_attention, grouped")
def _(query, key, value, bias):
    q, k, v = map(swap_heads, (query, key, value))
    return swap_heads(dot_product_attention(q, k, v, bias, scale=0.7))


@of("dot_product_attention, causal 3 5", "dot_product_attention, causal 5 3")
def _(query, key, value):
    q, k, v = map(swap_heads, (query, key, value))
    return swap_heads(dot_product_attention(q, k, v, is_causal=True))


@of("dot_product_attention, capped in a window")
def _(query, key, value):
    q, k, v = map(swap_heads, (query, key, value))
    out = dot_product_attention(q, k, v, logits_soft_cap=2.0, local_window_size=(2, 0))
    return swap_heads(out)


def test_the_last_query_can_see_all_keys():
    """As in flash-attn from 2.1 on: causal from the last key, where there are more keys."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        q, k, v = (rng.normal(size=(1, length, 2, 4)) for length in (3, 5, 5))
        got = dot_product_attention(q, k, v, local_window_size=(None, 2))
        want = dot_product_attention(q, k, v, mask=np.tri(3, 5, 2, dtype=bool))
        np.testing.assert_allclose(got, want, rtol=1e-12)
        last = dot_product_attention(q[:, 2:], k, v)
        np.testing.assert_allclose(got[:, 2:], last, rtol=1e-12)
