"""Proximal steps toward few active groups: the envelope of a squared norm and a count of groups."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..numerics import (
    check_count,
    check_floating,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_norm,
    upcast,
)
from .after_step import changed


def _shares(norms: Array, weights: Array, k: int, penalty: Any) -> Array:
    """`u_j = clip(sqrt(d_j) |v_j| eta - penalty d_j, 0, 1)` with eta such that they sum to k.

    The sum is piecewise linear in eta: a binary search finds the piece in which it reaches k. Which
    shares rise there is asked in its middle, for at its ends rounding would decide.
    """
    slopes = jnp.sqrt(weights) * norms
    slopes = safe_divide(slopes, jnp.max(slopes))
    offsets = penalty * weights

    def at(eta: Array) -> Array:
        return jnp.clip(slopes * eta - offsets, 0, 1)

    active = slopes > 0
    ends = jnp.concatenate([safe_divide(offsets, slopes), safe_divide(offsets + 1, slopes)])
    kinks = jnp.sort(jnp.concatenate([ends, jnp.zeros(1, ends.dtype)]))

    def halve(_: Any, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = (low + high) // 2
        fits = jnp.sum(at(kinks[middle])) <= k
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    # Varies between the devices of a shard_map as the kinks do.
    zero = jnp.zeros_like(kinks, jnp.int32)[0]
    steps = math.ceil(math.log2(kinks.size)) + 1
    low, high = jax.lax.fori_loop(0, steps, halve, (zero, zero + kinks.size))
    middle = (kinks[low] + kinks[jnp.minimum(high, kinks.size - 1)]) / 2
    height = slopes * middle - offsets
    rises, full = (height > 0) & (height < 1), height >= 1
    slope = jnp.sum(jnp.where(rises, slopes, 0))
    rest = k - jnp.sum(full) + jnp.sum(jnp.where(rises, offsets, 0))
    # Where none rises the sum is k all along the piece.
    eta = jnp.where(slope > 0, safe_divide(rest, slope), middle)
    return jnp.where(jnp.sum(active) <= k, active.astype(norms.dtype), at(eta))


def _groups(x: Any, k: int, weights: Any) -> tuple[Array, Array, Array]:
    """The groups [groups, rest], their norms and weights [groups]."""
    check_floating(x=x)
    check_rank("x", x, 1, at_least=True)
    check_count(k=k)
    wide = upcast(x)
    rows = jnp.moveaxis(wide, -1, 0).reshape(x.shape[-1], -1)
    if weights is None:
        scales = jnp.ones_like(rows[:, 0])
    else:
        check_shape("weights", weights, (x.shape[-1],), "[groups], the last axis of x")
        scales = jnp.asarray(weights, wide.dtype)
    return rows, safe_norm(rows, axis=-1), scales


def group_envelope(
    x: Float[Array, "... groups"],
    k: int,
    *,
    weights: Float[Array, " groups"] | None = None,
) -> Float[Array, ""]:
    """The largest convex function below half the squared norm of what has at most k active groups.

        S_k(x) = 1/2 min sum_j d_j |x_j|^2 / u_j   over u in [0, 1]^m, sum_j u_j <= k

    It is half the weighted squared norm where at most k groups are not zero, more elsewhere, and
    half the squared L1 norm for k = 1 and groups of one entry.

    Args:
      x: [..., groups]; a group is what has the same place on the last axis, such as the weights
        into one unit of a layer [inputs, units].
      k: how many groups are to be active.
      weights: d [groups], above zero; ones by default.

    Returns:
      The value [].

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Learning k-Level Structured Sparse Neural Networks Using Group Envelope Regularization,
    arXiv 2212.12921; where d enters is derived here, for no code of the authors is public.

    >>> round(float(group_envelope(jnp.array([3.0, -4.0]), 1)), 3)  # (3 + 4)^2 / 2
    24.5
    """
    _, norms, scales = _groups(x, k, weights)
    u = _shares(norms, scales, k, 0.0)
    terms = jnp.where(u > 0, scales * norms * safe_divide(norms, u), 0)
    return restore(jnp.sum(terms) / 2, x)


def group_envelope_prox(
    x: Float[Array, "... groups"],
    k: int,
    strength: Any,
    *,
    weights: Float[Array, " groups"] | None = None,
) -> Float[Array, "... groups"]:
    """The proximal step of `group_envelope`: small groups become zero, the others shrink.

        argmin_z lam S_k(z) + |z - x|^2 / 2 = u_j x_j / (lam d_j + u_j)
        u_j = clip(sqrt(d_j) |x_j| eta - lam d_j, 0, 1),   eta >= 0 with sum_j u_j = k

    About k groups stay, and more where several are of nearly one size. The k largest of very
    different groups only shrink by `1 / (1 + lam d)`.

    Args:
      x: [..., groups], as `group_envelope` takes it.
      k: how many groups are to be active.
      strength: lam, not negative.
      weights: d [groups], above zero; ones by default.

    Returns:
      [..., groups].

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: as `group_envelope`; the formula is derived here, and compared with minimization and,
    for groups of one entry, with the k-support norm of CEA-COSMIC/ModOpt.

    >>> np.asarray(group_envelope_prox(jnp.array([4.0, 1.0]), 1, 1.0), float).tolist()
    [2.0, 0.0]
    """
    check_range("strength", strength, 0)
    rows, norms, scales = _groups(x, k, weights)
    penalty = jnp.asarray(strength, rows.dtype)
    u = _shares(norms, scales, k, penalty)
    # Without strength nothing changes, not even a group without a share.
    kept = jnp.where(penalty > 0, safe_divide(u, penalty * scales + u), 1)
    moved = (kept[:, None] * rows).reshape(x.shape[-1], *x.shape[:-1])
    return restore(jnp.moveaxis(moved, 0, -1), x)


class GroupEnvelopeState(NamedTuple):
    """State of `proximal_group_envelope`.

    Attributes:
      count: number of updates so far [].
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name


def proximal_group_envelope(
    k: int, strength: Any, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """A proximal step after an optimizer's own, toward k active groups in every tensor.

        w <- prox(w + update),   of learning_rate strength S_k

    It goes last in a chain, `optax.chain(optax.sgd(0.1), proximal_group_envelope(24, 0.1, 0.1))`.
    Groups are those of `group_envelope_prox`, on the last axis of every tensor of two or more
    axes; others are left alone, as are those that `optax.masked` hides. Afterwards keep the k
    largest groups, for a few more than k may be left.

    Args:
      k: how many groups of each tensor are to be active.
      strength: of the regularizer in the loss.
      learning_rate: that of the optimizer before it, a number or a schedule.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params`.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Learning k-Level Structured Sparse Neural Networks Using Group Envelope Regularization,
    arXiv 2212.12921, proximal stochastic gradient.

    >>> tx, w = proximal_group_envelope(1, 2.0, 0.5), jnp.array([[4.0, 1.0]])
    >>> tx.update(jnp.zeros((1, 2)), tx.init(w), w)[0].tolist()
    [[-2.0, -1.0]]
    """
    check_count(k=k)
    check_range("strength", strength, 0)
    if not callable(learning_rate):
        check_range("learning_rate", learning_rate, 0)

    def init(params: Any) -> GroupEnvelopeState:
        del params
        return GroupEnvelopeState(jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: GroupEnvelopeState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, GroupEnvelopeState]:
        del extra_args  # they are for other transformations
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def prox(weights: Array) -> Array:
            return group_envelope_prox(weights, k, rate * strength)

        return changed(prox, updates, params), GroupEnvelopeState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
