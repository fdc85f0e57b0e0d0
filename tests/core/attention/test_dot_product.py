"""Softmax attention as users call it: against `jax.nn`, and what `jax.nn` does not offer."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpus import absent_gpu

from papyrax.attention import dot_product_attention


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


Q, K, V = draw((2, 7, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8))
BIAS, WEIGHTS = draw((1, 4, 7, 9), (2, 7, 4, 8), seed=1)
MASK = np.random.default_rng(2).random((2, 1, 7, 9)) < 0.6
MASK[:, :, :, 0] = True
LENGTHS = {
    "query_seq_lengths": np.array([3, 7], np.int32),
    "key_value_seq_lengths": np.array([5, 9], np.int32),
}


def test_signature_holds_that_of_jax():
    ours, theirs = (
        inspect.signature(f).parameters
        for f in (dot_product_attention, jax.nn.dot_product_attention)
    )
    assert set(theirs) <= set(ours)
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind
        assert ours[name].default == parameter.default


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": BIAS, "mask": MASK, "scale": 0.3},
        {"is_causal": True, "local_window_size": (3, 2)},
        {"local_window_size": 2, "bias": BIAS, **LENGTHS},
        {name: lengths.tolist() for name, lengths in LENGTHS.items()},
    ],
    ids=["plain", "bias and mask", "causal window", "lengths", "lists of lengths"],
)
def test_value_gradient_and_hvp_agree_with_jax(options):
    def run(attention):
        loss = lambda x: jnp.sum(jnp.sin(attention(*x, **options)) * WEIGHTS)  # noqa: E731
        x = (Q, K, V)
        return attention(*x, **options), jax.jvp(
            jax.grad(loss), (x,), (draw(*map(np.shape, x), seed=3),)
        )

    got, want = (
        jax.jit(run, static_argnums=0)(f)
        for f in (dot_product_attention, jax.nn.dot_product_attention)
    )
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=2e-5 * float(jnp.abs(w).max()))


def test_without_a_batch_axis():
    got = dot_product_attention(Q[0], K[0], V[0], return_residual=True)
    want = dot_product_attention(Q, K, V, return_lse=True)
    for g, w in zip(got, want):
        np.testing.assert_allclose(g, w[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("empty", "implementation"),
    [("batch", "xla"), ("queries", "interpret"), ("keys", "interpret_triton"), ("values", "xla")],
)
def test_nothing_to_attend_to(empty, implementation):
    """Batches and sequences without elements, such as those of a last shard: zeros, not errors."""
    shapes = {"batch": (0, 3, 5, 4), "queries": (2, 0, 5, 4), "keys": (2, 3, 0, 4)}
    batch, queries, keys, width = shapes.get(empty, (2, 3, 5, 0))
    x = draw((batch, queries, 4, 8), (batch, keys, 2, 8), (batch, keys, 2, width), (4, queries, 1))

    def attend(x):
        options = {"implementation": implementation, "is_causal": True, "return_lse": True}
        return dot_product_attention(*x, **options)

    def loss(x):
        out, lse = attend(x)
        return jnp.sum(out**2) + jnp.sum(jnp.exp(lse))

    out, lse = attend(x)
    assert out.shape == (batch, queries, 4, width)
    assert not out.any()
    assert bool(jnp.all(jnp.isfinite(lse) if empty == "values" else lse == -jnp.inf))
    for found in jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (x,)))(x):
        for a, b in zip(found, x, strict=True):
            assert a.shape == b.shape
            assert bool(jnp.all(jnp.isfinite(a)))


def test_gradient_of_the_log_sum_exp_is_the_softmax():
    bias = jnp.zeros((2, 4, 7, 9))
    lse = lambda bias: dot_product_attention(Q, K, V, bias, return_lse=True)[1].sum()  # noqa: E731
    group = jnp.repeat(K, 2, axis=2)
    logits = jnp.einsum("btnh,bsnh->bnts", Q, group) / 8**0.5
    np.testing.assert_allclose(jax.jit(jax.grad(lse))(bias), jax.nn.softmax(logits), atol=1e-6)


def test_scale_can_be_learned():
    value = jax.jit(lambda scale: dot_product_attention(Q, K, V, scale=scale).sum())
    step = 1e-2
    slope = (value(0.3 + step) - value(0.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(jnp.float32(0.3)), slope, rtol=1e-3)
    fixed = dot_product_attention(Q, K, V, scale=0.3).sum()
    np.testing.assert_allclose(value(jnp.float32(0.3)), fixed, rtol=1e-5)


def test_sinks_are_a_key_without_value():
    (sinks,) = draw((4,), seed=4)

    def with_a_key(sinks):
        """The sink written out: a key of zeros, with the sink's logit as its bias."""
        bias = jnp.broadcast_to(jnp.pad(BIAS, ((0, 0),) * 3 + ((0, 1),)), (2, 4, 7, 10))
        bias = bias.at[..., -1].set(jnp.broadcast_to(sinks[:, None], (4, 7)))
        key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (K, V))
        return dot_product_attention(Q, key, value, bias, return_lse=True)

    def with_sinks(sinks):
        return dot_product_attention(Q, K, V, BIAS, sinks=sinks, return_lse=True)

    @jax.jit
    def both(sinks):
        return [jax.jvp(f, (sinks,), (jnp.ones(4),)) for f in (with_sinks, with_a_key)]

    for got, want in zip(*map(jax.tree.leaves, both(sinks)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_sinks_of_a_query_that_sees_nothing():
    (sinks,) = draw((4,), seed=4)
    mask = jnp.zeros((1, 1, 7, 9), bool)

    def loss(sinks):
        out, lse = dot_product_attention(Q, K, V, mask=mask, sinks=sinks, return_lse=True)
        return out.sum() + lse[0, 0].sum(), out

    (value, out), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(sinks)
    assert not out.any()
    np.testing.assert_allclose(value, sinks.sum(), rtol=1e-6)
    np.testing.assert_allclose(grad, 1)
    hessian = jax.jit(jax.hessian(lambda s: loss(s)[0]))(sinks)
    assert bool(jnp.isfinite(hessian).all())


def test_dropout():
    """The same key the same weights, in every implementation; the mean is that without dropout."""
    run = jax.jit(
        lambda key, implementation: dot_product_attention(
            Q, K, V, dropout_rate=0.4, dropout_rng=key, implementation=implementation
        ),
        static_argnums=1,
    )
    keys = jax.random.split(jax.random.key(0), 400)
    one = run(keys[0], "xla_chunked")
    np.testing.assert_allclose(one, run(keys[0], "xla"), atol=1e-6)
    assert jnp.abs(one - run(keys[1], "xla")).max() > 0.1
    mean = jax.vmap(run, in_axes=(0, None))(keys, "xla").mean(0)
    np.testing.assert_allclose(mean, dot_product_attention(Q, K, V), atol=0.25)


def test_mixed_dtypes_are_promoted():
    out, lse = dot_product_attention(Q.astype(jnp.bfloat16), K, V, return_lse=True)
    assert out.dtype == lse.dtype == jnp.float32
    half = [x.astype(jnp.bfloat16) for x in (Q, K, V)]
    out, lse = dot_product_attention(*half, return_lse=True)
    assert (out.dtype, lse.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scale", ("1", [1.0], 1j, float("nan"), np.ones(2))),
        ("is_causal", ("no", 1, None)),
        ("local_window_size", (2.5, (1.5, 0), "ab", True, np.ones(2))),
        ("logits_soft_cap", ("a", np.ones(2))),
        ("dropout_rate", ("a", None)),
        ("dropout_rng", (3, None, np.zeros(3), jax.random.split(jax.random.key(0)))),
        ("key_value_seq_lengths", ([5.0, 9.0], ["ab", "c"], "ab")),
        ("sinks", ([0.0] * 4,)),
        ("bias", ("ab", 1)),
        ("mask", ("ab", 1)),
    ],
)
def test_what_is_no_number_or_array_is_named(name, values):
    for value in values:
        options = {"dropout_rate": 0.5} if name == "dropout_rng" else {}
        with pytest.raises(ValueError, match=f"^{name}: got"):
            dot_product_attention(Q, K, V, **(options | {name: value}))


def test_traced_hyper_parameters_are_named():
    for name in ("logits_soft_cap", "dropout_rate", "is_causal"):
        with pytest.raises(ValueError, match=f"^{name}: got"):
            jax.jit(lambda x, name=name: dot_product_attention(Q, K, V, **{name: x}))(0.5)


def test_numbers_of_numpy():
    options = [
        {"local_window_size": window, "scale": scale, "is_causal": causal}
        for window, scale, causal in (
            (np.int64(2), np.float32(0.5), np.True_),
            ((2, 2), 0.5, True),
            ([np.int32(2), 2], np.array(0.5), True),
        )
    ]
    first, *others = (dot_product_attention(Q, K, V, **o) for o in options)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_one_trace_serves_every_platform():
    """`implementation=None` chooses when the program is lowered."""
    x = [jax.ShapeDtypeStruct((1, 256, 2, 64), jnp.float32)] * 3
    hvp = lambda q, k, v: jax.jvp(  # noqa: E731
        jax.grad(lambda q: dot_product_attention(q, k, v, is_causal=True).sum()), (q,), (q,)
    )[1]
    with absent_gpu():
        exported = jax.export.export(
            jax.jit(hvp),
            platforms=("cpu", "tpu", "cuda"),
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")],
        )(*x)
    assert exported.platforms == ("cpu", "tpu", "cuda")


def hvp_in(tiles, tokens, implementation=None):
    """A Hessian-vector product's function and the shapes of its arguments."""

    def loss(q, k, v):
        options = {"tiles": tiles, "implementation": implementation, "is_causal": True}
        return jnp.sum(jnp.sin(dot_product_attention(q, k, v, **options)))

    shapes = (jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32),) * 3
    return jax.jit(lambda *x: jax.jvp(jax.grad(loss, (0, 1, 2)), x, x)[1]), shapes


