"""Two-pass softmax in plain XLA: one pass that sums pairs, then one elementwise pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .extended import combine, minus_log_2_times, power_of_two, split

CACHED = 2**14  # numbers that stay in a core's cache while they are read again


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


def total(x: Float[Array, "*rows n"]) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    """The sum of exponentials over the last axis as pairs, of numbers that are in the cache."""
    m, n = split(x)
    top = jnp.max(n, axis=-1, keepdims=True)
    return jnp.sum(m * power_of_two(n - top), axis=-1), top[..., 0]


def row_total(x: Float[Array, "n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`total` of one row of any length, piece by piece."""
    pieces = x.shape[0] // CACHED
    if pieces < 2:
        return total(x)

    def add(carry: Any, i: Array) -> tuple[Any, None]:
        piece = jax.lax.dynamic_slice(x, (i * CACHED,), (CACHED,))
        return combine(carry, total(piece)), None

    out, _ = jax.lax.scan(add, total(x[:CACHED]), jnp.arange(1, pieces))
    rest = x[pieces * CACHED :]
    return combine(out, total(rest)) if rest.size else out


def run(x: Float[Array, "rows n"], *, log: bool, pieces: bool) -> Float[Array, "rows n"]:
    """Softmax or its logarithm over the last axis; minus infinity marks what is not there.

    With `pieces`, for CPUs, the first pass goes through x as much at a time as a cache holds.
    """
    if pieces and x.size > CACHED:
        m, n = jax.lax.map(row_total, x, batch_size=max(1, CACHED // x.shape[1]))
    else:
        m, n = total(x)
    return finish(x, m[:, None], n[:, None], log)
