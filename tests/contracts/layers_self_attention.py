"""Declarations for self-attention and the transformer block of `papyrax.layers`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def tokens(rng):
    return {"x": rng.normal(size=(2, 3, 8))}


def layer(fn, x, dim=8, heads=2, **kwargs):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(dim, heads, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)(x)


BAD = (
    Bad("x", {"x": np.ones((3, 8))}),
    Bad("x", {"x": np.ones((2, 3, 8), np.int32)}),
    Bad("x", {"x": np.ones((2, 3, 6))}),
    Bad("heads", {"heads": 3}),
)

CASES = [
    Case(
        "papyrax.layers.SelfAttention",
        tokens,
        ("x",),
        {"key_heads": 1, "window": 1},
        call=layer,
        bad=(
            *BAD,
            Bad("key_heads", {"key_heads": 4}),
            Bad("attention_fn", {"attention_fn": "softmaxx"}),
            Bad("positions", {"positions": "sine"}),
            Bad("window", {"causal": False}),
            Bad("max_length", {"positions": "learned", "max_length": 0}),
            Bad("rope_base", {"rope_base": 0.0}),
        ),
    ),
    Case(
        "papyrax.layers.TransformerBlock",
        tokens,
        ("x",),
        {"mlp_ratio": 1.0},
        call=layer,
        bad=(*BAD, Bad("mlp_ratio", {"mlp_ratio": 0.0})),
    ),
]
