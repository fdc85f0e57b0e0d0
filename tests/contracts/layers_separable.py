"""Declarations for separable convolutions."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def image(rng):
    return {"x": rng.normal(size=(2, 4, 5, 3))}


def separable(fn, x, in_features=3, out_features=2, **options):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    module = fn(in_features, out_features, dtype=dtype, rngs=nnx.Rngs(0), **options)
    module.eval()
    return module(x)


CASES = [
    Case(
        "papyrax.layers.SharpSepConv",
        image,
        ("x",),
        {"strides": 2, "mid_features": 4},
        call=separable,
        bad=(
            Bad("x: got dtype", {"x": np.ones((2, 4, 5, 3), np.int32)}),
            Bad("x: got shape", {"x": np.ones((2, 4, 5, 2))}),
            Bad("x: got shape", {"x": np.ones((4, 5, 3))}),
            Bad("kernel_size: got", {"kernel_size": 4}),
            Bad("in_features: got", {"in_features": 0}),
            Bad("out_features: got", {"out_features": 0}),
            Bad("mid_features: got", {"mid_features": 0}),
            Bad("strides: got", {"strides": 0}),
            Bad("dilation: got", {"dilation": 0}),
        ),
    ),
]
