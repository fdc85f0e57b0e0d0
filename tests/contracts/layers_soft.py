"""Declarations for the block of SOFT in `papyrax.layers`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def image(rng):
    return {"x": rng.normal(size=(2, 4, 5, 8))}


def block(fn, x, dim=8, heads=2, **kwargs):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(dim, heads, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)(x)


CASES = [
    Case(
        "papyrax.layers.SOFTBlock",
        image,
        ("x",),
        # Enough iterations for the closed-form derivative to be that of the value.
        {"landmark_stride": 2, "iterations": 40},
        call=block,
        bad=(
            Bad("x", {"x": np.ones((2, 4, 8))}),
            Bad("x", {"x": np.ones((2, 4, 5, 8), np.int32)}),
            Bad("x", {"x": np.ones((2, 4, 5, 6))}),
            Bad("x", {"x": np.ones((2, 4, 1, 8))}),
            Bad("heads", {"heads": 3}),
            Bad("landmark_stride", {"landmark_stride": 0}),
            Bad("kernel_size", {"kernel_size": 2}),
            Bad("inverse", {"inverse": "svd"}),
        ),
    ),
]
