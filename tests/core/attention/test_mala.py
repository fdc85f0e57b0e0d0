"""MALA against weights written out one by one, its algebra, and its causal and recurrent forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from papyrax import attention
from papyrax.attention import Rotary, mala_init, rope_1d

from . import brute_linear as brute

STATIC = ("is_causal", "feature_map", "kernel_scale")
FORM = (*STATIC, "implementation", "chunk_size")
mala = jax.jit(attention.mala, static_argnames=FORM)
mala_weights = jax.jit(attention.mala_weights, static_argnames=STATIC)
linear_attention_weights = jax.jit(
    attention.linear_attention_weights, static_argnames="feature_map"
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed=0, B=2, T=7, S=7, N=4, K=2, H=4, E=5):
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, E))
    return tuple(rng.normal(size=shape) for shape in shapes)


def angles_of(T, H=4):
    """Angles and their `Rotary` in float64."""
    theta = np.arange(T)[:, None] * 10000.0 ** -(np.arange(H // 2) / (H // 2))
    wide = np.repeat(theta, 2, axis=-1)
    return theta, Rotary(jnp.asarray(np.cos(wide)), jnp.asarray(np.sin(wide)))


def scale_of(kernel_scale, scale, H=4):
    return (1.0 if kernel_scale == "paper" else H**-0.5) if scale is None else scale


@pytest.mark.parametrize(
    ("kernel_scale", "scale"), [("paper", None), ("released", None), ("released", 0.3)]
)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_weights_written_out(kernel_scale, scale, turned, causal):
    q, k, v = draw()
    theta, rotary = angles_of(7)
    options = {"scale": scale, "kernel_scale": kernel_scale, "is_causal": causal}
    options["rope"] = rotary if turned else None
    A = brute.mala_weights(
        q,
        k,
        causal=causal,
        scale=scale_of(kernel_scale, scale),
        by_count=kernel_scale == "released",
        angles=theta if turned else None,
    )
    want = brute.apply(A, v)
    np.testing.assert_allclose(mala_weights(q, k, **options), A, rtol=1e-11, atol=1e-13)
    for form in ({"chunk_size": 3}, {"implementation": "quadratic"}):
        got = mala(q, k, v, **options, **form)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize(("T", "S"), [(7, 7), (4, 7), (7, 4)])
def test_causal_form_is_the_prefix_evaluation(T, S):
    """Row i is what the full form says of the keys 0 to i alone, for every size of chunk."""
    q, k, v = draw(T=T, S=S)
    prefixes = [mala(q, k, v, mask=np.arange(S) <= i)[:, i] for i in range(T)]
    want = np.stack(prefixes, axis=1)
    for chunk_size in (1, 3, 128):
        got = mala(q, k, v, is_causal=True, chunk_size=chunk_size)
        np.testing.assert_allclose(got, want, rtol=1e-11)


def test_no_gradient_flows_from_the_past_to_the_future():
    q, k, v = draw()

    def early(k, v):
        return jnp.sum(jnp.sin(mala(q, k, v, is_causal=True, chunk_size=3)[:, :4]))

    for grad in jax.jit(jax.grad(early, (0, 1)))(k, v):
        assert np.all(np.asarray(grad[:, 4:]) == 0)
        assert np.any(np.asarray(grad[:, :4]) != 0)


@pytest.mark.parametrize(
    ("heads", "causal", "turned"),
    [(1, False, True), (1, True, True), (4, False, False), (4, True, False)],
)
def test_mask_over_keys(heads, causal, turned):
    q, k, v = draw()
    theta, rotary = angles_of(7)
    mask = np.random.default_rng(2).random((2, heads, 1, 7)) > 0.5
    mask[1, 0] = False
    full = np.broadcast_to(mask, (2, 4, 7, 7))
    A = brute.mala_weights(q, k, full, causal, angles=theta if turned else None)
    rope = rotary if turned else None
    got = mala(q, k, v, mask=mask, is_causal=causal, chunk_size=3, rope=rope)
    np.testing.assert_allclose(got, brute.apply(A, v), rtol=1e-11, atol=1e-12)
    assert np.all(np.asarray(got[1, :, 0]) == 0), "a query without keys yields zeros"


def test_any_mask_in_the_quadratic_form():
    q, k, v = draw()
    mask = np.random.default_rng(3).random((2, 1, 7, 7)) > 0.5
    mask[0, 0, 2] = False
    A = brute.mala_weights(q, k, np.broadcast_to(mask, (2, 4, 7, 7)))
    got = mala(q, k, v, mask=mask, implementation="quadratic")
    np.testing.assert_allclose(got, brute.apply(A, v), rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match=r'mask: .*implementation="quadratic"'):
        mala(q, k, v, mask=mask)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kernel_scale", ["paper", "released"])
def test_step_continues_the_causal_form(turned, kernel_scale):
    q, k, v = draw()
    _, rotary = angles_of(7)
    mask = np.arange(7) != 2
    options = {"kernel_scale": kernel_scale}
    rope = rotary if turned else None
    want = mala(q, k, v, mask=mask, is_causal=True, rope=rope, **options)
    step = jax.jit(functools.partial(attention.mala_step, chunk_size=3, **options))
    state, pieces = mala_init(k, v), []
    for a, b in ((0, 4), (4, 5), (5, 6), (6, 7)):
        part = Rotary(rotary.cos[a:b], rotary.sin[a:b]) if turned else None
        out, state = step(state, q[:, a:b], k[:, a:b], v[:, a:b], mask[a:b], rope=part)
        pieces.append(out)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), want, rtol=1e-11)
    assert np.all(np.asarray(state.seen) == 6)


@pytest.mark.parametrize("kernel_scale", ["paper", "released"])
@pytest.mark.parametrize("causal", [False, True])
def test_rows_sum_to_one_and_may_be_negative(kernel_scale, causal):
    q, k, _ = draw(T=20, S=20)
    A = mala_weights(q, k, epsilon=0.0, kernel_scale=kernel_scale, is_causal=causal)
    np.testing.assert_allclose(jnp.sum(A, -1), 1, rtol=1e-12)
    if kernel_scale == "paper" or causal:
        assert np.any(np.asarray(A) < 0)


def test_magnitude_identity():
    """phi(q) -> c phi(q): A(c) = A_linear + c (K - S / N), for several c and c -> 0."""
    q, k, _ = draw()
    identity = functools.partial(mala_weights, feature_map=jnp.abs, epsilon=0.0)
    linear = linear_attention_weights(q, k, feature_map=jnp.abs, epsilon=0.0)
    kernel = np.einsum("btnh,bsnh->bnts", np.abs(q), np.repeat(np.abs(k), 2, axis=2))
    departure = kernel - kernel.mean(-1, keepdims=True)
    for c in (1e-9, 0.5, 1.0, 4.0, 100.0):
        np.testing.assert_allclose(identity(c * q, k), linear + c * departure, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(identity(1e-12 * q, k), linear, rtol=1e-9)


def test_equal_values_give_that_value():
    """Exactly, whatever the sums: the covariance with a constant is zero."""
    q, k, v = draw()
    v = np.broadcast_to(v[:1, :1, :1], v.shape)
    for causal in (False, True):
        got = mala(100 * q, k, v, epsilon=0.0, is_causal=causal)
        want = np.broadcast_to(v[0, 0, 0], got.shape)
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_permuting_keys_changes_nothing_and_queries_follow():
    q, k, v = draw()
    order = np.random.default_rng(4).permutation(7)
    want = mala(q, k, v)
    np.testing.assert_allclose(mala(q, k[:, order], v[:, order]), want, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(mala(q[:, order], k, v), want[:, order], rtol=1e-12)


def test_concentration_grows_with_the_query_and_not_in_linear_attention():
    q, k, _ = draw(T=32, S=32, H=16)
    q = np.abs(q)  # phi(c q) = c q + 1 for these
    top = [float(mala_weights(c * q, k).max(-1).mean()) for c in (1, 2, 4)]
    assert top[0] < top[1] < top[2]


def test_grouped_queries_equal_repeated_keys():
    q, k, v = draw()
    got = mala(q, k, v, is_causal=True)
    want = mala(q, np.repeat(k, 2, 2), np.repeat(v, 2, 2), is_causal=True)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_float32_stays_close_for_many_keys_and_shifted_values(causal):
    """The paper's difference of sums of size N D loses five digits here; the covariance none."""
    q, k, v = draw(B=1, T=512, S=512, N=1, K=1, H=32)
    q, k, v = (x.astype(np.float32).astype(np.float64) for x in (q, k, v + 100))
    want = np.asarray(mala(q, k, v, is_causal=causal))
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    got = np.asarray(mala(*arrays, is_causal=causal), np.float64)
    assert np.abs(got - want).max() <= 3e-6 * np.abs(want).max()


