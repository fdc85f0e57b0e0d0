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


def _goes_along(pairs: Any, keys: int) -> bool:
    """Whether a bias or mask belongs to the keys of its device, and travels with them."""
    return pairs is not None and pairs.shape[-1] == keys > 1


def _columns(pairs: Any, source: Any, keys: int) -> Any:
    """A bias or mask of the keys of all devices, cut to those that come from one."""
    if pairs is None or pairs.shape[-1] in (1, keys):
        return pairs
    return jax.lax.dynamic_slice_in_dim(pairs, source * keys, keys, axis=-1)


def _put_columns(pairs: Any, part: Any, source: Any, keys: int) -> Any:
    """`pairs` with what came from one device's keys added in its place."""
    if pairs.shape == part.shape:
        return pairs + part
    return jax.lax.dynamic_update_slice_in_dim(pairs, part, source * keys, axis=-1)


def _of_keys(x: Inputs) -> Inputs:
    """What of the inputs travels."""
    along = _goes_along(x.bias, x.key.shape[2])
    return x._replace(query=None, bias=x.bias if along else None)


def _meet(x: Inputs, cargo: Inputs, source: Any) -> Inputs:
    """The device's queries and the keys that visit from `source`."""
    bias = _columns(x.bias, source, x.key.shape[2]) if cargo.bias is None else cargo.bias
    return cargo._replace(query=x.query, bias=bias)


def _travel(
    step: Callable[[Any, Any, Masks, Any], tuple[Any, Any]],
    cargo: Any,
    stays: Any,
    x: Inputs,
    masks: Masks,
    axis: str,
) -> tuple[Any, Any]:
    """Take `cargo`, and the masks of its keys, around the ring.

    Args:
      step: `step(cargo, stays, masks, source) -> (cargo, stays)`, run for every shard of keys with
        the index of the device that it is from.
      cargo: what travels: keys, values and sums that belong to them.
      stays: sums that belong to the queries.
      x: the shard of the device, for its lengths.
      masks: those of the device; those of keys are of its own shard.
      axis: the mesh axis.

    Returns:
      The cargo, back home, and the sums that stayed.
    """
    devices = jax.lax.axis_size(axis)
    here = jax.lax.axis_index(axis)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    queries, keys = x.query.shape[3], x.key.shape[2]
    hidden = masks.mask if _goes_along(masks.mask, keys) else None
    leaves, tree = jax.tree.flatten(((cargo, (masks.key_segments, hidden)), stays))
    start = jax.tree.unflatten(tree, vary_alike(*leaves, here)[:-1])

    def body(n: Any, state: Any) -> Any:
        (cargo, of_keys), stays = state
        source = jax.lax.rem(
            here - n.astype(here.dtype) + devices, jnp.asarray(devices, here.dtype)
        )
        offset = (here * queries - source * keys).astype(jnp.int32)
        seen = _local(masks, here * queries, source * keys)
        mask = _columns(masks.mask, source, keys) if of_keys[1] is None else of_keys[1]
        seen = seen._replace(key_segments=of_keys[0], mask=mask, offset=offset)
        cargo, stays = step(cargo, stays, seen, source)
        return jax.tree.map(lambda a: jax.lax.ppermute(a, axis, ring), (cargo, of_keys)), stays

    (cargo, _), stays = jax.lax.fori_loop(0, devices, body, start)
    return cargo, stays


