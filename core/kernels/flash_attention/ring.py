"""Attention over keys that are spread along a mesh axis: shards of them travel around a ring.

The devices of the axis are one more level of tiles. Each holds a shard of the queries and of the
keys; in as many steps as there are devices, every shard of keys visits every device, and with it
the sums that belong to it. The kernels are those of one device: with the statistics of whole rows
at hand, what J, B and H give for the shards of keys just adds up.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..op import Op, vary_alike
from ..second_order import second_order
from . import api, reference
from .operands import Config, Inputs, Masks, Output, logits_dtype, struct


def _like(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def _apply_hessian(at: Any, masks: Masks, static: Any) -> Inputs:
    x, y, g, x_dot, y_dot, g_dot = at
    return api.hessian(x, y, g, x_dot, y_dot, g_dot, masks, **static)


# The kernels of one device and one shard of keys; their derivatives are those of the ring.
_forward = Op(
    "ring_step",
    lambda x, _, masks, **static: api.forward(x, masks, **static),
    out=lambda x, _, masks, *, config: struct(x),
    by_platform=True,
)
_tangent = Op(
    "ring_step_jvp",
    lambda at, t, masks, **static: api.tangent(at[0], at[1], t, masks, **static),
    out=lambda at, t, masks, *, config: _like(at[1]),
    by_platform=True,
)
_cotangent = Op(
    "ring_step_vjp",
    lambda at, g, masks, **static: api.cotangent(at[0], at[1], g, masks, **static),
    out=lambda at, g, masks, *, config: _like(at[0]),
    by_platform=True,
)
_hessian = Op(
    "ring_step_hvp",
    lambda at, _, masks, **static: _apply_hessian(at, masks, static),
    out=lambda at, _, masks, *, config: _like(at[0]),
    by_platform=True,
)


def _travel(
    step: Callable[[Any, Any, Masks], tuple[Any, Any]],
    cargo: Any,
    stays: Any,
    x: Inputs,
    masks: Masks,
    axis: str,
) -> tuple[Any, Any]:
    """Take `cargo` and the keys' segments around the ring.

    Args:
      step: `step(cargo, stays, masks) -> (cargo, stays)`, run for every shard of keys.
      cargo: what travels: keys, values and sums that belong to them.
      stays: sums that belong to the queries.
      x: the shard of the device, for its lengths.
      masks: those of the device; segments of keys are those of its own shard.
      axis: the mesh axis.

    Returns:
      The cargo, back home, and the sums that stayed.
    """
    devices = jax.lax.axis_size(axis)
    here = jax.lax.axis_index(axis)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    queries, keys = x.query.shape[3], x.key.shape[2]
    leaves, tree = jax.tree.flatten((cargo, masks.key_segments, stays))
    cargo, segments, stays = jax.tree.unflatten(tree, vary_alike(*leaves, here)[:-1])

    def body(n: Any, state: Any) -> Any:
        cargo, segments, stays = state
        source = jax.lax.rem(
            here - n.astype(here.dtype) + devices, jnp.asarray(devices, here.dtype)
        )
        offset = (here * queries - source * keys).astype(jnp.int32)
        seen = _local(masks, here * queries, source * keys)
        seen = seen._replace(key_segments=segments, offset=offset)
        cargo, stays = step(cargo, stays, seen)
        cargo, segments = jax.tree.map(lambda a: jax.lax.ppermute(a, axis, ring), (cargo, segments))
        return cargo, segments, stays

    cargo, _, stays = jax.lax.fori_loop(0, devices, body, (cargo, segments, stays))
    return cargo, stays


def _local(masks: Masks, first_query: Any, first_key: Any) -> Masks:
    """Lengths of whole sequences as lengths of shards that begin there."""

    def after(lengths: Any, first: Any) -> Any:
        return None if lengths is None else lengths - jnp.asarray(first, lengths.dtype)

    return masks._replace(
        query_lengths=after(masks.query_lengths, first_query),
        key_lengths=after(masks.key_lengths, first_key),
    )


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _zeros(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), tree)


def combine(a: Output, b: Output) -> Output:
    """Attention over the keys of `a` and those of `b` together."""
    shown = [jnp.where(y.logsum == -jnp.inf, -jnp.inf, y.shift) for y in (a, b)]
    largest = jnp.maximum(*shown)
    shift = jnp.where(largest == -jnp.inf, 0, largest)
    weights = [jnp.exp((y.shift - shift) + y.logsum) for y in (a, b)]
    total = weights[0] + weights[1]
    empty = total == 0
    parts = [w[..., None] * y.out.astype(w.dtype) for w, y in zip(weights, (a, b))]
    total = jnp.where(empty, 1, total)
    out = (parts[0] + parts[1]) / total[..., None]
    return Output(out, shift, jnp.where(empty, -jnp.inf, jnp.log(total)))


def _ring_forward(x: Inputs, masks: Masks, *, config: Config, axis: str) -> Output:
    dtype = logits_dtype(x)

    def step(cargo: Any, stays: Output, masks: Masks) -> Any:
        shard = x._replace(key=cargo[0], value=cargo[1])
        return cargo, combine(stays, _forward(shard, (), masks, config=config))

    like = struct(x)
    zeros = _zeros(like, dtype)
    start = zeros._replace(logsum=jnp.full(like.logsum.shape, -jnp.inf, dtype))
    _, y = _travel(step, (x.key, x.value), start, x, masks, axis)
    return y._replace(out=y.out.astype(like.out.dtype))


def _ring_tangent(
    x: Inputs, y: Output, t: Inputs, masks: Masks, *, config: Config, axis: str
) -> Output:
    dtype = logits_dtype(x)

    def step(cargo: Any, stays: Output, masks: Masks) -> Any:
        (k, v), (k_dot, v_dot) = cargo
        at = x._replace(key=k, value=v), y
        part = _tangent(at, t._replace(key=k_dot, value=v_dot), masks, config=config)
        return cargo, _add(stays, part._replace(out=part.out.astype(dtype)))

    cargo = (x.key, x.value), (t.key, t.value)
    _, y_dot = _travel(step, cargo, _zeros(y, dtype), x, masks, axis)
    return y_dot._replace(out=y_dot.out.astype(y.out.dtype))


def _with_sums(
    kernel: Callable[[Any, Masks], Inputs], cargo: Any, x: Inputs, masks: Masks, axis: str
) -> Inputs:
    """Cotangents of the inputs: the query's stay, those of keys and values travel with them."""
    dtype = logits_dtype(x)

    def step(loaded: Any, stays: Any, masks: Masks) -> Any:
        cargo, sums = loaded
        part = jax.tree.map(lambda a: a.astype(dtype), kernel(cargo, masks))
        return (cargo, _add(sums, (part.key, part.value))), stays + part.query

    sums, dq = _zeros((x.key, x.value), dtype), _zeros(x.query, dtype)
    (_, (dk, dv)), dq = _travel(step, (cargo, sums), dq, x, masks, axis)
    return jax.tree.map(lambda d, a: d.astype(a.dtype), Inputs(dq, dk, dv), x)


