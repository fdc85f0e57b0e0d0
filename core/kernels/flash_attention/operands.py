"""The operands that all implementations of attention share, and which key a query sees.

Letters of shapes: B batch, K key heads, G queries' heads per key head (N = K G), T queries, S keys,
H head dim, E value dim. Axes of length one in `bias` and `mask` are shared.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Inputs(NamedTuple):
    """What attention is differentiated in.

    Attributes:
      query: [B, K, G, T, H].
      key: [B, K, S, H].
      value: [B, K, S, E].
      bias: [B or 1, K or 1, G or 1, T or 1, S or 1], or None.
    """

    query: Any
    key: Any
    value: Any
    bias: Any = None


class Masks(NamedTuple):
    """Integers and booleans that hide keys from queries, and the seed of dropout.

    Attributes:
      mask: bool [B or 1, K or 1, G or 1, T or 1, S or 1]; True shows.
      query_segments: int32 [B, T]; a query sees the keys of its segment.
      key_segments: int32 [B, S].
      query_lengths: int32 [B].
      key_lengths: int32 [B].
      offset: int32 []; query i stands at position i + offset among the keys.
      seed: int32 [2] of dropout.
      origin: int32 [2], the place of the first query and of the first key for dropout; zeros for
        None.
    """

    mask: Any = None
    query_segments: Any = None
    key_segments: Any = None
    query_lengths: Any = None
    key_lengths: Any = None
    offset: Any = None
    seed: Any = None
    origin: Any = None


class Output(NamedTuple):
    """Attention and, per query, log-sum-exp = shift + logsum of its logits.

    Two numbers hold it because in one, a large shift (an additive mask of -1e9, say) would swallow
    the small logarithm. The shift is constant by declaration, so d lse = d logsum. A query that
    sees no key has out 0, shift 0 and logsum -inf.

    Attributes:
      out: [B, K, G, T, E].
      shift: [B, K, G, T].
      logsum: [B, K, G, T].
    """

    out: Any
    shift: Any
    logsum: Any


@dataclasses.dataclass(frozen=True)
class Config:
    """What is known when the program is traced.

    Attributes:
      scale: factor of the logits.
      causal: query i sees the keys up to position i.
      window: (left, right), how far a query sees to each side; None for no end.
      cap: logits become cap tanh(logits / cap) before the bias is added; None for no cap.
      dropout: the probability that a weight is zeroed.
      implementation: a name, or None for the best on the platform lowered for.
      precision: of matrix products of float32, as in `jax.lax.dot_general`.
      blocks: (queries, keys) in a tile; None for what suits the platform.
    """

    scale: float
    causal: bool = False
    window: tuple[int | None, int | None] | None = None
    cap: float | None = None
    dropout: float = 0.0
    implementation: str | None = None
    precision: Any = None
    blocks: tuple[int, int] | None = None

    @property
    def span(self) -> tuple[int | None, int | None]:
        """How far a query sees to the left and to the right, causality included."""
        left, right = self.window or (None, None)
        return left, 0 if self.causal and (right is None or right > 0) else right


def in_span(rows: Any, cols: Any, span: tuple[int | None, int | None]) -> Any:
    """Whether the query at position `rows` sees the key at `cols`; None where all do."""
    left, right = span
    seen = None
    if left is not None:
        seen = cols >= rows - left
    if right is not None:
        near = cols <= rows + right
        seen = near if seen is None else seen & near
    return seen


def shown_by_all(parts: list[Any]) -> Any:
    """What every one of the boolean arrays shows; None, among them too, stands for everything."""
    return functools.reduce(lambda a, b: b if a is None else a if b is None else a & b, parts)


def tiles_in_span(
    queries: int, keys: int, blocks: tuple[int, int], span: tuple[int | None, int | None]
) -> np.ndarray:
    """The tiles (i, j) in which some query sees some key, in row-major order: int32 [tiles, 2]."""
    bq, bk = blocks
    i, j = np.mgrid[: -(-queries // bq), : -(-keys // bk)]
    first_row, last_row = i * bq, np.minimum((i + 1) * bq, queries) - 1
    first_col, last_col = j * bk, np.minimum((j + 1) * bk, keys) - 1
    left, right = span
    seen = np.ones(i.shape, bool)
    if left is not None:
        seen &= last_col >= first_row - left
    if right is not None:
        seen &= first_col <= last_row + right
    return np.stack([i[seen], j[seen]], -1).astype(np.int32)


def kept(seed: Any, batch: Any, head: Any, row: Any, col: Any, rate: float, dtype: Any) -> Any:
    """Dropout's factor of each weight: 0 with probability `rate`, else 1 / (1 - rate).

    A hash of the weight's place, so that it does not depend on tiles or on the implementation.
    Signed integers that wrap around stand for unsigned ones, which not every compiler compares.

    Args:
      seed: two int32.
      batch: int32, broadcast with the three others.
      head: int32.
      row: int32, the query.
      col: int32, the key.
      rate: in [0, 1).
      dtype: of the result.

    Returns:
      The factors in the broadcast shape.

    Source: M. Jarzynski, M. Olano, Hash Functions for GPU Rendering (JCGT 2020), pcg4d.
    """
    place = (row ^ seed[0], col, head ^ seed[1], batch)
    x, y, z, w = (jnp.asarray(v, jnp.int32) * 1664525 + 1013904223 for v in place)
    for last in (False, True):
        x = x + y * w
        y = y + z * x
        z = z + x * y
        w = w + y * z
        if not last:
            x, y, z, w = (v ^ jax.lax.shift_right_logical(v, _like(16, v)) for v in (x, y, z, w))
    threshold = min(round(rate * 2**32), 2**32 - 1) - 2**31
    survives = (w ^ _like(-(2**31), w)) >= threshold
    return jnp.where(survives, jnp.asarray(1 / (1 - rate), dtype), jnp.zeros((), dtype))


def _like(number: int, x: Any) -> Any:
    return jnp.full_like(x, number)


def logits_dtype(x: Inputs) -> Any:
    """float32, or float64 where the inputs are."""
    return jnp.promote_types(jnp.float32, jnp.result_type(x.query))


def struct(x: Inputs) -> Output:
    """The shapes of the output, as `jax.ShapeDtypeStruct`."""
    rows = jax.ShapeDtypeStruct(x.query.shape[:-1], logits_dtype(x))
    out = jax.ShapeDtypeStruct((*rows.shape, x.value.shape[-1]), x.query.dtype)
    return Output(out, rows, rows)
