"""Feature maps of linear attention, and sums over keys, chunk by chunk or by kernels."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels import linear_attention as kernels
from ..kernels.op import vary_alike
from ..numerics import accumulation_dtype, check

FeatureMap = Literal["elu", "relu"] | Callable[[Array], Array]

CHUNK = 128
"""Tokens a chunk of the causal form, where it is not said how many."""

PIECE = 4096
"""Tokens a chunk where every query sees every key: sums need no products within a chunk."""


def _elu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    # exp(x) itself and not expm1(x) + 1, which rounds small features to multiples of 6e-8; and not
    # of `minimum(x, 0)`, whose derivative at zero is a half.
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


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


def configure(
    implementation: str,
    is_causal: bool,
    chunk_size: int | None,
    precision: jax.lax.PrecisionLike,
    *arrays: Array,
) -> kernels.Config:
    """How sums over keys are computed: what the kernels take, and the scans of this room read.

    Args:
      implementation: as in `linear_attention`.
      is_causal: whether query i sees the keys 0 to i.
      chunk_size: tokens a chunk, or None.
      precision: of the products.
      *arrays: query, key and value as they were given.

    Returns:
      The configuration.

    Raises:
      ValueError: if `chunk_size` is not a positive integer.
    """
    whole = isinstance(chunk_size, int | np.integer) and chunk_size > 0
    takes = f"got {chunk_size!r}, takes an integer above 0, or None"
    check(chunk_size is None or whole, "chunk_size", takes)
    half = jnp.result_type(*arrays) == jnp.bfloat16
    return kernels.Config(
        direction="past" if is_causal else "all",
        operands="bfloat16" if half else accumulation_dtype(*arrays).name,
        chunk=None if chunk_size is None else int(chunk_size),
        precision=precision,
        implementation=implementation,
    )


def kernel_products(
    query: Float[Array, "B T K G H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    initial: Float[Array, "B K H E"],
    config: kernels.Config,
) -> tuple[Float[Array, "B T K G E"], Float[Array, "B K H E"]]:
    """`q_i . (initial + sum_j k_j v_j^T)` over the keys that query i sees, by kernels.

    Args:
      query: [batch, queries, key_heads, group, dim].
      key: [batch, keys, key_heads, dim].
      value: [batch, keys, key_heads, value_dim].
      initial: the state before any key [batch, key_heads, dim, value_dim].
      config: which keys, and how.

    Returns:
      The sums [batch, queries, key_heads, group, value_dim], and the state after all keys.
    """
    key, value = (jnp.swapaxes(x, 1, 2)[:, :, None] for x in (key, value))
    x = kernels.Inputs(jnp.moveaxis(query, 1, 3), key, value, initial)
    out, final = kernels.linear_attention(x, config)
    return jnp.moveaxis(out, 3, 1), final


def scan_chunks(
    step: Callable[..., tuple[Any, Any]],
    state: Any,
    arrays: Sequence[Array],
    chunk_size: int | None,
) -> tuple[Any, Any]:
    """`state, out = step(state, *chunk)` for one chunk of tokens after the other.

    What a chunk computes is computed again in the backward pass, so that all that is kept between
    the passes is the state before each chunk.

    Args:
      step: takes the state and a chunk [batch, chunk, ...] of each array; its output is a pytree
        of arrays, or None.
      state: a pytree of arrays.
      arrays: [batch, length, ...]; the last chunk is filled up with zeros.
      chunk_size: tokens a chunk; `CHUNK` for None.

    Returns:
      The state after the last chunk, and the outputs [batch, length, ...] or None.
    """
    length = arrays[0].shape[1]
    size = min(chunk_size or CHUNK, max(length, 1))
    chunks = -(-length // size)

    def cut(x: Array) -> Array:  # [batch, length, ...] -> [chunks, batch, size, ...]
        x = jnp.pad(x, ((0, 0), (0, chunks * size - length)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], chunks, size, *x.shape[2:]), 1, 0)

    def join(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], chunks * size, *x.shape[3:])[:, :length]

    def one(state: Any, chunk: tuple[Array, ...]) -> tuple[Any, Any]:
        return step(state, *chunk)

    # Inside shard_map the carry of a scan must vary over the mesh axes that its inputs vary over.
    leaves, tree = jax.tree.flatten((state, tuple(map(cut, arrays))))
    state, pieces = jax.tree.unflatten(tree, vary_alike(*leaves))
    last, out = jax.lax.scan(jax.checkpoint(one, prevent_cse=False), state, pieces)
    return last, jax.tree.map(join, out)


def chunk_sums(
    query: Float[Array, "B T K G H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K E"],
    initial: Float[Array, "B K H E"],
    precision: jax.lax.PrecisionLike = None,
) -> tuple[Float[Array, "B T K G E"], Float[Array, "B K G T S"], Float[Array, "B K H E"]]:
    """`q_i . (initial + sum_{j <= i} k_j v_j^T)` for every i of one chunk.

    Args:
      query: [batch, chunk, key_heads, group, dim].
      key: [batch, chunk, key_heads, dim].
      value: [batch, chunk, key_heads, value_dim].
      initial: the sum over the chunks before [batch, key_heads, dim, value_dim].
      precision: of the products.

    Returns:
      The sums [batch, chunk, key_heads, group, value_dim], the products of queries with keys of the
      chunk up to theirs [batch, key_heads, group, chunk, chunk], and the state after the chunk.
    """

    def product(equation: str, *arrays: Array) -> Array:
        return jnp.einsum(equation, *arrays, precision=precision)

    lower = np.tril(np.ones((key.shape[1],) * 2, bool))
    scores = jnp.where(lower, product("btkgh,bskh->bkgts", query, key), 0)
    out = product("bkgts,bske->btkge", scores, value)
    out = out + product("btkgh,bkhe->btkge", query, initial)
    return out, scores, initial + product("bskh,bske->bkhe", key, value)


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
