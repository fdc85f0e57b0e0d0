"""Declarations for mixed operations."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case


def mixed(fn, x, logits, operations=(jnp.sin, jnp.negative, jnp.zeros_like), **options):
    module = fn(operations, param_dtype=jnp.result_type(logits), **options)
    module.logits[...] = logits
    return module(x)


CASES = [
    Case(
        "papyrax.layers.MixedOperation",
        arrays=lambda rng: {"x": rng.normal(size=(2, 3)), "logits": rng.normal(size=3)},
        wrt=("x", "logits"),
        rows=None,
        call=mixed,
        bad=(
            Bad("operations: got", {"operations": ()}),
            Bad("weighting: got", {"weighting": "sum"}),
            Bad("x: got", {"x": np.ones((2, 3), np.int32)}),
        ),
    ),
]
