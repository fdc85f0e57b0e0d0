"""Declarations for polarized self-attention in `papyrax.attention`."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def channel(rng):
    return {
        "query": rng.normal(size=(2, 5)),
        "value": rng.normal(size=(2, 5, 3)),
        "mask": rng.random((2, 5)) > 0.3,
    }


def spatial(rng):
    return {
        "query": rng.normal(size=(2, 5, 3)),
        "value": rng.normal(size=(2, 5, 3)),
        "mask": rng.random((2, 5)) > 0.3,
    }


def features(rng):
    return {"x": rng.normal(size=(2, 5, 3))}


def gated(fn, x, channels=3, pixels=5, **kwargs):
    def channel_gate(x):
        return jnp.tanh(jnp.mean(x, axis=-2))[..., :channels]

    def spatial_gate(x):
        return jnp.tanh(jnp.mean(x, axis=-1))[..., :pixels]

    return fn(x, channel_gate, spatial_gate, **kwargs)


SPATIAL = "papyrax.attention.polarized_spatial_gate"
BAD = (
    Bad("query", {"query": np.ones((2, 5, 3), np.int32)}),
    Bad("value", {"value": np.ones((2, 4, 3))}),
    Bad("mask", {"mask": np.ones((2, 5), np.int32)}),
    Bad("mask", {"mask": np.ones((2, 4), bool)}),
)

CASES = [
    Case(
        "papyrax.attention.polarized_channel_context",
        channel,
        ("query", "value"),
        bad=(*BAD[1:], Bad("query", {"query": np.ones((2, 5), np.int32)})),
    ),
    Case(SPATIAL, spatial, ("query", "value"), bad=(*BAD, Bad("order", {"order": "code"}))),
    Case(SPATIAL, spatial, ("query", "value"), {"order": "released_parallel"}, "parallel"),
    Case(SPATIAL, spatial, ("query", "value"), {"order": "released_sequential"}, "sequential"),
    Case(
        "papyrax.attention.polarized_self_attention",
        features,
        ("x",),
        {"layout": "sequential"},
        call=gated,
        bad=(
            Bad("x", {"x": np.ones(3)}),
            Bad("x", {"x": np.ones((2, 5, 3), np.int32)}),
            Bad("layout", {"layout": "both"}),
            Bad("channel_gate", {"channels": 2}),
            Bad("spatial_gate", {"pixels": 4}),
        ),
    ),
]
