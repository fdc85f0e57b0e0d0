"""Softmax attention, differentiable to second order without a matrix of weights in memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..kernels.flash_attention import Config, Inputs, Masks, Output, attention
from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_integer,
    check_key,
    check_positive,
    check_range,
    check_shape,
    known_number,
)
from .arguments import check_attention

Window = int | tuple[int | None, int | None]


def _is_whole(n: Any) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool)


def _window(window: Window | None) -> tuple[int | None, int | None] | None:
    if window is None:
        return None
    sides: Any = tuple(window) if isinstance(window, tuple | list) else (window, window)
    check(
        len(sides) == 2 and all(s is None or (_is_whole(s) and s >= 0) for s in sides),
        "local_window_size",
        f"got {window!r}, takes an integer or a pair (left, right) of integers from 0, or None",
    )
    left, right = (None if s is None else int(s) for s in sides)
    return left, right


def _pairwise(x: Any, groups: tuple[int, int]) -> Any:
    """[..., N, T, S] with up to four axes as [B, K, G, T, S]."""
    x = jnp.asarray(x)
    x = x.reshape((1,) * (4 - x.ndim) + x.shape)
    heads = (1, 1) if x.shape[1] == 1 else groups
    return x.reshape(x.shape[0], *heads, *x.shape[2:])


def _lengths(name: str, x: Any, batch: int) -> Any:
    """Check lengths of sequences.

    Args:
      name: of the argument.
      x: [batch] integers, an array or, as in `jax.nn`, a list; or None.
      batch: examples.

    Returns:
      int32 [batch], or None.

    Raises:
      ValueError: naming the argument.
    """
    if x is None:
        return None
    x = np.asarray(x) if isinstance(x, list | tuple) else x
    check_integer(**{name: x})
    check_shape(name, x, (batch,), "[batch]")
    return jnp.asarray(x, jnp.int32)


def _segments(query_ids: Any, key_ids: Any, batch: int, queries: int, keys: int) -> Any:
    names = "query_segment_ids", "key_value_segment_ids"
    if query_ids is None and key_ids is None:
        return None, None
    for name, x, size, of in zip(names, (query_ids, key_ids), (queries, keys), ("queries", "keys")):
        check(x is not None, name, "got None, takes segments, as the other side has them")
        check_integer(**{name: x})
        check_shape(name, x, (batch, size), f"[batch, {of}]")
    return jnp.asarray(query_ids, jnp.int32), jnp.asarray(key_ids, jnp.int32)


def _tiles(tiles: Any) -> tuple[int, int] | None:
    if tiles is None:
        return None
    pair = tuple(tiles) if isinstance(tiles, tuple | list) else ()
    whole = all(_is_whole(n) and n > 0 for n in pair)
    takes = f"got {tiles!r}, takes a pair (queries, keys) of integers above 0, or None"
    check(len(pair) == 2 and whole, "tiles", takes)
    return int(pair[0]), int(pair[1])


def _check_pairs(name: str, x: Any, full: tuple[int, ...], keys: int) -> None:
    """Raise unless `x` broadcasts to the logits `full`, or to `keys` keys alike for all queries."""
    if full[3] == keys:
        return check_broadcastable(name, x, full, "[batch, heads, queries, keys]")
    shape = (1,) * (4 - np.ndim(x)) + np.shape(x)
    if len(shape) == 4 and shape[2:] == (1, keys):
        full = (*full[:2], 1, keys)
    label = "[batch, heads, queries, keys of all devices], or [batch, heads, 1, keys]"
    return check_broadcastable(name, x, full, label)


def prepare(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    mask: Any,
    *,
    scale: Any,
    is_causal: bool,
    query_seq_lengths: Any,
    key_value_seq_lengths: Any,
    local_window_size: Window | None,
    query_segment_ids: Any,
    key_value_segment_ids: Any,
    logits_soft_cap: float | None,
    sinks: Any,
    dropout_rate: float,
    dropout_rng: Any,
    tiles: Any,
    implementation: str | None,
    precision: Any,
    devices: int = 1,
) -> tuple[Inputs, Masks, Config]:
    """Check the arguments that softmax attention takes in all its forms, and lay them out.

    Args:
      query: [batch, queries, heads, dim].
      key: [batch, keys, key_heads, dim].
      value: [batch, keys, key_heads, value_dim].
      bias: as in `dot_product_attention`, and so are the others.
      mask: which keys are seen.
      scale: factor of the logits.
      is_causal: whether query i sees the keys 0 to i.
      query_seq_lengths: [batch].
      key_value_seq_lengths: [batch].
      local_window_size: how far a query sees.
      query_segment_ids: [batch, queries].
      key_value_segment_ids: [batch, keys].
      logits_soft_cap: bound of the logits.
      sinks: [heads].
      dropout_rate: the probability that a weight is zeroed.
      dropout_rng: a key.
      tiles: (queries, keys) in a tile.
      implementation: a name.
      precision: of products.
      devices: how many hold keys; `bias` and `mask` may have those of all.

    Returns:
      What the kernels take.

    Raises:
      ValueError: naming an argument that does not fit.
    """
    check_attention(query, key, value, scale=scale, is_causal=is_causal)
    batch, queries, heads, dim = query.shape
    keys, key_heads = key.shape[1:3]
    if logits_soft_cap is not None:
        logits_soft_cap = known_number("logits_soft_cap", logits_soft_cap)
        check_positive(logits_soft_cap=logits_soft_cap)
    if sinks is not None:
        check_floating(sinks=sinks)
        check_shape("sinks", sinks, (heads,), "[heads]")
    if scale is None:
        scale = 1 / math.sqrt(dim)
    dtype = jnp.result_type(query, key, value)
    query, key, value = (jnp.asarray(x, dtype) for x in (query, key, value))
    if isinstance(scale, jax.Array):
        query, scale = (query * scale).astype(dtype), 1.0
    groups = key_heads, heads // key_heads
    x = Inputs(
        jnp.transpose(query.reshape(batch, queries, *groups, dim), (0, 2, 3, 1, 4)),
        jnp.swapaxes(key, 1, 2),
        jnp.swapaxes(value, 1, 2),
    )
    full = batch, heads, queries, devices * keys
    if bias is not None:
        check_floating(bias=bias)
        _check_pairs("bias", bias, full, keys)
        x = x._replace(bias=_pairwise(bias, groups))
    if mask is not None:
        check_boolean(mask=mask)
        _check_pairs("mask", mask, full, keys)
    dropout_rate = known_number("dropout_rate", dropout_rate)
    check_range("dropout_rate", dropout_rate, 0, 1, open_high=True)
    if dropout_rate:
        check_key(dropout_rng=dropout_rng)
    segments = _segments(query_segment_ids, key_value_segment_ids, batch, queries, keys)
    masks = Masks(
        mask=None if mask is None else _pairwise(mask, groups),
        query_segments=segments[0],
        key_segments=segments[1],
        query_lengths=_lengths("query_seq_lengths", query_seq_lengths, batch),
        key_lengths=_lengths("key_value_seq_lengths", key_value_seq_lengths, batch),
    )
    if dropout_rate:
        bits = jax.random.bits(dropout_rng, (2,), jnp.uint32)
        masks = masks._replace(seed=jax.lax.bitcast_convert_type(bits, jnp.int32))
    config = Config(
        scale=float(scale),
        causal=bool(is_causal),
        window=_window(local_window_size),
        cap=logits_soft_cap,
        dropout=dropout_rate,
        implementation=implementation,
        precision=precision,
        blocks=_tiles(tiles),
    )
    return x, masks, config


def results(y: Output, sinks: Any) -> tuple[Any, Any]:
    """The attention [batch, queries, heads, value_dim] and log-sum-exp [batch, queries, heads].

    A sink is one more key, of logit `sinks` and value zero: it takes its share of the weights.
    """
    lse = jax.lax.stop_gradient(y.shift) + y.logsum
    out, lse = (jnp.moveaxis(a, 3, 1) for a in (y.out, lse))
    heads = math.prod(lse.shape[2:])
    out, lse = (a.reshape(*a.shape[:2], heads, *a.shape[4:]) for a in (out, lse))
    if sinks is None:
        return out, lse
    sinks = jnp.asarray(sinks, lse.dtype)
    gap = lse - sinks
    scaled = jax.nn.sigmoid(gap)[..., None] * out.astype(lse.dtype)
    return scaled.astype(out.dtype), sinks + jax.nn.softplus(gap)


def dot_product_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K E"],
    bias: Float[Array, "*#BNTS"] | None = None,
    mask: Bool[Array, "*#BNTS"] | None = None,
    *,
    scale: float | Float[Array, ""] | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, "B"] | None = None,
    key_value_seq_lengths: Int[Array, "B"] | None = None,
    local_window_size: Window | None = None,
    query_segment_ids: Int[Array, "B T"] | None = None,
    key_value_segment_ids: Int[Array, "B S"] | None = None,
    logits_soft_cap: float | None = None,
    sinks: Float[Array, "N"] | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Any = None,
    return_lse: bool = False,
    return_residual: bool = False,
    tiles: tuple[int, int] | None = None,
    implementation: str | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Any:
    """Softmax attention, with kernels for its first and second derivatives.

        out_i = sum_j P_ij v_j,   P_ij = exp(S_ij - lse_i),   lse_i = log sum_j exp(S_ij)
        S_ij = scale q_i . k_j + bias_ij,   or cap tanh(scale q_i . k_j / cap) + bias_ij

    The signature is that of `jax.nn.dot_product_attention` with more options. `jax.jvp`, `jax.grad`
    and every nesting of the two, such as Hessian-vector products, run tile by tile in memory linear
    in the number of tokens; orders beyond the second fall back to plain differentiation. A query
    that sees no key yields zeros, and its derivatives are zero.

    Args:
      query: [batch, queries, heads, dim], or without the batch axis.
      key: [batch, keys, key_heads, dim]; key_heads divides heads, and query head n reads key head
        n // (heads / key_heads).
      value: [batch, keys, key_heads, value_dim].
      bias: added to the logits; broadcasts to [batch, heads, queries, keys].
      mask: boolean, True shows; broadcasts to [batch, heads, queries, keys].
      scale: factor of the logits; 1 / sqrt(dim) for None. An array is differentiated.
      is_causal: query i sees the keys 0 to i, also where the lengths differ, as in `jax.nn` and
        PyTorch. For the last query to see the last key, as in flash-attn from 2.1 on, set
        `local_window_size=(None, keys - queries)` instead.
      query_seq_lengths: [batch]; later queries are padding and yield zeros.
      key_value_seq_lengths: [batch]; later keys are padding and hidden.
      local_window_size: (left, right), how far query i sees from key i, or one number for both
        sides; None in a side's place for no end. A sliding window of w tokens, which counts the
        query's own as in gpt-oss, is (w - 1, 0).
      query_segment_ids: [batch, queries]; a query sees only keys of its own segment.
      key_value_segment_ids: [batch, keys].
      logits_soft_cap: bounds the logits to +-cap, before the bias is added.
      sinks: [heads], logits of a key with value zero that every query sees, masked or not.
      dropout_rate: the probability with which a weight is set to zero; the others are divided by
        1 - rate.
      dropout_rng: a key of `jax.random`, for a positive rate.
      return_lse: return the log-sum-exp of each row of logits too, differentiable.
      return_residual: `jax.nn`'s name for `return_lse`; there it has no derivative.
      tiles: (queries, keys) in a tile of logits, of all passes; None for what suits the shapes and
        the chip. "xla_chunked" takes any; the TPU kernels take multiples of 128, or the whole
        sequence, as far as the chip's memory holds them, those for GPUs powers of two from 16.
        Tiles that the implementation cannot run raise, also where the platform chooses it.
      implementation: "xla" (all logits in memory), "xla_chunked", or a kernel's name; None takes
        the best for the platform that the program is lowered for. One that cannot run raises. XLA
        cannot split kernels over devices by itself: a sharded program gets them in `jax.shard_map`
        only, and "xla_chunked" elsewhere.
      precision: of the products of float32 matrices.

    Returns:
      The attention [batch, queries, heads, value_dim]; with `return_lse` also the log-sum-exp
      [batch, queries, heads] in float32 or float64, -inf for a query that sees nothing.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter, or an implementation that cannot run.

    Source: FlashAttention, arXiv 2205.14135, algorithm 1, and FlashAttention-2, arXiv 2307.08691,
    for the value and gradient; the tangent kernels are this library's. `logits_soft_cap` as in
    Gemma 2, arXiv 2408.00118, 2.2 (before the bias; tokamax adds the bias first); `sinks` as in
    StreamingLLM, arXiv 2309.17453, with the learned logit of gpt-oss. Values and gradients agree
    with PyTorch's `scaled_dot_product_attention` and `flex_attention`, and with gpt-oss in
    transformers.

    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> q, k, v = (jax.random.normal(key, (1, 6, 2, 4)) for key in keys)
    >>> loss = lambda q: jnp.sum(dot_product_attention(q, k, v, is_causal=True) ** 2)
    >>> hessian_vector = jax.jvp(jax.grad(loss), (q,), (q,))[1]
    >>> hessian_vector.shape
    (1, 6, 2, 4)
    """
    batched = np.ndim(query) == 4
    if np.ndim(query) == 3:
        query, key, value = (jnp.asarray(x)[None] for x in (query, key, value))
    x, masks, config = prepare(
        *(query, key, value, bias, mask),
        scale=scale,
        is_causal=is_causal,
        query_seq_lengths=query_seq_lengths,
        key_value_seq_lengths=key_value_seq_lengths,
        local_window_size=local_window_size,
        query_segment_ids=query_segment_ids,
        key_value_segment_ids=key_value_segment_ids,
        logits_soft_cap=logits_soft_cap,
        sinks=sinks,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        tiles=tiles,
        implementation=implementation,
        precision=precision,
    )
    out, lse = results(attention(x, masks, config), sinks)
    if not batched:
        out, lse = out[0], lse[0]
    return (out, lse) if return_lse or return_residual else out
