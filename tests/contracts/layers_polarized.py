"""Declarations for polarized self-attention in `papyrax.layers`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def image(rng):
    return {"x": rng.normal(size=(2, 3, 4, 8))}


def gate(fn, x, dim=8, **kwargs):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(dim, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)(x)


CASES = [
    Case(
        "papyrax.layers.PolarizedSelfAttention",
        image,
        ("x",),
        call=gate,
        bad=(
            Bad("x", {"x": np.ones((2, 4, 8))}),
            Bad("x", {"x": np.ones((2, 3, 4, 8), np.int32)}),
            Bad("x", {"x": np.ones((2, 3, 4, 6))}),
            Bad("dim", {"dim": 7}),
            Bad("dim", {"dim": 12, "order": "released", "layout": "sequential"}),
            Bad("layout", {"layout": "both"}),
            Bad("order", {"order": "code"}),
        ),
    ),
]
