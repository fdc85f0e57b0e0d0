"""Functions with a finite value and gradient where the textbook ones have a singularity.

Each puts `jnp.where` on both sides of the singular point: once on the argument, so that the
derivative is never formed there, and once on the result. NaN is no such point and goes through: a
sum that has gone wrong is to be seen.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def safe_abs(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Absolute value whose derivative at zero is zero, between those on either side.

    That of `jnp.abs` is one, which pulls at an error of exactly zero.

    Args:
      x: array of any shape [...].

    Returns:
      `|x|` [...].

    >>> float(jax.grad(safe_abs)(0.0))
    0.0
    """
    return x * jnp.sign(x)


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root whose value and derivatives at and below zero are zero.

    Args:
      x: array of any shape [...].

    Returns:
      The root [...], zero where `x <= 0`.

    >>> float(jax.grad(safe_sqrt)(0.0))
    0.0
    """
    x = jnp.asarray(x)
    outside = x <= 0
    return jnp.where(outside, 0, jnp.sqrt(jnp.where(outside, 1, x)))


def safe_log(x: Float[Array, "..."], floor: float | None = None) -> Float[Array, "..."]:
    """Logarithm that is constant at and below `floor`, with derivative zero there.

    Args:
      x: array of any shape [...].
      floor: the smallest argument; by default the smallest normal number of the dtype.

    Returns:
      `log(max(x, floor))` [...].

    >>> bool(jnp.isfinite(safe_log(jnp.array(0.0))))
    True
    """
    x = jnp.asarray(x)
    low = jnp.asarray(jnp.finfo(x.dtype).tiny if floor is None else floor, x.dtype)
    below = x <= low
    return jnp.where(below, jnp.log(low), jnp.log(jnp.where(below, 1, x)))


def safe_divide(
    numerator: Float[Array, "..."], denominator: Float[Array, "..."], fill: float = 0.0
) -> Float[Array, "..."]:
    """Quotient that is `fill`, with derivative zero, where the denominator is zero.

    Args:
      numerator: array [...].
      denominator: array [...], broadcast against the numerator.
      fill: the value where the denominator is zero.

    Returns:
      The quotient [...].

    >>> float(safe_divide(1.0, 0.0))
    0.0
    """
    numerator, denominator = jnp.asarray(numerator), jnp.asarray(denominator)
    zero = denominator == 0
    return jnp.where(zero, fill, numerator / jnp.where(zero, 1, denominator))


def safe_norm(
    x: Float[Array, "..."],
    axis: int | tuple[int, ...] | None = -1,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """Euclidean norm that neither overflows nor underflows and has derivative zero at zero.

    Args:
      x: array of any shape [...].
      axis: axis or axes to reduce; all for `None`.
      keepdims: keep the reduced axes with length one.

    Returns:
      The norms, `x` without `axis`.

    >>> print(f"{safe_norm(jnp.array([3e30, 4e30], jnp.float32)):.3g}")
    5e+30
    """
    x = jnp.asarray(x)
    # Dividing by the largest entry keeps the squares in range. The scale cancels, so its gradient
    # does too, and stopping it is exact.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0))
    scale = jnp.where(largest > 0, largest, 1)
    norm = safe_sqrt(jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True)) * scale
    return norm if keepdims else jnp.squeeze(norm, axis=axis)


def safe_normalize(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Unit vectors along `axis`; a zero vector stays zero, with derivative zero.

    Args:
      x: array of any shape [...].
      axis: the axis to normalize over.

    Returns:
      Array of the same shape [...], of norm one or zero along `axis`.

    >>> safe_normalize(jnp.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """
    return safe_divide(x, safe_norm(x, axis=axis, keepdims=True))