def test_bfloat16_accumulates_in_float32():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in draw(T=128, S=128))
    for causal in (False, True):
        got = mala(q, k, v, is_causal=causal)
        assert got.dtype == jnp.bfloat16
        want = mala(*(x.astype(jnp.float64) for x in (q, k, v)), is_causal=causal)
        assert np.abs(np.asarray(got, np.float64) - want).max() <= 2**-8 * np.abs(want).max()


@pytest.mark.parametrize("causal", [False, True])
def test_memory_of_the_gradient_is_linear_in_the_tokens(causal):
    def loss(q, k, v):
        return jnp.sum(jnp.sin(mala(q, k, v, is_causal=causal, chunk_size=64)))

    def memory(n):
        x = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(4096) <= 2.2 * memory(2048)
    assert memory(4096) < 4096 * 4096 * 4, "less than one [queries, keys] matrix"


def test_shard_map_and_vmap():
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    q, k, v = draw(N=4, K=4)
    spec = P("data", None, "model", None)
    f = functools.partial(attention.mala, is_causal=True, chunk_size=4)
    sharded = jax.shard_map(f, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)

    def value_and_grad(f):
        def loss(*arrays):
            out = f(*arrays)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    one = value_and_grad(f)
    got, want = value_and_grad(sharded)(q, k, v), one(q, k, v)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), got, want)
    stacked = [np.stack([x, x[::-1]]) for x in (q, k, v)]
    got = jax.jit(jax.vmap(f))(*stacked)
    want = one(*(x[::-1] for x in (q, k, v)))[0][1]
    np.testing.assert_allclose(got[1], want, rtol=1e-11, atol=1e-13)


def test_rope_turns_the_kernel_and_not_the_normalizer():
    """Rows no longer sum to one, and the offset gamma is that without RoPE."""
    q, k, _ = draw()
    plain, turned = mala_weights(q, k), mala_weights(q, k, rope=rope_1d(jnp.arange(7), 4))
    assert np.abs(np.asarray(turned).sum(-1) - 1).max() > 0.1
    np.testing.assert_allclose(plain.sum(-1), 1, rtol=1e-5)
    pair = rope_1d(jnp.arange(7), 4)
    np.testing.assert_array_equal(mala_weights(q, k, rope=(pair, pair)), turned)
    with pytest.raises(ValueError, match="rope: got angles of shape"):
        mala(q, k, k, rope=rope_1d(jnp.arange(6), 4))
