"""Softmax by its definition: what the kernels compute, and what third derivatives are taken of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def softmax(x: Float[Array, "rows n"], *, log: bool) -> Float[Array, "rows n"]:
    """Softmax or its logarithm over the last axis; minus infinity marks what is not there."""
    there = x > -jnp.inf
    finite = jnp.where(there, x, 0)
    lowest = jnp.finfo(x.dtype).min
    top = jnp.max(jnp.where(there, x, lowest), axis=-1, keepdims=True, initial=lowest)
    top = jax.lax.stop_gradient(top)
    shifted = jnp.where(there, finite - top, 0)
    e = jnp.where(there, jnp.exp(shifted), 0)
    total = jnp.sum(e, axis=-1, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    return jnp.where(there, shifted - jnp.log(total), -jnp.inf) if log else e / total
