"""Feature maps of linear attention, and causal sums over keys in chunks."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import check

FeatureMap = Literal["elu", "relu"] | Callable[[Array], Array]


def _elu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    # exp(x) itself and not expm1(x) + 1, which rounds small features to multiples of 6e-8.
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


_MAPS: dict[str, Callable[[Array], Array]] = {"elu": _elu, "relu": jax.nn.relu}


def feature_map_of(feature_map: FeatureMap) -> Callable[[Array], Array]:
    """The function that a `feature_map` argument means.

    Args:
      feature_map: "elu" for elu(x) + 1, "relu", or a function of arrays [..., dim].

    Returns:
      The function.

    Raises:
      ValueError: for another name.
    """
    if callable(feature_map):
        return feature_map
    check(
        feature_map in _MAPS,
        "feature_map",
        f"got {feature_map!r}, takes {', '.join(map(repr, _MAPS))} or a function",
    )
    return _MAPS[feature_map]


def causal_sums(
    query: Float[Array, "B T K G H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K E"],
    initial: Float[Array, "B K H E"],
    chunk_size: int,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[Float[Array, "B T K G E"], Float[Array, "B K H E"]]:
    """`q_i . (initial + sum_{j <= i} k_j v_j^T)` for every i, in time linear in T.

    The sum over whole chunks before i is a state [H, E]; the sum inside the chunk is a product of
    a triangular [chunk, chunk] matrix with the values.

    Args:
      query: [batch, length, key_heads, group, dim].
      key: [batch, length, key_heads, dim].
      value: [batch, length, key_heads, value_dim].
      initial: [batch, key_heads, dim, value_dim].
      chunk_size: tokens a chunk.
      precision: of the products.

    Returns:
      The sums [batch, length, key_heads, group, value_dim] and the state after the last token.

    Raises:
      ValueError: if `chunk_size` is not a positive integer.
    """
    check(
        isinstance(chunk_size, int | np.integer) and chunk_size > 0,
        "chunk_size",
        f"got {chunk_size!r}, takes an integer above 0",
    )
    length = key.shape[1]
    size = min(int(chunk_size), max(length, 1))
    chunks = -(-length // size)

    def cut(x: Array) -> Array:  # [batch, length, ...] -> [chunks, batch, size, ...]
        x = jnp.pad(x, ((0, 0), (0, chunks * size - length)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], chunks, size, *x.shape[2:]), 1, 0)

    def product(equation: str, *arrays: Array) -> Array:
        return jnp.einsum(equation, *arrays, precision=precision)

    lower = np.tril(np.ones((size, size), bool))

    def one(state: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = chunk
        scores = jnp.where(lower, product("btkgh,bskh->bkgts", q, k), 0)
        inside = product("bkgts,bske->btkge", scores, v)
        before = product("btkgh,bkhe->btkge", q, state)
        return state + product("bskh,bske->bkhe", k, v), before + inside

    # A sum over no tokens: zero, but varying over the same mesh axes as the inputs, which the
    # carry of a scan inside shard_map must.
    initial = initial + product("bskh,bske->bkhe", key[:, :0], value[:, :0])
    # Scores are formed again in the backward pass, which then keeps one state a chunk and no more.
    last, out = jax.lax.scan(
        jax.checkpoint(one, prevent_cse=False), initial, (cut(query), cut(key), cut(value))
    )
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], chunks * size, *out.shape[3:])[:, :length], last


def align(length: int, *arrays: Float[Array, "B S ..."]) -> tuple[Float[Array, "B T ..."], ...]:
    """The arrays cut or zero-padded along the keys to one key a query, for causal sums.

    Query i sees the keys 0 to i, as in `jax.nn.dot_product_attention`: keys after the last query
    are seen by none, and queries after the last key see all.

    Args:
      length: the number of queries.
      *arrays: [batch, keys, ...].

    Returns:
      The arrays [batch, length, ...].
    """

    def one(x: Array) -> Array:
        missing = max(length - x.shape[1], 0)
        return jnp.pad(x[:, :length], ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))

    return tuple(one(x) for x in arrays)
