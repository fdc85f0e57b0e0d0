"""Declarations for linear attention, MALA and rotary embedding in `papyrax.attention`."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case
from papyrax.attention import Rotary, linear_attention_init, mala_init


def qkv(rng):
    return {
        "query": rng.normal(size=(2, 5, 4, 4)),
        "key": rng.normal(size=(2, 5, 2, 4)),
        "value": rng.normal(size=(2, 5, 2, 3)),
    }


def masked(rng):
    return {**qkv(rng), "mask": rng.random((2, 1, 1, 5)) > 0.3}


def turned(rng):
    angles = rng.uniform(0, 3, (5, 4))
    return {**qkv(rng), "cos": np.cos(angles), "sin": np.sin(angles)}


def qk(rng):
    return {k: v for k, v in qkv(rng).items() if k != "value"}


def with_rope(fn, cos, sin, **kwargs):
    return fn(rope=Rotary(cos, sin), **kwargs)


def stepped(init):
    """Two steps from the start: a prompt of three tokens and two more."""

    def call(fn, query, key, value, **kwargs):
        state = init(key, value)
        first, state = fn(state, query[:, :3], key[:, :3], value[:, :3], **kwargs)
        second, state = fn(state, query[:, 3:], key[:, 3:], value[:, 3:], **kwargs)
        return first, second

    return call


def started(fn, query, key, value):
    """The states are zeros: adding them to arrays of their shape shows their shape and dtype."""
    return [x + value.sum() for x in fn(key, value)]


SHAPES = (
    Bad("query", {"query": np.ones((5, 4, 4))}),
    Bad("query", {"query": np.ones((2, 5, 4, 4), np.int32)}),
    Bad("key", {"key": np.ones((2, 5, 3, 4))}),
    Bad("key", {"key": np.ones((2, 5, 2, 3))}),
)
VALUES = (*SHAPES, Bad("value", {"value": np.ones((2, 4, 2, 3))}))
KERNEL = (
    Bad("epsilon", {"epsilon": -1.0}),
    Bad("feature_map", {"feature_map": "gelu"}),
    Bad("mask", {"mask": np.ones((2, 1, 1, 4), bool)}),
    Bad("mask", {"mask": np.ones((2, 1, 1, 5), np.float64)}),
)
OPERATOR = (
    *VALUES,
    *KERNEL,
    Bad("bias", {"bias": np.ones((2, 4, 5, 5))}),
    Bad("mask", {"mask": np.ones((5, 5), bool)}),
    Bad("implementation", {"implementation": "flash"}),
    Bad("chunk_size", {"chunk_size": 0, "is_causal": True}),
)
ALL = ("query", "key", "value")

CASES = [
    Case("papyrax.attention.linear_attention", masked, ALL, bad=OPERATOR),
    Case("papyrax.attention.linear_attention", qkv, ALL, {"is_causal": True}, "causal"),
    Case(
        "papyrax.attention.linear_attention",
        masked,
        ALL,
        {"normalize": False, "feature_map": "relu", "scale": 0.5},
        "not normalized",
    ),
    Case(
        "papyrax.attention.linear_attention_step",
        qkv,
        ALL,
        call=stepped(linear_attention_init),
        bad=(*VALUES[:2], *KERNEL[:2]),
    ),
    Case(
        "papyrax.attention.linear_attention_init",
        qkv,
        differentiable=False,
        keeps_dtype=False,
        call=started,
        bad=(Bad("value", {"value": np.ones((2, 4, 2, 3))}),),
    ),
    Case(
        "papyrax.attention.linear_attention_weights",
        qk,
        ("query", "key"),
        keeps_dtype=False,
        bad=(*SHAPES, *KERNEL),
    ),
    Case(
        "papyrax.attention.mala",
        masked,
        ALL,
        bad=(*OPERATOR, Bad("kernel_scale", {"kernel_scale": "code"}), Bad("rope", {"rope": 1.0})),
    ),
    Case("papyrax.attention.mala", masked, ALL, {"is_causal": True, "chunk_size": 2}, "causal"),
    Case("papyrax.attention.mala", qkv, ALL, {"kernel_scale": "released"}, "released"),
    Case(
        "papyrax.attention.mala",
        turned,
        ALL,
        {"is_causal": True, "kernel_scale": "released"},
        "rope",
        call=with_rope,
        rows_in=ALL,
    ),
    Case(
        "papyrax.attention.mala_step",
        qkv,
        ALL,
        call=stepped(mala_init),
        bad=(*VALUES[:2], *KERNEL[:2], Bad("kernel_scale", {"kernel_scale": "code"})),
    ),
    Case(
        "papyrax.attention.mala_init",
        qkv,
        differentiable=False,
        keeps_dtype=False,
        call=started,
        bad=(Bad("value", {"value": np.ones((2, 4, 2, 3))}),),
    ),
    Case(
        "papyrax.attention.mala_weights",
        qk,
        ("query", "key"),
        keeps_dtype=False,
        bad=(*SHAPES, *KERNEL, Bad("kernel_scale", {"kernel_scale": "code"})),
    ),
    Case(
        "papyrax.attention.relu_linear_attention",
        lambda rng: {**masked(rng), "scale": rng.uniform(0.5, 1.5, 4)},
        (*ALL, "scale"),
        {"floor": 1.0},
        rows_in=(*ALL, "mask"),
        bad=(
            *VALUES,
            *OPERATOR[-4:],
            Bad("floor", {"floor": -1.0}),
            Bad("scale", {"scale": np.ones(3)}),
        ),
    ),
    Case(
        "papyrax.attention.relu_linear_attention",
        qkv,
        ALL,
        {"is_causal": True},
        "causal, on the floor",
    ),
    Case(
        "papyrax.attention.rope_1d",
        lambda rng: {"positions": rng.uniform(0, 9, (2, 5))},
        ("positions",),
        {"dim": 4},
        keeps_dtype=False,
        bad=(Bad("dim", {"dim": 3}), Bad("base", {"base": 0.0})),
    ),
    Case(
        "papyrax.attention.rope_2d",
        lambda rng: {"x": rng.normal(size=(2, 1, 1, 8))},
        ("x",),
        {"height": 2, "width": 3, "dim": 8},
        call=lambda fn, x, height, width, dim, base=1e4: (
            x[:, 0] * fn(height, width, dim, base=base).cos
        ),
        keeps_dtype=False,
        second_order=False,
        bad=(
            Bad("height", {"height": 0}),
            Bad("width", {"width": 0}),
            Bad("dim", {"dim": 6}),
            Bad("base", {"base": -1.0}),
        ),
    ),
    Case(
        "papyrax.attention.apply_rope",
        lambda rng: {"x": rng.normal(size=(2, 5, 3, 4)), "angles": rng.uniform(0, 3, (5, 4))},
        ("x", "angles"),
        call=lambda fn, x, angles: fn(x, Rotary(jnp.cos(angles), jnp.sin(angles))),
        rows_in=("x",),
        bad=(
            Bad("x", {"x": np.ones((5, 3, 4))}),
            Bad("rotary", {"angles": np.ones((4, 4))}),
        ),
    ),
]