def _local(masks: Masks, first_query: Any, first_key: Any) -> Masks:
    """Masks of whole sequences as masks of shards that begin there."""

    def after(lengths: Any, first: Any) -> Any:
        return None if lengths is None else lengths - jnp.asarray(first, lengths.dtype)

    origin = None if masks.seed is None else jnp.stack([first_query, first_key]).astype(jnp.int32)
    return masks._replace(
        query_lengths=after(masks.query_lengths, first_query),
        key_lengths=after(masks.key_lengths, first_key),
        origin=origin,
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

    def step(cargo: Inputs, stays: Output, masks: Masks, source: Any) -> Any:
        shard = _meet(x, cargo, source)
        return cargo, combine(stays, _forward(shard, (), masks, config=config))

    like = struct(x)
    zeros = _zeros(like, dtype)
    start = zeros._replace(logsum=jnp.full(like.logsum.shape, -jnp.inf, dtype))
    _, y = _travel(step, _of_keys(x), start, x, masks, axis)
    return y._replace(out=y.out.astype(like.out.dtype))


def _ring_tangent(
    x: Inputs, y: Output, t: Inputs, masks: Masks, *, config: Config, axis: str
) -> Output:
    dtype = logits_dtype(x)

    def step(cargo: Any, stays: Output, masks: Masks, source: Any) -> Any:
        shard, along = (_meet(a, keys, source) for a, keys in zip((x, t), cargo, strict=True))
        part = _tangent((shard, y), along, masks, config=config)
        return cargo, _add(stays, part._replace(out=part.out.astype(dtype)))

    cargo = _of_keys(x), _of_keys(t)
    _, y_dot = _travel(step, cargo, _zeros(y, dtype), x, masks, axis)
    return y_dot._replace(out=y_dot.out.astype(y.out.dtype))


def _with_sums(
    kernel: Callable[..., Inputs], arrays: tuple[Inputs, ...], masks: Masks, axis: str
) -> Inputs:
    """Cotangents of the inputs: those of queries stay, those of keys travel with them."""
    x = arrays[0]
    dtype, keys = logits_dtype(x), x.key.shape[2]
    travels = _of_keys(x)

    def step(loaded: Any, stays: Inputs, masks: Masks, source: Any) -> Any:
        cargo, sums = loaded
        shards = (_meet(a, keys, source) for a, keys in zip(arrays, cargo, strict=True))
        part = jax.tree.map(lambda a: a.astype(dtype), kernel(*shards, masks))
        bias = stays.bias
        if bias is not None:
            bias = _put_columns(bias, part.bias, source, keys)
        gain = part._replace(query=None, bias=None if travels.bias is None else part.bias)
        return (cargo, _add(sums, gain)), Inputs(stays.query + part.query, None, None, bias)

    stays = Inputs(x.query, None, None, None if travels.bias is not None else x.bias)
    loaded = tuple(map(_of_keys, arrays)), _zeros(travels, dtype)
    (_, sums), stays = _travel(step, loaded, _zeros(stays, dtype), x, masks, axis)
    bias = stays.bias if sums.bias is None else sums.bias
    found = sums._replace(query=stays.query, bias=bias)
    return jax.tree.map(lambda d, a: d.astype(a.dtype), found, x)


def _ring_cotangent(
    x: Inputs, y: Output, g: Output, masks: Masks, *, config: Config, axis: str
) -> Inputs:
    def kernel(x: Inputs, masks: Masks) -> Inputs:
        return _cotangent((x, y), g, masks, config=config)

    return _with_sums(kernel, (x,), masks, axis)


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
    def kernel(x: Inputs, x_dot: Inputs, masks: Masks) -> Inputs:
        return _hessian((x, y, g, x_dot, y_dot, g_dot), (), masks, config=config)

    return _with_sums(kernel, (x, x_dot), masks, axis)


def _ring_reference(x: Inputs, masks: Masks, *, config: Config, axis: str) -> Output:
    """All keys gathered on every device."""
    gather = functools.partial(jax.lax.all_gather, axis_name=axis, tiled=True)
    segments = masks.key_segments
    first = (jax.lax.axis_index(axis) * x.query.shape[3]).astype(jnp.int32)
    keys = x.key.shape[2]

    def every(pairs: Any) -> Any:
        return gather(pairs, axis=4) if _goes_along(pairs, keys) else pairs

    whole = _local(masks, first, jnp.zeros_like(first))._replace(
        key_segments=None if segments is None else gather(segments, axis=1),
        mask=every(masks.mask),
        offset=first,
    )
    x = Inputs(x.query, gather(x.key, axis=2), gather(x.value, axis=2), every(x.bias))
    return reference.forward(x, whole, config=config)


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
      x: the device's shard of queries, keys and values, in order along the axis. A bias has the
        device's queries (or one for all) and the keys of all devices or one for all; a bias that is
        shared by all queries may have the device's keys instead.
      masks: of the shard: segments, and lengths of the whole sequences; a mask is as a bias.
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