@pytest.mark.parametrize(
    ("implementation", "platform"),
    [("pallas_tpu", "cpu"), ("pallas_tpu", "cuda"), ("pallas_triton", "cpu")],
)
def test_kernels_asked_for_by_name_never_fall_back(implementation, platform):
    """A Hessian-vector product on a platform that they do not run on raises."""
    run, shapes = hvp_in(None, 128, implementation)
    with pytest.raises(ValueError, match=f"implementation: got '{implementation}'.*runs on"):
        jax.export.export(run, platforms=(platform,))(*shapes)


def test_every_reason_is_told():
    with jax.enable_x64(True):
        x = jnp.zeros((1, 4, 1, 512), jnp.float64)
        with pytest.raises(ValueError, match=r"implementation.*not float64.*; .*256 features"):
            jax.grad(
                lambda x: dot_product_attention(x, x, x, implementation="pallas_triton").sum()
            )(x)


def test_tiles_change_the_work_and_not_the_result():
    x = draw((1, 40, 2, 16), (1, 40, 2, 16), (1, 40, 2, 16), seed=5)
    want = hvp_in(None, 40)[0](*x)
    for tiles, implementation in (((7, 11), "xla_chunked"), ((16, 32), "interpret_triton")):
        for g, w in zip(hvp_in(tiles, 40, implementation)[0](*x), want):
            np.testing.assert_allclose(g, w, atol=1e-5 * float(jnp.abs(w).max()))
    small, large = (
        run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
        for run, shapes in (hvp_in((n, n), 512) for n in (16, 512))
    )
    assert large > small + 512 * 512 * 4


@pytest.mark.parametrize(
    ("platform", "implementation", "tiles", "reason"),
    [
        ("tpu", None, (100, 256), "pallas_tpu.*multiples of 128 queries, or all 512, not 100"),
        ("cuda", None, (128, 48), "pallas_triton.*powers of two from 16 keys, not 48"),
        ("cpu", "xla", (128, 128), "xla.*only tile is the whole"),
    ],
)
def test_tiles_that_cannot_run_raise(platform, implementation, tiles, reason):
    """Also where the platform chooses: not another implementation in silence."""
    run, shapes = hvp_in(tiles, 512, implementation)
    with pytest.raises(ValueError, match=f"tiles.*{reason}"):
        jax.export.export(run, platforms=(platform,))(*shapes)


def test_tiles_of_kernels():
    """The kernels of every platform take them."""
    run, shapes = hvp_in((128, 256), 512)
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    exported = jax.export.export(run, platforms=("cpu", "tpu", "cuda"), disabled_checks=unchecked)
    with absent_gpu():
        exported(*shapes)