def _ring_cotangent(
    x: Inputs, y: Output, g: Output, masks: Masks, *, config: Config, axis: str
) -> Inputs:
    def kernel(cargo: Any, masks: Masks) -> Inputs:
        k, v = cargo
        return _cotangent((x._replace(key=k, value=v), y), g, masks, config=config)

    return _with_sums(kernel, (x.key, x.value), x, masks, axis)


def _ring_hessian(
    x: Inputs,
    y: Output,
    g: Output,
    x_dot: Inputs,
    y_dot: Output,
    g_dot: Output,
    masks: Masks,
    *,
    config: Config,
    axis: str,
) -> Inputs:
    def kernel(cargo: Any, masks: Masks) -> Inputs:
        (k, v), (k_dot, v_dot) = cargo
        shards = x._replace(key=k, value=v), x_dot._replace(key=k_dot, value=v_dot)
        at = shards[0], y, g, shards[1], y_dot, g_dot
        return _hessian(at, (), masks, config=config)

    return _with_sums(kernel, ((x.key, x.value), (x_dot.key, x_dot.value)), x, masks, axis)


def _ring_reference(x: Inputs, masks: Masks, *, config: Config, axis: str) -> Output:
    """All keys gathered on every device."""
    gather = functools.partial(jax.lax.all_gather, axis_name=axis, tiled=True)
    segments = masks.key_segments
    first = (jax.lax.axis_index(axis) * x.query.shape[3]).astype(jnp.int32)
    whole = _local(masks, first, 0)._replace(
        key_segments=None if segments is None else gather(segments, axis=1), offset=first
    )
    keys = x._replace(key=gather(x.key, axis=2), value=gather(x.value, axis=2))
    return reference.forward(keys, whole, config=config)


_ring = second_order(
    "ring_attention",
    forward=_ring_forward,
    tangent=_ring_tangent,
    cotangent=_ring_cotangent,
    hessian=_ring_hessian,
    reference=_ring_reference,
    out=lambda x, masks, *, config, axis: struct(x),
    collective=True,
)


def ring(x: Inputs, masks: Masks, config: Config, axis: str) -> Output:
    """`attention` of this device's queries to the keys of all devices of a mesh axis.

    Args:
      x: the device's shard of queries, keys and values, in order along the axis; without bias.
      masks: of the shard: segments, and lengths of the whole sequences.
      config: hyper-parameters.
      axis: the name of the mesh axis, as inside `jax.shard_map`.

    Returns:
      The attention of the device's queries.
    """
    api.check_implementation(x, masks, config)
    leaves, tree = jax.tree.flatten((x, masks))
    # Where the arrays are the same on all devices of the axis, the results still are not.
    x, masks = jax.tree.unflatten(tree, vary_alike(*leaves, jax.lax.axis_index(axis))[:-1])
    return _ring(x, (), masks, config=config, axis=axis)
