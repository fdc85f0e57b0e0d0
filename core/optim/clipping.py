"""Clipping: the largest entries of an update to the size of the rest, a tensor's to a radius."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check, check_range, safe_divide, safe_norm

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


class RadiusState(NamedTuple):
    """State of `diminishing_radius`.

    Attributes:
      count: number of updates so far [].
    """

    count: Array  # type: ignore[assignment]  # tuples have a method of that name


def diminishing_radius(radius: Any, decay: Any = 1.0) -> optax.GradientTransformationExtraArgs:
    """Let no tensor move farther than a radius that shrinks with the steps.

        u <- u min(1, r_t / |u|),   r_t = radius (t + 1)^-decay / log(t + 2),   t = 0, 1, ...

    With a decay of at most one the radii have no finite sum, so that any point may be reached,
    and from one half on their squares have one: block coordinate descent on a loss that is convex
    in each block alone then needs no exact minimization and no proximal term to converge. Last in
    a chain, after the learning rate. A tensor is a block.

    Args:
      radius: of the first step, times log 2.
      decay: how fast it shrinks.

    Returns:
      A `GradientTransformationExtraArgs`; its updates have the dtypes of what it gets.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: Convergence and Complexity of Block Coordinate Descent with Diminishing Radius for
    Nonconvex Optimization, arXiv 2012.03503; for supervised dictionary learning, arXiv 2206.06774,
    ljw9510/SDL src/SDL_BCD.py, which has these radii, with spectral norms.

    >>> tx, grads = diminishing_radius(np.log(2.0)), jnp.array([3.0, 4.0])
    >>> np.asarray(tx.update(grads, tx.init(grads))[0], float).round(3)
    array([0.6, 0.8])
    """
    check_range("radius", radius, 0)
    check_range("decay", decay, 0)

    def init(params: Any) -> RadiusState:
        del params
        return RadiusState(jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: RadiusState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, RadiusState]:
        del params, extra_args

        def limit(x: Any) -> Any:
            if not is_floating(x):
                return x
            wide = jnp.asarray(x, accumulation_dtype(x))
            t = state.count.astype(wide.dtype)
            most = jnp.asarray(radius, wide.dtype) * (t + 1) ** -decay / jnp.log(t + 2)
            norm = safe_norm(wide, axis=None)
            factor = jnp.where(norm > most, safe_divide(most, norm), 1)
            return (factor * wide).astype(jnp.result_type(x))

        return jax.tree.map(limit, updates), RadiusState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
