"""Coordinate-wise clipping: the largest entries of an update are cut to the size of the rest."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check, check_range

Scope = Literal["global", "leaf"]


def order_statistic(leaves: Sequence[Array], rank: Any) -> Float[Array, ""]:
    """The magnitude at this place, counted from 0, of all entries sorted from large to small.

    Zero where there are not as many entries. Floating-point numbers of one sign are ordered as
    their bits are, so the answer is found bit by bit, the highest first: a bit is set if more than
    `rank` entries are no smaller. A count a bit needs no copy of the tree, as a sort would, and
    where leaves are sharded only counts are exchanged.
    """
    dtype = accumulation_dtype(*leaves)
    unsigned = jnp.uint64 if dtype == jnp.float64 else jnp.uint32
    width = jnp.finfo(dtype).bits
    keys = [jax.lax.bitcast_convert_type(jnp.abs(x).astype(dtype), unsigned) for x in leaves]

    def at_least(value: Array) -> Array:
        counts = [jnp.sum(key >= value, dtype=jnp.uint32) for key in keys]
        return sum(counts[1:], start=counts[0])

    def set_bit(i: Array, found: Array) -> Array:
        trial = found | (jnp.asarray(1, unsigned) << (width - 2 - i).astype(unsigned))
        return jnp.where(at_least(trial) > rank, trial, found)

    # A zero that varies between the devices of a shard_map as the counts do.
    zero = 0 * at_least(jnp.asarray(0, unsigned)).astype(unsigned)
    bits = jax.lax.fori_loop(0, width - 1, set_bit, zero)  # the sign's bit is never set
    return jax.lax.bitcast_convert_type(bits, dtype)


def _rank(size: int, fraction: Any) -> Any:
    """How many entries are cut."""
    if isinstance(fraction, (int, float)):
        return jnp.asarray(int(size * fraction), jnp.uint32)
    return jnp.floor(size * fraction).astype(jnp.uint32)


def coordinate_clip(
    fraction: Any = 0.1,
    *,
    threshold: Any = None,
    scope: Scope = "global",
    threshold_scale: Any = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Clip each entry of an update, by default the largest tenth to the size of the next.

        u_i <- sign(u_i) min(|u_i|, threshold_scale c),   c = |u| sorted downwards [int(n fraction)]

    A few coordinates of a transformer's gradient cause most of the curvature along it (see
    `papyrax.curvature.directional_sharpness`), and so bound the learning rate of all. Clipped, the
    step keeps every sign and may be several times as long. Goes before an optimizer,
    `optax.chain(coordinate_clip(0.1), optax.sgd(1.0))`, or after one, to clip its update. A
    `fraction` of 0 changes nothing, and of 1 gives zeros. Has no state.

    Args:
      fraction: share of the coordinates that are clipped, in [0, 1], anew at every step.
      threshold: clip at this magnitude instead, whatever share that is.
      scope: "global", one threshold for the tree, as the authors have it, or "leaf", one each.
      threshold_scale: factor of the threshold.

    Returns:
      A `GradientTransformationExtraArgs`; its updates have the signs and dtypes of what it gets.

    Raises:
      ValueError: naming the argument that is out of range, or `updates` of 2^32 entries or more.

    Source: Toward Understanding Why Adam Converges Faster Than SGD for Transformers,
    arXiv 2306.00204, section 4; panyan7/adam-vs-sgd torch_optimizer/sgd_clip.py, which has this
    threshold, an order statistic and no interpolated quantile. Its optimizers clip with
    `foreach=True` alone, which is not their default.

    >>> tx, grads = coordinate_clip(0.25), jnp.array([-8.0, 1.0, 0.5, -2.0])
    >>> tx.update(grads, tx.init(grads))[0].tolist()
    [-2.0, 1.0, 0.5, -2.0]
    """
    check_range("fraction", fraction, 0, 1)
    check_range("threshold", threshold, 0)
    check_range("threshold_scale", threshold_scale, 0)
    check(scope in ("global", "leaf"), "scope", f"got {scope!r}, takes 'global' or 'leaf'")

    def limit(leaves: Sequence[Array]) -> Any:
        if threshold is not None:
            return threshold
        size = sum(x.size for x in leaves)
        check(size < 2**32, "updates", f"got {size} entries, takes fewer than 2^32")
        return order_statistic(leaves, _rank(size, fraction))

    def clip(x: Array, most: Any) -> Array:
        wide = accumulation_dtype(x)
        most = jnp.asarray(threshold_scale * most, wide)
        return jnp.clip(x.astype(wide), -most, most).astype(x.dtype)

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, optax.EmptyState]:
        del params, extra_args
        leaves, treedef = jax.tree.flatten(updates)
        arrays = [jnp.asarray(x) if is_floating(x) else None for x in leaves]
        floats = [x for x in arrays if x is not None]
        if not floats:
            return updates, state
        most = limit(floats) if scope == "global" else None
        clipped = [
            y if x is None else clip(x, limit([x]) if most is None else most)
            for x, y in zip(arrays, leaves)
        ]
        return jax.tree.unflatten(treedef, clipped), state

    return optax.GradientTransformationExtraArgs(init, update)
