"""Declarations for layers of random features and for Dice."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def rows(rng):
    return {"x": rng.uniform(-0.5, 0.5, size=(4, 3))}


def floating(x):
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def linear(fn, x, in_features=3, out_features=2, **kwargs):
    return fn(in_features, out_features, dtype=floating(x), rngs=nnx.Rngs(0), **kwargs)(x)


def activation(fn, x, features=3, **kwargs):
    return fn(features, dtype=floating(x), **kwargs)(x)


BAD = (
    Bad("x: got dtype", {"x": np.zeros((4, 3), np.int32)}),
    Bad("x: got shape", {"x": np.zeros((4, 5))}),
)
CASES = [
    Case(
        "papyrax.layers.SNNKLinear",
        rows,
        ("x",),
        {"features": 5, "floor": -0.1},
        call=linear,
        second_order=False,
        # The parameters are drawn in float32 or float64.
        tolerance=1e3,
        bad=(
            *BAD,
            Bad("features: got", {"features": 0}),
            Bad("in_features: got", {"in_features": 1.5}),
            Bad("kind: got", {"kind": "tanh"}),
            Bad("damping: got", {"damping": -1.0}),
        ),
    ),
    Case(
        "papyrax.layers.SNNKLinear",
        rows,
        ("x",),
        {"features": 5, "kind": "sine", "damping": 0.1, "orthogonal": True},
        "sine",
        call=linear,
        tolerance=1e3,
    ),
    Case(
        "papyrax.layers.Dice",
        rows,
        ("x",),
        call=activation,
        rows=None,
        bad=(
            *BAD,
            Bad("features: got", {"features": 0}),
            Bad("momentum: got", {"momentum": 1.5}),
            Bad("epsilon: got", {"epsilon": 0.0}),
        ),
    ),
    Case(
        "papyrax.layers.Dice",
        rows,
        ("x",),
        {"use_running_average": True},
        "moving",
        call=activation,
    ),
]
