"""Softmax attention as it is defined, with every logit in memory."""

from typing import Any

import jax
import jax.numpy as jnp

from .operands import Config, Inputs, Masks, Output, in_span, kept, logits_dtype, shown_by_all


def visible(x: Inputs, masks: Masks, config: Config) -> Any:
    """Which key each query sees, of a shape that broadcasts to [B, K, G, T, S], or None for all."""
    queries, keys = x.query.shape[3], x.key.shape[2]
    row, col = jnp.arange(queries)[:, None], jnp.arange(keys)
    offset = 0 if masks.offset is None else masks.offset
    parts = [in_span(row + offset, col, config.span), masks.mask]
    if masks.query_lengths is not None:
        parts.append(row < masks.query_lengths[:, None, None, None, None])
    if masks.key_lengths is not None:
        parts.append(col < masks.key_lengths[:, None, None, None, None])
    if masks.query_segments is not None:
        of_query = masks.query_segments[:, None, None, :, None]
        parts.append(of_query == masks.key_segments[:, None, None, None, :])
    return shown_by_all(parts)


def forward(x: Inputs, masks: Masks, *, config: Config) -> Output:
    """softmax(cap(scale Q K^T) + bias, hidden keys at -inf) V, and the log-sum-exp of its rows."""
    dtype = logits_dtype(x)
    q, k, v = (a.astype(dtype) for a in (x.query, x.key, x.value))
    s = config.scale * jnp.einsum("bkgth,bksh->bkgts", q, k, precision=config.precision)
    if config.cap is not None:
        s = config.cap * jnp.tanh(s / config.cap)
    if x.bias is not None:
        s = s + x.bias.astype(dtype)
    seen = visible(x, masks, config)
    if seen is not None:
        s = jnp.where(seen, s, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(s, -1, initial=-jnp.inf))
    shift = jnp.where(jnp.isfinite(largest), largest, 0)
    e = jnp.exp(s - shift[..., None])
    total = jnp.sum(e, -1)
    empty = total == 0
    total = jnp.where(empty, 1, total)
    if config.dropout:
        b, n, g, t, j = e.shape
        head = jnp.arange(n * g).reshape(n, g)[:, :, None, None]
        batch = jnp.arange(b)[:, None, None, None, None]
        first = (0, 0) if masks.origin is None else masks.origin
        row, col = first[0] + jnp.arange(t)[:, None], first[1] + jnp.arange(j)
        e = e * kept(masks.seed, batch, head, row, col, config.dropout, dtype)
    out = jnp.einsum("bkgts,bkse->bkgte", e, v, precision=config.precision) / total[..., None]
    logsum = jnp.where(empty, -jnp.inf, jnp.log(total))
    return Output(out.astype(x.query.dtype), shift, logsum)
