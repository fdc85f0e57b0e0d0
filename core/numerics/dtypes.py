"""The dtype rule of the library: half precision computes in float32 and returns as it came."""

from typing import Any

import jax
import jax.numpy as jnp


def accumulation_dtype(*arrays: Any) -> Any:
    """The dtype to compute in: float32, or float64 where an input is float64.

    Args:
      *arrays: arrays of any shape and dtype; integers count as nothing.

    Returns:
      A floating-point dtype.

    >>> accumulation_dtype(jnp.zeros(3, jnp.bfloat16)).name
    'float32'
    """
    return jnp.promote_types(jnp.float32, jnp.result_type(*arrays, jnp.bfloat16))


def upcast(*arrays: Any) -> Any:
    """The arrays in their common accumulation dtype.

    Args:
      *arrays: floating-point arrays of any shape.

    Returns:
      The one array, or a tuple of them, in `accumulation_dtype(*arrays)`.

    >>> upcast(jnp.zeros(3, jnp.bfloat16)).dtype.name
    'float32'
    """
    dtype = accumulation_dtype(*arrays)
    out = tuple(jnp.asarray(x, dtype) for x in arrays)
    return out[0] if len(out) == 1 else out


def restore(x: jax.Array, *like: Any) -> jax.Array:
    """`x` in the dtype that the inputs `like` promote to: the last line of a computation.

    Args:
      x: an array of any shape.
      *like: the floating-point inputs.

    Returns:
      `x` in their common floating-point dtype.

    >>> restore(jnp.zeros(3), jnp.zeros(3, jnp.bfloat16)).dtype.name
    'bfloat16'
    """
    return x.astype(jnp.result_type(*like))
