"""What the sums of linear attention take and give, in the layout of the kernels.

Letters of shapes: B batch, K key heads, T queries, S keys, F features, E value dim. On each side
several rows stand at one place in time: P queries, which each get a sum, and R keys, over which the
sum also runs.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax

Direction = Literal["all", "past", "future"]
TURNED: dict[Direction, Direction] = {"all": "all", "past": "future", "future": "past"}


class Inputs(NamedTuple):
    """What the sums are differentiated in, all of one dtype.

    Attributes:
      query: [B, K, P, T, F], features of the queries.
      key: [B, K, R, S, F], features of the keys; zeros hide one.
      value: [B, K, R, S, E].
      initial: [B, K, F, E], the state before any key.
    """

    query: Any
    key: Any
    value: Any
    initial: Any


class Sums(NamedTuple):
    """What becomes of them.

    Attributes:
      out: [B, K, P, T, E], q_i . (initial + sum_j k_j v_j^T) over the keys that query i sees.
      final: [B, K, F, E], initial + sum_j k_j v_j^T over all keys.
    """

    out: Any
    final: Any


@dataclasses.dataclass(frozen=True)
class Config:
    """What is known when the program is traced.

    Attributes:
      direction: the keys j that query i sees: "all", those of the "past" (j <= i) or those of the
        "future" (j >= i). The last two take as many keys as queries.
      operands: the dtype of the factors of matrix products, a name; sums are in that of the arrays.
      chunk: tokens a chunk; None for what suits the shapes and the chip's memory.
      precision: of matrix products of float32, as in `jax.lax.dot_general`.
      implementation: a name.
    """

    direction: Direction = "past"
    operands: str = "float32"
    chunk: int | None = None
    precision: Any = None
    implementation: str = "pallas_tpu"

    @property
    def turned(self) -> "Config":
        """The same with time running the other way, as derivatives in keys and values have it."""
        return dataclasses.replace(self, direction=TURNED[self.direction])


def struct(x: Inputs) -> Sums:
    """The shapes of the sums, as `jax.ShapeDtypeStruct`."""
    shape, dtype = (*x.query.shape[:-1], x.value.shape[-1]), x.query.dtype
    return Sums(jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(x.initial.shape, dtype))
