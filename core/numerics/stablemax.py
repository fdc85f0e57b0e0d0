"""The function that StableMax has in the place of softmax's exponential."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def log_s(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log s(x)`; every branch is finite at every x, so that the derivatives are too.

    `s(x) = x + 1` for `x >= 0` and `1 / (1 - x)` below.
    """
    positive = x >= 0
    return jnp.log1p(jnp.where(positive, x, 0)) - jnp.log1p(jnp.where(positive, 0, -x))
