"""Declarations for the module that makes positives."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def pairs(rng):
    return {name: rng.normal(size=(4, 3)) for name in ("queries", "keys")}


def make(fn, queries, keys, amount=0.05, features=3):
    dtype = jnp.result_type(queries)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    return fn(features, dtype=dtype, rngs=nnx.Rngs(0))(queries, keys, amount)


CASES = [
    Case(
        "papyrax.layers.Hallucinator",
        pairs,
        ("queries",),
        call=make,
        bad=(
            Bad("queries: got dtype", {"queries": np.zeros((4, 3), np.int32)}),
            Bad("queries: got shape", {"queries": np.zeros((4, 2))}),
            Bad("keys: got shape", {"keys": np.zeros((3, 3))}),
            Bad("amount: got shape", {"amount": np.zeros(4)}),
            Bad("amount: got -1.0", {"amount": -1.0}),
            Bad("features", {"features": 0}),
        ),
    ),
]
