"""Declarations for the blocks of L2ViT in `papyrax.layers`."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def image(rng):
    return {"x": rng.normal(size=(2, 3, 4, 8))}


def _dtype(x):
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def local(fn, x, dim=8, **kwargs):
    return fn(dim, dtype=_dtype(x), rngs=nnx.Rngs(0), **kwargs)(x)


def block(fn, x, dim=8, heads=2, **kwargs):
    return fn(dim, heads, dtype=_dtype(x), rngs=nnx.Rngs(0), **kwargs)(x)


BAD_IMAGES = (
    Bad("x", {"x": np.ones((2, 4, 8))}),
    Bad("x", {"x": np.ones((2, 3, 4, 8), np.int32)}),
    Bad("x", {"x": np.ones((2, 3, 4, 6))}),
)

CASES = [
    Case(
        "papyrax.layers.LocalConcentration",
        image,
        ("x",),
        {"kernel_size": 3},
        call=local,
        bad=(
            *BAD_IMAGES,
            Bad("dim", {"dim": 0}),
            Bad("kernel_size", {"kernel_size": 4}),
        ),
    ),
    Case(
        "papyrax.layers.L2ViTBlock",
        image,
        ("x",),
        {"kernel_size": 3, "floor": 1.0, "mlp_ratio": 1.0},
        call=block,
        bad=(
            *BAD_IMAGES,
            Bad("heads", {"heads": 3}),
            Bad("window_size", {"window_size": 0}),
            Bad("kernel_size", {"kernel_size": 4}),
            Bad("floor", {"floor": 0.0}),
            Bad("mlp_ratio", {"mlp_ratio": -1.0}),
        ),
    ),
]
