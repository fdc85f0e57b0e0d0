"""Formulas over pairs that several losses share."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check, check_floating, check_positive, check_rank, check_shape
from ._shared import softplus
from .pairs import Block, Pairs, either, negative, positive

Embeddings = Float[Array, "batch features"]
References = Float[Array, "references features"] | None
PerAnchor = Float[Array, "batch"]
Temperature = float | Float[Array, ""] | Float[Array, "batch"]
Reduction = Literal["mean", "active", "sum"]


def average(
    pairs: Pairs,
    values: Callable[[Block], Array],
    which: Callable[[Block], Array],
    reduction: Reduction,
) -> PerAnchor:
    """The values of the pairs that `which` picks, reduced for each anchor; zero over none.

    "mean" divides their sum by their number, "active" by the number of those above zero.
    """
    total = pairs.total(lambda b: jnp.where(which(b), values(b), 0))
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / jnp.maximum(pairs.count(which), 1)
    count = pairs.count(lambda b: which(b) & (values(b) > 0))
    return total / jnp.maximum(jax.lax.stop_gradient(count), 1)


def check_reduction(reduction: Any) -> None:
    """Raise unless `reduction` is one of the three that `average` knows."""
    known = ("mean", "active", "sum")
    check(
        reduction in known, "reduction", f"got {reduction!r}, takes {', '.join(map(repr, known))}"
    )


def decoupled(pairs: Pairs, scale: Array) -> PerAnchor:
    """`mean_p log(1 + sum_n exp(scale (s_an - s_ap)))`; minus infinity never enters."""
    others = pairs.log_sum_exp(lambda b, c: c * b.values, negative, scale)
    some = others != -jnp.inf
    others = jnp.where(some, others, 0)
    total = pairs.total(
        lambda b, n, c, s: jnp.where(b.positive & (s > 0), softplus(n - c * b.values), 0),
        others,
        scale,
        some,
    )
    return total / jnp.maximum(pairs.count(positive), 1)


def mean_log_loss(pairs: Pairs, scale: Array) -> PerAnchor:
    """`log sum_j exp(scale s_aj) - mean_p scale s_ap`; zero without positives."""
    count = pairs.count(positive)
    total = pairs.log_sum_exp(lambda b, c: c * b.values, either, scale)
    near = scale * pairs.total(lambda b: jnp.where(b.positive, b.values, 0))
    some = count > 0
    loss = jnp.where(some, total, 0) - near / jnp.maximum(count, 1)
    return jnp.where(some, loss, 0)


def per_anchor(name: str, value: Any, anchors: int, dtype: Any) -> PerAnchor:
    """A number, or one for each anchor, as [anchors]; raises unless it is positive and fits."""
    check_positive(**{name: value})
    check(
        jnp.shape(value) in ((), (anchors,)),
        name,
        f"got shape {jnp.shape(value)}, takes a number or ({anchors},), one an anchor",
    )
    return jnp.broadcast_to(jnp.asarray(value, dtype), (anchors,))


def check_views(**views: Any) -> None:
    """Raise unless the two views are floating [batch, features] of one shape."""
    (first, x), (second, y) = views.items()
    check_floating(**views)
    check_rank(first, x, 2)
    check(jnp.shape(x)[0] > 0, first, "got no rows, takes one or more")
    check_shape(second, y, jnp.shape(x), f"[batch, features], as {first}")
