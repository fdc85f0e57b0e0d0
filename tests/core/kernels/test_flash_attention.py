"""Attention's kernels in plain XLA against the dense definition, and identities they must keep."""

import attention_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import SCENES, Scene, i32
from hypothesis import given, settings
from hypothesis import strategies as st

from papyrax.kernels import flash_attention
from papyrax.kernels.flash_attention import Config, Inputs, Masks, attention
from papyrax.kernels.flash_attention.operands import kept, tiles_in_span


@pytest.mark.parametrize("name", SCENES)
def test_float64(name):
    second_tangent = name in ("cap", "dropout", "mask of heads", "one key")
    attention_cases.check(name, "xla_chunked", "float64", second_tangent)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["cap", "lengths"])
def test_lower_precision(name, dtype):
    attention_cases.check(name, "xla_chunked", dtype, second_tangent=name == "cap")


def test_dense_implementation():
    attention_cases.check("lengths", "xla", "float64", second_tangent=True)


@st.composite
def scenes(draw):
    batch, heads, group = (draw(st.integers(1, 2)) for _ in range(3))
    queries, keys = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    pair = (batch, heads, group, queries, keys)

    def shared():
        return tuple(draw(st.sampled_from((1, n))) for n in pair)

    window = draw(st.sampled_from((None, (3, None), (0, 4), (2, 2))))
    return Scene(
        shape=(*pair, draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        bias=shared() if draw(st.booleans()) else None,
        mask=shared() if draw(st.booleans()) else None,
        masks={"key_lengths": i32(*range(batch))} if draw(st.booleans()) else {},
        blocks=(draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        options={"causal": draw(st.booleans()), "window": window},
        seed=draw(st.integers(100, 999)),
    )


@settings(max_examples=4, deadline=None, derandomize=True)
@given(scenes())
def test_any_shape_mask_and_tile(scene):
    attention_cases.check(scene, "xla_chunked", "float64")


def inner(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_adjoint_and_symmetry():
    """<g, J t> = <B g, t>, and the Hessian-vector products of a scalar commute."""
    scene = SCENES["cap"]
    with jax.enable_x64(True):
        x, masks, t, u, g, _ = scene.draw("float64")
        config = scene.config("xla_chunked")

        def parts(x):
            y = attention(x, masks, config)
            return y.out, y.logsum

        @jax.jit
        def sides(x):
            push, pull = jax.jvp(parts, (x,), (t,))[1], jax.vjp(parts, x)[1](g)[0]
            gradient = jax.grad(lambda x: inner(jax.tree.map(jnp.sin, parts(x)), g))
            ht, hu = (jax.jvp(gradient, (x,), (v,))[1] for v in (t, u))
            return inner(g, push), inner(pull, t), inner(u, ht), inner(t, hu)

        push, pull, one, other = sides(x)
        np.testing.assert_allclose(push, pull, rtol=1e-12)
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_large_additive_masks_keep_the_gradient():
    """Rows whose logits are all near -1e9: one number could not hold the log-sum-exp."""
    config = Config(scale=1.0)
    ones = jnp.ones((1, 1, 1, 4, 2))
    x = Inputs(ones, ones[0], ones[0], jnp.full((1, 1, 1, 4, 4), -1e9))
    grad = jax.grad(lambda x: attention(x, Masks(), config).out.sum())(x)
    np.testing.assert_allclose(grad.value, jnp.ones_like(grad.value), rtol=1e-6)


def hvp_memory(keys, bias=False, wrt_bias=False):
    x = Inputs(
        *(
            jax.ShapeDtypeStruct(s, jnp.float32)
            for s in ((1, 2, 1, keys, 16), (1, 2, keys, 16), (1, 2, keys, 16))
        )
    )
    extra = jax.ShapeDtypeStruct((1, 2, 1, keys, keys), jnp.float32) if bias else None
    config = Config(scale=0.25, causal=True, blocks=(128, 128), implementation="xla_chunked")

    def gradient(x, bias):
        def loss(x, bias):
            return jnp.sum(jnp.sin(attention(x._replace(bias=bias), Masks(), config).out))

        return jax.grad(loss, (0, 1) if wrt_bias else 0)(x, bias)

    def hvp(x, t, bias):
        return jax.jvp(lambda x: gradient(x, bias), (x,), (t,))[1]

    run = gradient if bias else hvp
    args = (x, extra) if bias else (x, x, None)
    return jax.jit(run).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_hessian_vector_products_take_linear_memory():
    small, large = hvp_memory(1024), hvp_memory(4096)
    assert large < 4.5 * small
    assert large < 4096 * 4096 * 4, "as much as one matrix of logits"


def test_bias_that_is_not_differentiated_costs_nothing():
    assert hvp_memory(1024, bias=True) < 1024 * 1024 * 4


def test_hidden_tiles_are_skipped():
    assert len(tiles_in_span(1024, 1024, (128, 128), (None, None))) == 64
    assert len(tiles_in_span(1024, 1024, (128, 128), (None, 0))) == 36
    assert len(tiles_in_span(1024, 1024, (128, 128), (128, 0))) == 15
    assert len(tiles_in_span(256, 1024, (128, 128), (None, 0))) == 3


def test_dropout_factors():
    """Mean one, the right share of zeros, no pattern along any axis, other seeds other zeros."""
    place = [jnp.arange(n).reshape(-1, *(1,) * i) for n, i in ((4, 3), (4, 2), (64, 1), (64, 0))]
    draw = lambda *seed: np.asarray(kept(jnp.asarray(seed), *place, 0.25, jnp.float32))  # noqa: E731
    keep = draw(1, 2)
    assert set(np.unique(keep).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    dropped = keep == 0
    for axis in range(4):
        others = tuple(i for i in range(4) if i != axis)
        count = dropped.size / dropped.shape[axis]
        spread = 5 * (0.25 * 0.75 / count) ** 0.5
        assert np.all(np.abs(dropped.mean(others) - 0.25) < spread)
        pairs = (dropped & np.roll(dropped, 1, axis)).mean()
        assert abs(pairs - 0.25**2) < 5 * (0.0625 / dropped.size) ** 0.5
    for other in (draw(2, 2), draw(1, 3)):
        assert abs((dropped & (other == 0)).mean() - 0.25**2) < 5 * (0.0625 / dropped.size) ** 0.5


def test_implementations_are_reported():
    report = flash_attention.implementations()
    assert report["xla"] is None
    assert report["xla_chunked"] is None
