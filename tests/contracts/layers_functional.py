"""Declarations for modules as functions."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from contracts.case import Bad, Case


def batch(rng):
    return {"x": rng.normal(size=(4, 3))}


def square(module, x):
    return jnp.mean(jnp.square(module(x)))


def linear(fn, x, module=None, loss=square):
    dtype = jnp.result_type(x)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    module = nnx.Linear(3, 2, dtype=dtype, rngs=nnx.Rngs(0)) if module is None else module
    made = fn(module, loss)
    return made.fun(made.params, x)[0]


CASES = [
    Case(
        "papyrax.layers.functional",
        batch,
        ("x",),
        call=linear,
        bad=(
            Bad("module", {"module": np.ones(3)}),
            Bad("loss", {"loss": "cross_entropy"}),
        ),
    ),
]
