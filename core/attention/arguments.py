"""What every attention operator checks and unpacks: shapes, groups of queries, masks."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_rank,
    check_shape,
    known_number,
    upcast,
)


class Heads(NamedTuple):
    """Queries grouped by the key head they read, and which keys exist, in accumulation dtype.

    Attributes:
      query: [batch, queries, key_heads, group, dim].
      key: [batch, keys, key_heads, dim].
      value: [batch, keys, key_heads, value_dim].
      present: [batch, keys, key_heads], 1 for a key that may be seen and 0 for a hidden one.
    """

    query: Float[Array, "B T K G H"]
    key: Float[Array, "B S K H"]
    value: Float[Array, "B S K E"]
    present: Float[Array, "B S K"]


def check_attention(
    query: Any, key: Any, value: Any, *, scale: Any = None, is_causal: Any = False
) -> None:
    """Raise unless the three arrays fit each other, and what all operators take is of its kind.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim], where key_heads divides heads.
      value: [batch, keys, key_heads, value_dim].
      scale: None, a finite number or an array of no axes, which may be traced.
      is_causal: a Python bool.

    Raises:
      ValueError: naming the argument that does not fit.
    """
    if isinstance(scale, jax.Array):
        check_shape("scale", scale, (), "[]")
    elif scale is not None:
        finite = math.isfinite(known_number("scale", scale))
        check(finite, "scale", f"got {scale}, takes a finite number")
    check(isinstance(is_causal, bool | np.bool_), "is_causal", f"got {is_causal!r}, takes a bool")
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_floating(**{name: x})
        check_rank(name, x, 4)
    batch, _, heads, dim = np.shape(query)
    check(dim > 0, "query", f"got shape {np.shape(query)}, takes 1 or more features a head")
    check_shape("key", key, (batch, None, None, dim), "[batch, keys, key_heads, dim], as query")
    _, keys, key_heads, _ = np.shape(key)
    check(
        key_heads > 0 and heads % key_heads == 0,
        "key",
        f"got {key_heads} heads, takes a number that divides the query's {heads}",
    )
    check_shape(
        "value",
        value,
        (batch, keys, key_heads, None),
        "[batch, keys, key_heads, value_dim], as key",
    )


def check_no_bias(bias: Any) -> None:
    """Raise unless `bias` is None: attention linear in the keys has no logits to add it to.

    Args:
      bias: the argument of an operator that has the common signature.

    Raises:
      ValueError: naming `bias`.
    """
    check(
        bias is None,
        "bias",
        f"got shape {np.shape(bias)}, takes None: a kernel of feature maps has no logits",
    )


def check_mask(mask: Any, query: Any, key: Any) -> None:
    """Raise unless `mask` is None or boolean and broadcasts to [batch, heads, queries, keys].

    Args:
      mask: the argument.
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].

    Raises:
      ValueError: naming `mask`.
    """
    if mask is None:
        return
    check_boolean(mask=mask)
    batch, queries, heads, _ = np.shape(query)
    shape = (batch, heads, queries, np.shape(key)[1])
    check_broadcastable("mask", mask, shape, "[batch, heads, queries, keys]")


def split_heads(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    mask: Bool[Array, "*#BNTS"] | None = None,
) -> Heads:
    """Group the queries and read the mask as one over keys.

    An operator of linear cost sums over the keys once for all queries, so it can hide a key only
    from all of them.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].
      value: [batch, keys, key_heads, value_dim].
      mask: broadcasts to [batch, heads, queries, keys] with one row for all queries.

    Returns:
      The parts; where the mask tells heads of one group apart, keys and values are repeated.

    Raises:
      ValueError: where the mask differs from query to query.
    """
    check_mask(mask, query, key)
    batch, queries, heads, dim = query.shape
    keys, key_heads = key.shape[1:3]
    query, key, value = upcast(query, key, value)
    if mask is None:
        present = jnp.ones((batch, keys, key_heads), query.dtype)
    else:
        mask = jnp.asarray(mask)
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        check(
            mask.shape[2] == 1,
            "mask",
            f"got shape {mask.shape}, takes [batch or 1, heads or 1, 1, keys]: sums over the keys "
            "are shared by all queries (is_causal=True and, at quadratic cost for any mask, "
            'implementation="quadratic" are possible where the operator has them)',
        )
        if mask.shape[1] not in (1, key_heads):
            key, value = (jnp.repeat(x, heads // key_heads, axis=2) for x in (key, value))
            key_heads = heads
        shown = jnp.broadcast_to(mask[:, :, 0, :], (batch, key_heads, keys))
        present = jnp.swapaxes(shown, 1, 2).astype(query.dtype)
    return Heads(
        query.reshape(batch, queries, key_heads, heads // key_heads, dim), key, value, present
    )


def visible(
    mask: Bool[Array, "*#BNTS"] | None,
    is_causal: bool,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
) -> Bool[Array, "B K G T S"]:
    """Which key each query sees, written out: for the quadratic forms.

    Args:
      mask: broadcasts to [batch, heads, queries, keys], or None.
      is_causal: whether query i sees the keys 0 to i only.
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].

    Returns:
      [batch, key_heads, group, queries, keys].
    """
    check_mask(mask, query, key)
    batch, queries, heads, _ = query.shape
    keys, key_heads = key.shape[1:3]
    shown = jnp.ones((batch, heads, queries, keys), bool)
    if mask is not None:
        shown &= jnp.asarray(mask)
    if is_causal:
        shown &= jnp.arange(queries)[:, None] >= jnp.arange(keys)
    return shown.reshape(batch, key_heads, heads // key_heads, queries, keys)
