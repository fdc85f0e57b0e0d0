"""Exponentials as pairs (mantissa, exponent), which neither overflow nor need a maximum.

    exp(x) = m 2^n,   n = round(x / log 2),   m = exp(x - n log 2) in [sqrt(1/2), sqrt(2)]

n is kept as a float: it grows like x and would overflow an integer.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...numerics import check_floating, upcast

# Minimax polynomial of degree 5 for exp on [-log(2) / 2, log(2) / 2], to float32's precision.
COEFFICIENTS = (
    float.fromhex("0x1.0F9F9Cp-7"),
    float.fromhex("0x1.573A1Ap-5"),
    float.fromhex("0x1.555A80p-3"),
    float.fromhex("0x1.FFFDC6p-2"),
    float.fromhex("0x1.FFFFF6p-1"),
    1.0,
)
# Far below the exponent of any finite number, and finite: differences of two are zero.
NOTHING = -3.0e38


def parts_of_log_2(dtype: Any) -> tuple[float, float, float]:
    """Three parts of log 2; the first two have so few bits that products with n are exact.

    They are for |n| below 2^15 in float32 and 2^21 in float64.
    """
    one = 2.0 ** (9 if jnp.dtype(dtype).itemsize == 4 else 32)
    high = round(math.log(2) * one) / one
    middle = round((math.log(2) - high) * one * one) / (one * one)
    return high, middle, math.log(2) - high - middle


def minus_log_2_times(x: Float[Array, "..."], n: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x - n log 2` without cancellation."""
    for part in parts_of_log_2(x.dtype):
        x = x - n * part
    return x


def power_of_two(n: Float[Array, "..."]) -> Float[Array, "..."]:
    """2^n for whole n of 0 or less, exactly; zero where it would not be a normal number."""
    bits = 23 if n.dtype == jnp.float32 else 52
    lowest = 127.0 if bits == 23 else 1023.0
    kind = jnp.int32 if bits == 23 else jnp.int64
    shifted = (jnp.maximum(n, -lowest) + lowest).astype(kind)
    return jax.lax.bitcast_convert_type(jax.lax.shift_left(shifted, kind(bits)), n.dtype)


def split(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """`extended_exp` of float32 or float64; (0, `NOTHING`) for minus infinity."""
    there = x != -jnp.inf
    x = jnp.where(there, x, 0)
    # Beyond 2e38 the quotient would overflow.
    n = jnp.round(jnp.clip(x, -2e38, 2e38) * (1 / math.log(2)))
    # Where x has a spacing of its own above log 2, t is no longer known.
    t = jnp.clip(minus_log_2_times(x, n), -0.35, 0.35)
    if x.dtype == jnp.float32:
        m = jnp.full_like(t, COEFFICIENTS[0])
        for c in COEFFICIENTS[1:]:
            m = m * t + c
    else:
        m = jnp.exp(t)
    return jnp.where(there, m, 0), jnp.where(there, n, NOTHING)


def combine(
    a: tuple[Float[Array, "..."], Float[Array, "..."]],
    b: tuple[Float[Array, "..."], Float[Array, "..."]],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """`extended_add` without checks."""
    n = jnp.maximum(a[1], b[1])
    return a[0] * power_of_two(a[1] - n) + b[0] * power_of_two(b[1] - n), n


def extended_exp(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The exponential as a pair (mantissa, exponent) that no finite argument overflows.

        exp(x) = m 2^n,   n = round(x / log 2),   m in [sqrt(1/2), sqrt(2)]

    In float32 m is a polynomial of degree 5. n is subtracted from x in three parts, exactly for
    |x| up to 2e4 (1e6 in float64); beyond, the error of m grows with the spacing of x. Its
    derivatives are those of the formulas, where n is constant; `two_pass_softmax` has its own.

    Args:
      x: [...]; minus infinity is taken for the exponential of nothing, (0, -3e38).

    Returns:
      m and n [...], in float32, or float64 where x is; n is whole.

    Raises:
      ValueError: if x is not floating point.

    Source: The Two-Pass Softmax Algorithm, arXiv 2001.04438, section 4, algorithm 3; compared with
    google/XNNPACK `src/f32-raddextexp/avx2-p5.c.in`, whose polynomial this is. There log 2 has two
    parts, since products are fused with sums.

    >>> m, n = extended_exp(jnp.array([0.0, 1000.0]))
    >>> m.round(3).tolist(), n.tolist()
    ([1.0, 0.8090000152587891], [0.0, 1443.0])
    """
    check_floating(x=x)
    return split(upcast(x))


def extended_add(
    a: tuple[Float[Array, "..."], Float[Array, "..."]],
    b: tuple[Float[Array, "..."], Float[Array, "..."]],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The sum of two numbers in the representation of `extended_exp`.

        m_1 2^n_1 + m_2 2^n_2 = (m_1 2^(n_1 - n) + m_2 2^(n_2 - n)) 2^n,   n = max(n_1, n_2)

    Commutative, and associative up to rounding: sums may be taken in any order, over blocks or
    devices. A summand 2^-127 times the other (2^-1023 in float64) is dropped.

    Args:
      a: mantissas and exponents, each [...].
      b: mantissas and exponents, each [...].

    Returns:
      Mantissas and exponents [...]; mantissas grow with the number of summands.

    Raises:
      ValueError: if a part is not floating point.

    Source: The Two-Pass Softmax Algorithm, arXiv 2001.04438, algorithm 3; compared with
    google/XNNPACK `src/f32-raddextexp/avx2-p5.c.in`.

    >>> m, n = extended_add(extended_exp(jnp.float32(1000.0)), extended_exp(jnp.float32(1000.0)))
    >>> round(float(jnp.log(m) + n * jnp.log(2.0) - 1000), 3)  # log 2
    0.693
    """
    check_floating(a=a[0], b=b[0])
    check_floating(a=a[1], b=b[1])
    parts = upcast(*a, *b)
    return combine((parts[0], parts[1]), (parts[2], parts[3]))
