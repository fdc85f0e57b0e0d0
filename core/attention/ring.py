"""Softmax attention of sequences that are spread over the devices of a mesh axis."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

from ..kernels.flash_attention import ring
from .dot_product import Window, prepare, results


def ring_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K E"],
    bias: Float[Array, "*#BNTA"] | None = None,
    mask: Bool[Array, "*#BNTA"] | None = None,
    *,
    axis_name: str,
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
    tiles: tuple[int, int] | None = None,
    implementation: str | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> Any:
    """Softmax attention inside `jax.shard_map`, over the keys of all devices of a mesh axis.

        out = softmax(scale Q [K_1; ...; K_D]^T + bias) [V_1; ...; V_D]

    Queries, keys and values are split into D contiguous shards along the axis. A device keeps its
    queries; shards of keys travel around the ring of devices, and in the derivatives with them the
    sums that belong to them. Value, gradient and Hessian-vector product need memory for a few
    shards, not for the sequence. Shards that a causal or a window mask hides are passed on unused.

    Args:
      query: this device's shard [batch, queries, heads, dim].
      key: this device's shard [batch, keys, key_heads, dim].
      value: this device's shard [batch, keys, key_heads, value_dim].
      bias: added to the logits: the rows of this device's queries and the columns of all devices'
        keys, broadcasting to [batch, heads, queries, all keys]. One that is the same for all
        queries may come split as the keys are, [batch or 1, heads or 1, 1, keys], and then travels
        with them. An axis of one is shared, so with one key a device it is to be that of all keys.
      mask: boolean, True shows; of the shapes of `bias`.
      axis_name: the mesh axis that the sequence is split over.
      scale: as in `dot_product_attention`, and so are the others; positions count along the whole
        sequence.
      is_causal: query i of the sequence sees the keys 0 to i.
      query_seq_lengths: [batch], of the whole sequences; later queries yield zeros.
      key_value_seq_lengths: [batch], of the whole sequences; later keys are hidden.
      local_window_size: (left, right), how far a query sees to each side.
      query_segment_ids: this device's shard [batch, queries].
      key_value_segment_ids: this device's shard [batch, keys].
      logits_soft_cap: bounds the logits to +-cap.
      sinks: [heads], logits of a key with value zero.
      dropout_rate: the probability with which a weight is set to zero.
      dropout_rng: a key of `jax.random`, the same on all devices of the axis: the weights that are
        dropped are then those of `dot_product_attention`.
      return_lse: return the log-sum-exp of each row of logits too.
      tiles: of the kernels on a device.
      implementation: of the kernels on a device.
      precision: of the products of float32 matrices.

    Returns:
      The attention of this device's queries [batch, queries, heads, value_dim]; with `return_lse`
      also the log-sum-exp [batch, queries, heads].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter, or an implementation that cannot run.

    Source: Ring Attention with Blockwise Transformers, arXiv 2310.01889, algorithm 1, for value and
    gradient; the tangent passes are this library's.

    >>> mesh = jax.make_mesh((1,), ("seq",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> spec = jax.sharding.PartitionSpec(None, "seq")
    >>> attend = jax.shard_map(
    ...     lambda q, k, v: ring_attention(q, k, v, axis_name="seq", is_causal=True),
    ...     mesh=mesh, in_specs=spec, out_specs=spec)
    >>> q = jax.numpy.ones((1, 8, 2, 4))
    >>> attend(q, q, q).shape
    (1, 8, 2, 4)
    """
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
        devices=jax.lax.axis_size(axis_name),
    )
    out, lse = results(ring(x, masks, config, axis_name), sinks)
    return (out, lse) if return_lse else out
