"""Operators inside `flax.nnx.MultiHeadAttention`: same numbers, and nothing silently left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from papyrax import attention
from papyrax.layers import attention_fn


def layer_of(fn, **kwargs):
    kwargs = {"num_kv_heads": 2, "decode": False} | kwargs
    return nnx.MultiHeadAttention(4, 16, attention_fn=fn, rngs=nnx.Rngs(0), **kwargs)


def project(layer, x):
    return layer.query(x), layer.key(x), layer.value(x)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (2, 6, 16))


@pytest.mark.parametrize("name", ["mala", "linear_attention"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_computes_the_operator(x, name, causal):
    layer = layer_of(attention_fn(name, epsilon=1e-3))
    op = getattr(attention, name)
    want = layer.out(op(*project(layer, x), epsilon=1e-3, is_causal=causal))
    np.testing.assert_allclose(layer(x, is_causal=causal), want, rtol=1e-5, atol=1e-5)
    by_function = layer_of(attention_fn(op, epsilon=1e-3, is_causal=causal))
    np.testing.assert_allclose(by_function(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_softmax_attention_is_that_of_flax(x, causal):
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (2, 1, 6, 6)).at[..., 0].set(True)
    want = layer_of(nnx.dot_product_attention)(x, mask=mask, is_causal=causal)
    got = layer_of(attention_fn("dot_product_attention"))(x, mask=mask, is_causal=causal)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_masks_of_flax_are_honoured_or_refused(x):
    layer = layer_of(attention_fn("mala"))
    keys = jnp.arange(6) < 4
    mask = nnx.make_attention_mask(jnp.ones((2, 1)), jnp.broadcast_to(keys, (2, 6)))
    assert mask.dtype == jnp.float32
    want = layer.out(attention.mala(*project(layer, x), mask=keys))
    np.testing.assert_allclose(layer(x, mask=mask), want, rtol=1e-5, atol=1e-5)
    causal = nnx.make_causal_mask(jnp.ones((2, 6)))
    with pytest.raises(ValueError, match=r"mask: .*is_causal=True"):
        layer(x, mask=causal)
    quadratic = layer_of(attention_fn("mala", implementation="quadratic"))
    want = layer(x, is_causal=True)
    np.testing.assert_allclose(quadratic(x, mask=causal), want, rtol=1e-5, atol=1e-5)


def test_more_and_fewer_batch_axes(x):
    layer = layer_of(attention_fn("linear_attention"))
    np.testing.assert_allclose(layer(x[0]), layer(x)[0], rtol=1e-5, atol=1e-6)
    many = jnp.stack([x, 2 * x, 3 * x])
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (3, 2, 1, 1, 6))
    got = layer(many, mask=mask)
    for i in range(3):
        np.testing.assert_allclose(got[i], layer(many[i], mask=mask[i]), rtol=1e-5, atol=1e-6)


def test_decoding_with_the_cache_of_flax(x):
    layer = layer_of(attention_fn("mala"))
    want = layer(x, is_causal=True)
    layer.init_cache(x.shape)
    step = nnx.jit(lambda layer, token: layer(token, decode=True))
    got = jnp.concatenate([step(layer, x[:, i : i + 1]) for i in range(6)], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_dropout_weights_and_precision_are_not_ignored(x):
    dropping = layer_of(attention_fn("mala"), dropout_rate=0.5, deterministic=False)
    with pytest.raises(ValueError, match=r"dropout_rate: got 0\.5, but mala cannot"):
        dropping(x)
    dropping(x, deterministic=True)
    with pytest.raises(ValueError, match="module: got"):
        layer_of(attention_fn("mala"))(x, sow_weights=True)

    def plain(query, key, value, mask=None):
        return query

    with pytest.raises(ValueError, match="precision: got"):
        layer_of(attention_fn(plain), precision="highest")(x)
    with pytest.raises(ValueError, match="is_causal: got"):
        layer_of(attention_fn(plain))(x, is_causal=True)
    layer_of(attention_fn("mala"), precision="highest")(x)


def test_dropout_reaches_an_operator_that_has_it(x):
    seen = {}

    def operator(query, key, value, mask=None, *, dropout_rng, dropout_rate, broadcast_dropout):
        seen.update(rate=dropout_rate, rng=dropout_rng, broadcast=broadcast_dropout)
        return query

    layer_of(attention_fn(operator), dropout_rate=0.25, deterministic=False)(x)
    assert seen["rate"] == 0.25
    assert seen["broadcast"] is True
    assert seen["rng"] is not None


def test_dropout_of_softmax_attention(x):
    fn = attention_fn("dot_product_attention")
    options = {"dropout_rate": 0.5, "deterministic": False}
    with pytest.raises(ValueError, match="broadcast_dropout: got True, but dot_product_attention"):
        layer_of(fn, **options)(x)
    dropping = layer_of(fn, broadcast_dropout=False, **options)
    first, second = dropping(x), dropping(x)
    assert not np.allclose(first, second)
    assert not np.allclose(first, dropping(x, deterministic=True))


def test_dtype_of_the_computation(x):
    layer = layer_of(attention_fn("mala"), dtype=jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16


def test_unknown_names_and_options_are_named():
    with pytest.raises(
        ValueError, match=r"operator: got 'softmaxx', takes .*linear_attention, mala"
    ):
        attention_fn("softmaxx")
    with pytest.raises(ValueError, match="operator: got 'mala_step'"):
        attention_fn("mala_step")
    with pytest.raises(ValueError, match="window: got 3"):
        attention_fn("mala", window=3)
    with pytest.raises(ValueError, match="mask: got"):
        attention_fn("mala", mask=None)
