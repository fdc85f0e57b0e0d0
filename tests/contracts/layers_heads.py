"""Declarations for classifier heads."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def rows(rng):
    return {"x": rng.normal(size=(4, 5))}


def fixed(fn, x, basis=None, **kwargs):
    basis = np.eye(3, 5, dtype=np.float32) if basis is None else basis
    return fn(basis, **kwargs)(x)


def grassmann(fn, x, features=5, classes=3, **kwargs):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(features, classes, dtype=dtype, rngs=nnx.Rngs(0), **kwargs)(x)


BAD = (
    Bad("x: got dtype", {"x": np.zeros((4, 5), np.int32)}),
    Bad("x: got shape", {"x": np.zeros((4, 4))}),
)
CASES = [
    Case(
        "papyrax.layers.FixedCosineHead",
        rows,
        ("x",),
        call=fixed,
        bad=(
            *BAD,
            Bad("basis: got", {"basis": np.zeros(3)}),
            Bad("temperature: got", {"temperature": 0.0}),
        ),
    ),
    Case(
        "papyrax.layers.GrassmannHead",
        rows,
        ("x",),
        {"rank": 2},
        call=grassmann,
        bad=(
            *BAD,
            Bad("rank: got", {"rank": 6}),
            Bad("classes: got", {"classes": 0}),
            Bad("scale: got", {"scale": -1.0}),
        ),
    ),
]
