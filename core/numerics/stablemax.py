"""The function that StableMax has in the place of softmax's exponential."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def log_s(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log s(x)`; finite at every x, and its derivatives too.

    `s(x) = x + 1` for `x >= 0` and `1 / (1 - x)` below.
    """
    positive = x >= 0
    return jnp.where(positive, 1.0, -1.0) * jnp.log1p(jnp.where(positive, x, -x))


def s(x: Float[Array, "..."], scale: Float[Array, "..."] | float = 1.0) -> Float[Array, "..."]:
    """The function itself, times `scale`; its reciprocal is `s(-x)`."""
    # Not by `maximum(x, 0)`, whose derivative at zero is a half where that of `s` is one.
    positive = x >= 0
    above, below = jnp.where(positive, x, 0), jnp.where(positive, 0, x)
    return jnp.where(positive, (above + 1) * scale, scale / (1 - below))
