"""Linear attention against weights written out one by one, and its invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax import attention
from papyrax.attention import linear_attention_init

from . import brute_linear as brute

STATIC = ("is_causal", "feature_map", "normalize")
FORM = (*STATIC, "implementation", "chunk_size")
linear_attention = jax.jit(attention.linear_attention, static_argnames=FORM)
linear_attention_weights = jax.jit(attention.linear_attention_weights, static_argnames=STATIC)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0, B=2, T=7, S=7, N=4, K=2, H=3, E=5):
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, E))
    return tuple(rng.normal(size=shape) for shape in shapes)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_equals_weights_written_out(normalize, scale):
    q, k, v = draw(T=5, S=6)
    A = brute.linear_weights(q, k, scale=scale or 1.0)
    if not normalize:
        A = (scale or 1.0) * np.einsum(
            "btnh,bsnh->bnts", brute.elu_map(q), np.repeat(brute.elu_map(k), 2, axis=2)
        )
    got = linear_attention(q, k, v, scale=scale, normalize=normalize)
    np.testing.assert_allclose(got, brute.apply(A, v), rtol=1e-12)


def test_weights_and_quadratic_form():
    q, k, v = draw()
    mask = np.random.default_rng(1).random((2, 4, 7, 7)) > 0.4
    mask[0, 1, 3] = False
    A = brute.linear_weights(q, k, mask, causal=True)
    np.testing.assert_allclose(
        linear_attention_weights(q, k, mask, is_causal=True), A, rtol=1e-12, atol=1e-15
    )
    got = linear_attention(q, k, v, mask=mask, is_causal=True, implementation="quadratic")
    np.testing.assert_allclose(got, brute.apply(A, v), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("T", "S"), [(7, 7), (4, 7), (7, 4)])
def test_causal_form_is_the_prefix_evaluation(T, S):
    q, k, v = draw(T=T, S=S)
    want = brute.apply(brute.linear_weights(q, k, causal=True), v)
    for chunk_size in (1, 3, 128):
        got = linear_attention(q, k, v, is_causal=True, chunk_size=chunk_size)
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("causal", [False, True])
def test_mask_over_keys(heads, causal):
    q, k, v = draw()
    mask = np.random.default_rng(2).random((2, heads, 1, 7)) > 0.5
    mask[1, 0] = False
    full = np.broadcast_to(mask, (2, 4, 7, 7))
    A = brute.linear_weights(q, k, full, causal=causal)
    got = linear_attention(q, k, v, mask=mask, is_causal=causal, chunk_size=3)
    np.testing.assert_allclose(got, brute.apply(A, v), rtol=1e-12, atol=1e-14)
    assert np.all(np.asarray(got[1, :, 0]) == 0), "a query without keys yields zeros"


def test_step_continues_the_causal_form():
    q, k, v = draw()
    mask = np.arange(7) != 2
    want = linear_attention(q, k, v, mask=mask, is_causal=True)
    step = jax.jit(functools.partial(attention.linear_attention_step, chunk_size=3))
    state, pieces = linear_attention_init(k, v), []
    for a, b in ((0, 4), (4, 5), (5, 6), (6, 7)):
        out, state = step(state, q[:, a:b], k[:, a:b], v[:, a:b], mask[a:b])
        pieces.append(out)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), want, rtol=1e-12)


def test_blind_to_the_magnitude_of_query_features():
    q, k, v = draw()
    weights = functools.partial(linear_attention_weights, feature_map=jax.nn.softplus, epsilon=0.0)
    scaled = functools.partial(
        linear_attention_weights,
        feature_map=jax.nn.softplus,
        epsilon=0.0,
        scale=8.0,
    )
    np.testing.assert_allclose(weights(q, k), scaled(q, k), rtol=1e-13)
    positive = np.abs(q)
    once = linear_attention(positive, np.abs(k), v, feature_map="relu", epsilon=0.0)
    twice = linear_attention(4 * positive, np.abs(k), v, feature_map="relu", epsilon=0.0)
    np.testing.assert_allclose(once, twice, rtol=1e-12)


def test_elu_map_keeps_relative_precision_of_small_features():
    q = jnp.full((1, 1, 1, 1), -20.0, jnp.float32)
    v = jnp.ones((1, 1, 1, 1), jnp.float32)
    got = linear_attention(q, jnp.zeros_like(q), v, normalize=False)
    np.testing.assert_allclose(got[0, 0, 0, 0], np.exp(-20.0), rtol=1e-6)


def test_queries_and_keys_of_zero_have_their_whole_gradient():
    """Such as those of padding, or of a projection that starts from zeros: elu'(0) is one."""
    value = jnp.asarray(np.random.default_rng(2).normal(size=(1, 3, 1, 2)), jnp.float32)

    def total(x, feature_map):
        out = attention.linear_attention(x[0], x[1], value, feature_map=feature_map)
        return jnp.sum(out * value)

    x = jnp.zeros((2, 1, 3, 1, 2)).at[1, 0, 0].set(1.0)
    ours = jax.grad(total)(x, "elu")
    theirs = jax.grad(total)(x, lambda x: jax.nn.elu(x) + 1)
    assert jnp.abs(ours).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_memory_of_the_gradient_is_linear_in_the_tokens(causal):
    def loss(q, k, v):
        return jnp.sum(
            jnp.sin(attention.linear_attention(q, k, v, is_causal=causal, chunk_size=64))
        )

    def memory(n):
        x = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(4096) <= 2.2 * memory(2048)
    assert memory(4096) < 4096 * 4096 * 4, "less than one [queries, keys] matrix"


def test_shard_map_over_batch_and_heads():
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    q, k, v = draw(N=4, K=4)
    spec = P("data", None, "model", None)
    f = functools.partial(attention.linear_attention, is_causal=True, chunk_size=4)
    sharded = jax.shard_map(f, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)
    got, want = (
        jax.jit(jax.value_and_grad(lambda *a, g=g: jnp.sum(jnp.sin(g(*a))), (0, 1, 2)))(q, k, v)
        for g in (sharded, f)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), got, want)


def test_mask_between_queries_needs_the_quadratic_form():
    q, k, v = draw()
    with pytest.raises(ValueError, match=r'mask: .*implementation="quadratic"'):
        linear_attention(q, k, v, mask=np.ones((7, 7), bool))


@pytest.mark.parametrize("name", ["linear_attention", "mala", "relu_linear_attention"])
def test_what_is_no_scale_or_flag_is_named(name):
    operator = getattr(attention, name)
    x = np.ones((1, 3, 2, 4))
    for scale in ("1", np.ones(3), jnp.ones(3)):
        with pytest.raises(ValueError, match="scale: got"):
            operator(x, x, x, scale=scale)
    with pytest.raises(ValueError, match="is_causal: got 'no'"):
        operator(x, x, x, is_causal="no")
