"""Two-pass softmax in plain XLA: one reduction of pairs, then one elementwise pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .extended import NOTHING, combine, minus_log_2_times, power_of_two, split


def finish(
    x: Float[Array, "rows n"], m: Float[Array, "rows 1"], n: Float[Array, "rows 1"], log: bool
) -> Float[Array, "rows n"]:
    """The second pass: softmax, or its logarithm, from the sum `m 2^n` of each row."""
    some = m != 0  # also where it is NaN
    m, n = jnp.where(some, m, 1), jnp.where(some, n, 0)
    if log:
        return minus_log_2_times(x, n) - jnp.log(m)
    mantissa, exponent = split(x)
    return mantissa * (1 / m) * power_of_two(jnp.minimum(exponent - n, 0))


def run(x: Float[Array, "rows n"], *, log: bool) -> Float[Array, "rows n"]:
    """Softmax or its logarithm over the last axis; minus infinity marks what is not there."""
    start = jnp.zeros((), x.dtype), jnp.full((), NOTHING, x.dtype)
    m, n = jax.lax.reduce(split(x), start, combine, (x.ndim - 1,))
    return finish(x, m[..., None], n[..., None], log)
