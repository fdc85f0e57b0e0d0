"""Rotary position embedding in one and two dimensions."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import check, check_count, check_floating, check_positive, restore, upcast


class Rotary(NamedTuple):
    """The angles by which `apply_rope` turns the features of each token.

    Attributes:
      cos: cosines [length, dim] or [batch, length, dim].
      sin: sines of the same shape.
    """

    cos: Float[Array, "*B T H"]
    sin: Float[Array, "*B T H"]


Rope = Rotary | tuple[Rotary, Rotary]
"""One `Rotary` for queries and keys, or one for each."""


def _angles(positions: Array, pairs: int, base: float, endpoint: bool) -> Float[Array, "... P"]:
    """Positions * base^(-i / n) for `pairs` frequencies i, each twice for the two of a pair."""
    check_positive(base=base)
    steps = np.linspace(0, 1, pairs, endpoint=endpoint)
    positions = jnp.asarray(positions)
    # Integers with float32 would give float32 even where float64 is enabled.
    kind = positions.dtype if jnp.issubdtype(positions.dtype, jnp.floating) else float
    positions = positions.astype(jnp.promote_types(jnp.result_type(kind), jnp.float32))
    frequencies = jnp.asarray(np.repeat(float(base) ** -steps, 2), positions.dtype)
    return positions[..., None] * frequencies


def rope_1d(
    positions: Float[Array, "*B T"], dim: int, *, base: float = 10000.0, endpoint: bool = False
) -> Rotary:
    """Angles of rotary position embedding for tokens in a row.

        theta_t,i = t * base^(-2 i / dim),   i = 0 ... dim / 2 - 1

    Features 2 i and 2 i + 1 are the pair that is turned by theta_t,i. Models that pair i with
    i + dim / 2 instead, such as Llama in transformers, have the same products of queries and keys
    once the features of both (or the columns of the matrices that make them) are put in this order,
    `swapaxes(x.reshape(..., 2, dim / 2), -1, -2)`.

    Args:
      positions: token positions [length] or [batch, length], integers or floats; angles of integers
        are computed in the default floating-point dtype.
      dim: features a head; even.
      base: the base of the geometric sequence of frequencies.
      endpoint: whether the lowest frequency is 1 / base exactly.

    Returns:
      `Rotary` with cosines and sines [..., length, dim].

    Raises:
      ValueError: if `dim` is odd or `base` is not positive.

    Source: RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv 2104.09864, (34);
    values agree with lucidrains/rotary-embedding-torch and, in its order, with Llama.

    >>> rope_1d(jnp.arange(3), 4).cos.shape
    (3, 4)
    """
    check_count(dim=dim)
    check(dim % 2 == 0, "dim", f"got {dim}, takes a multiple of 2")
    angles = _angles(positions, dim // 2, base, endpoint)
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def rope_2d(
    height: int, width: int, dim: int, *, base: float = 10000.0, endpoint: bool = True
) -> Rotary:
    """Angles of rotary position embedding for an image read row by row.

    The first half of the features turns with the row, the second half with the column, each with
    dim / 4 frequencies from 1 down to 1 / base:

        theta_i = base^(-i / (dim / 4 - 1)),   i = 0 ... dim / 4 - 1

    Args:
      height: rows.
      width: columns.
      dim: features a head; a multiple of 4.
      base: the base of the geometric sequence of frequencies.
      endpoint: whether the lowest frequency is 1 / base exactly, as in the code of MALA; False for
        the spacing of RoFormer, `base^(-i / (dim / 4))`.

    Returns:
      `Rotary` with cosines and sines [height * width, dim].

    Raises:
      ValueError: if `dim` is no multiple of 4, or `height`, `width` or `base` is not positive.

    Source: Rectifying Magnitude Neglect in Linear Attention, arXiv 2507.00698; agrees with
    qhfan/MALA `classfication_release/model.py` (`RoPE`), and for `endpoint=False` with the axial
    frequencies of lucidrains/rotary-embedding-torch.

    >>> rope_2d(8, 8, 16).sin.shape
    (64, 16)
    """
    check_count(height=height, width=width, dim=dim)
    check(dim % 4 == 0, "dim", f"got {dim}, takes a multiple of 4")
    rows = jnp.repeat(jnp.arange(height), width)
    columns = jnp.tile(jnp.arange(width), height)
    angles = jnp.concatenate(
        [_angles(p, dim // 4, base, endpoint) for p in (rows, columns)], axis=-1
    )
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def apply_rope(x: Float[Array, "B T N H"], rotary: Rotary) -> Float[Array, "B T N H"]:
    """Turn each pair of features by its token's angle.

        y_{2i}   = x_{2i} cos theta_i - x_{2i+1} sin theta_i
        y_{2i+1} = x_{2i+1} cos theta_i + x_{2i} sin theta_i

    The product of two turned vectors depends on their positions through the difference alone.

    Args:
      x: [batch, length, heads, dim].
      rotary: from `rope_1d` or `rope_2d`, [length, dim] or [batch, length, dim].

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      ValueError: if `x` or the angles have the wrong shape or dtype.

    Source: RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv 2104.09864, (34).

    >>> x = jnp.ones((1, 3, 2, 4))
    >>> apply_rope(x, rope_1d(jnp.arange(3), 4))[0, 0].tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    check_floating(x=x)
    check(np.ndim(x) == 4, "x", f"got shape {np.shape(x)}, takes [batch, length, heads, dim]")
    check(isinstance(rotary, Rotary), "rotary", f"got {type(rotary).__name__}, takes a Rotary")
    batch, length, _, dim = np.shape(x)
    for angles in rotary:
        check(
            np.shape(angles) in ((length, dim), (1, length, dim), (batch, length, dim)),
            "rotary",
            f"got shape {np.shape(angles)}, takes ({length}, {dim}) or ({batch}, {length}, {dim}), "
            "the length and dim of what it turns",
        )
    x_, cos, sin = upcast(x, *rotary)
    swapped = jnp.stack([-x_[..., 1::2], x_[..., ::2]], axis=-1).reshape(x_.shape)
    return restore(x_ * cos[..., None, :] + swapped * sin[..., None, :], x)


def rope_pair(rope: Rope | None) -> tuple[Rotary, Rotary] | None:
    """The angles of queries and of keys that a `rope` argument means.

    Args:
      rope: None, a `Rotary` for both, or a pair.

    Returns:
      The pair, or None.

    Raises:
      ValueError: for anything else.
    """
    if rope is None:
        return None
    if isinstance(rope, Rotary):
        return rope, rope
    pair = tuple(rope) if isinstance(rope, tuple | list) else ()
    check(
        len(pair) == 2 and all(isinstance(r, Rotary) for r in pair),
        "rope",
        f"got {type(rope).__name__}, takes None, a Rotary or a pair of them (query, key)",
    )
    return pair[0], pair[1]
