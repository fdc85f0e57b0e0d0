"""How well scores rank positives above negatives, over all examples or within groups."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)

Weights = Literal["examples", "positives"]


def roc_auc(scores: Float[Array, "n"], is_positive: Bool[Array, "n"]) -> Float[Array, ""]:
    """The area under the receiver operating characteristic curve.

    `P(s > s') + P(s = s') / 2` for the score s of a positive and s' of a negative example, drawn at
    random.

    Args:
      scores: [examples].
      is_positive: [examples].

    Returns:
      The area []; 0 where there are no positives or no negatives.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: The meaning and use of the area under a receiver operating characteristic curve
    (Hanley and McNeil, Radiology 1982).

    >>> roc_auc(jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([False, False, True, True])).item()
    0.875
    """
    _check(scores, is_positive)
    same = jnp.zeros(jnp.shape(scores), jnp.int32)
    areas, _, _ = _areas(upcast(scores), jnp.asarray(is_positive), same, 1)
    return restore(areas[0], scores)


def grouped_roc_auc(
    scores: Float[Array, "n"],
    is_positive: Bool[Array, "n"],
    groups: Int[Array, "n"],
    *,
    num_groups: int,
    weights: Weights = "examples",
) -> Float[Array, ""]:
    """The mean over groups of `roc_auc`, weighted by their sizes: GAUC, where users are groups.

        GAUC = sum_u n_u AUC_u / sum_u n_u

    over the groups that have positives and negatives. Scores are compared within a group only, as
    where a user chooses among what he is shown.

    Args:
      scores: [examples].
      is_positive: [examples].
      groups: of each example, in [0, num_groups) [examples].
      num_groups: how many groups there may be.
      weights: n_u counts the group's "examples" (impressions) or "positives" (clicks).

    Returns:
      The mean []; 0 where no group has both.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, section 6.2.

    >>> scores, clicked = jnp.array([0.1, 0.4, 0.9, 0.8]), jnp.array([False, True, True, False])
    >>> grouped_roc_auc(scores, clicked, jnp.array([0, 0, 1, 1]), num_groups=2).item()
    1.0
    """
    _check(scores, is_positive)
    check_integer(groups=groups)
    check_shape("groups", groups, jnp.shape(scores), "[examples], one a score")
    check_count(num_groups=num_groups)
    known = "examples", "positives"
    check(weights in known, "weights", f"got {weights!r}, takes {', '.join(map(repr, known))}")
    found = _areas(upcast(scores), jnp.asarray(is_positive), jnp.asarray(groups), num_groups)
    areas, positives, negatives = found
    size = positives + (negatives if weights == "examples" else 0)
    size = jnp.where((positives > 0) & (negatives > 0), size, 0)
    return restore(safe_divide(jnp.sum(size * areas), jnp.sum(size)), scores)


def relative_improvement(
    area: Float[Array, "*B"], baseline: Float[Array, "*B"]
) -> Float[Array, "*B"]:
    """By how much an area under the curve is farther from chance than another's: RelaImpr.

    `(AUC - 1/2) / (AUC_0 - 1/2) - 1`.

    Args:
      area: AUC [...].
      baseline: AUC_0 of the model to compare with [...].

    Returns:
      [...]; 0 where the baseline is at chance.

    Raises:
      ValueError: if a dtype does not fit.

    Source: Deep Interest Network for Click-Through Rate Prediction, arXiv 1706.06978, section 6.2.

    >>> relative_improvement(jnp.array([0.75, 1.0]), jnp.array([0.75, 0.75])).tolist()
    [0.0, 1.0]
    """
    check_floating(area=area)
    check_floating(baseline=baseline)
    a, b = upcast(area, baseline)
    return restore(safe_divide(a - b, b - 0.5), area, baseline)


def _check(scores: Any, is_positive: Any) -> None:
    check_floating(scores=scores)
    check_rank("scores", scores, 1)
    check_shape("is_positive", is_positive, jnp.shape(scores), "[examples], one a score")
    check_boolean(is_positive=is_positive)


def _areas(scores: Array, positive: Array, groups: Array, many: int) -> tuple[Array, Array, Array]:
    """The area and the numbers of positives and negatives of each group.

    Sorted by group and score, the negatives that a positive is ranked above are those of its group
    before it, and half of those of equal scores.
    """
    order = jnp.lexsort((scores, groups))
    s, g, p = scores[order], groups[order], positive[order]
    first = jnp.ones(1, bool)
    new_group = jnp.concatenate([first, g[1:] != g[:-1]])[: len(s)]
    new_score = jnp.concatenate([first, s[1:] != s[:-1]])[: len(s)] | new_group
    before = jnp.cumsum(~p) - ~p  # negatives before an example, of all groups

    def at_start(new: Array) -> Array:
        """`before` at the start of the run that an example is in."""
        places = jax.lax.cummax(jnp.where(new, jnp.arange(len(s)), 0))
        return before[places]

    run = jnp.cumsum(new_score) - 1
    equal = jax.ops.segment_sum((~p).astype(jnp.int32), run, len(s))[run]
    below = at_start(new_score) - at_start(new_group)
    gain = jnp.where(p, below.astype(s.dtype) + equal.astype(s.dtype) / 2, 0)
    gain = jnp.where(jnp.isnan(s), jnp.nan, gain)  # sorted last, it would seem the best
    total = jax.ops.segment_sum(gain, g, many)
    positives, negatives = (
        jax.ops.segment_sum(which.astype(s.dtype), g, many) for which in (p, ~p)
    )
    return safe_divide(total, positives * negatives), positives, negatives
