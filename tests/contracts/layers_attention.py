"""Declarations for the attention blocks of `papyrax.layers`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def qkv(rng):
    return {
        "query": rng.normal(size=(2, 5, 4, 4)),
        "key": rng.normal(size=(2, 5, 2, 4)),
        "value": rng.normal(size=(2, 5, 2, 3)),
    }


def adapted(fn, query, key, value, operator="mala", dropout_rate=0.0, **options):
    return fn(operator, **options)(query, key, value, dropout_rate=dropout_rate)


def image(rng):
    return {"x": rng.normal(size=(2, 3, 4, 8))}


def block(fn, x, dim=8, heads=2, **kwargs):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(dim, heads, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)(x)


CASES = [
    Case(
        "papyrax.layers.attention_fn",
        qkv,
        ("query", "key", "value"),
        {"is_causal": True},
        call=adapted,
        bad=(
            Bad("operator", {"operator": "softmaxx"}),
            Bad("window", {"window": 3}),
            Bad("dropout_rate", {"dropout_rate": 0.5}),
            Bad("key", {"key": np.ones((2, 5, 3, 4))}),
        ),
    ),
    Case(
        "papyrax.layers.MALABlock",
        image,
        ("x",),
        call=block,
        bad=(
            Bad("x", {"x": np.ones((2, 4, 8))}),
            Bad("x", {"x": np.ones((2, 3, 4, 8), np.int32)}),
            Bad("x", {"x": np.ones((2, 3, 4, 6))}),
            Bad("heads", {"heads": 3}),
            Bad("dim", {"dim": 12, "x": np.ones((2, 3, 4, 12))}),
            Bad("kernel_size", {"kernel_size": 2}),
            Bad("kernel_scale", {"kernel_scale": "code"}),
        ),
    ),
]
