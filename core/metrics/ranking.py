"""How well scores rank what is relevant: precision, recall, NDCG and their relatives at a depth.

`scores` [queries, items] and `targets` [queries, items], true or above zero where an item is
relevant. One value a query; a query without relevant items has value zero. Of items with equal
scores the first is ranked first.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import check, check_floating, check_positive, check_rank, check_shape, upcast

Scores = Float[Array, "queries items"]
Targets = Bool[Array, "queries items"] | Int[Array, "queries items"] | Float[Array, "queries items"]
PerQuery = Float[Array, "queries"]


def _check(scores: Any, targets: Any, k: Any = 1) -> tuple[Any, Any]:
    check_floating(scores=scores)
    check_rank("scores", scores, 2)
    check_shape("targets", targets, jnp.shape(scores), "[queries, items], as scores")
    items = jnp.shape(scores)[1]
    good = isinstance(k, int) and 0 < k <= items
    check(good, "k", f"got {k!r}, takes an integer from 1 to {items}, the number of items")
    return jnp.asarray(scores), jnp.asarray(targets)


def _best(scores: Array, values: Array, k: int) -> Array:
    """The values of the k items of highest score, in the order of the scores [queries, k]."""
    return jnp.take_along_axis(values, jax.lax.top_k(scores, k)[1], -1)


def _number(values: Array) -> Array:
    return jnp.sum(values, -1, dtype=jnp.float32)


def precision_at_k(scores: Scores, targets: Targets, *, k: int = 1) -> PerQuery:
    """Share of the k highest ranked items that are relevant.

    `sum_{r <= k} rel_r / k`.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].
      k: the depth.

    Returns:
      One value a query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit or `k` is not from 1 to the number of items.

    Source: textbook definition; P@k of the Extreme Classification Repository.

    >>> precision_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]]), k=2).tolist()
    [0.5]
    """
    scores, targets = _check(scores, targets, k)
    return _number(_best(scores, targets > 0, k)) / k


def recall_at_k(scores: Scores, targets: Targets, *, k: int = 1) -> PerQuery:
    """Share of the relevant items that are among the k highest ranked.

    `sum_{r <= k} rel_r / sum_r rel_r`.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].
      k: the depth.

    Returns:
      One value a query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit or `k` is not from 1 to the number of items.

    Source: textbook definition. What metric learning calls Recall@k is `hit_at_k`.

    >>> recall_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]]), k=1).tolist()
    [0.5]
    """
    scores, targets = _check(scores, targets, k)
    relevant = targets > 0
    return _number(_best(scores, relevant, k)) / jnp.maximum(_number(relevant), 1)


def hit_at_k(scores: Scores, targets: Targets, *, k: int = 1) -> PerQuery:
    """Whether any of the k highest ranked items is relevant: Recall@k of metric learning.

    `max_{r <= k} rel_r`.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].
      k: the depth.

    Returns:
      Zero or one for each query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit or `k` is not from 1 to the number of items.

    Source: Deep Metric Learning via Lifted Structured Feature Embedding, arXiv 1511.06452,
    Section 6.

    >>> hit_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[0, 1, 1]]), k=2).tolist()
    [1.0]
    """
    scores, targets = _check(scores, targets, k)
    return jnp.any(_best(scores, targets > 0, k), -1).astype(jnp.float32)


def r_precision(scores: Scores, targets: Targets) -> PerQuery:
    """Precision at the depth of the number of relevant items, `R`.

    `sum_{r <= R} rel_r / R`.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].

    Returns:
      One value a query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit.

    Source: A Metric Learning Reality Check, arXiv 2003.08505, Section 3.1.

    >>> r_precision(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 1]])).tolist()
    [0.5]
    """
    scores, targets = _check(scores, targets)
    hits, within, count = _within_r(scores, targets)
    return jnp.sum(hits * within, -1) / jnp.maximum(count, 1)


def _within_r(scores: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Relevance by rank [queries, items], which ranks are up to R, and R."""
    hits = _best(scores, targets > 0, scores.shape[1]).astype(jnp.float32)
    count = _number(targets > 0)
    return hits, jnp.arange(scores.shape[1]) < count[:, None], count


def map_at_r(scores: Scores, targets: Targets) -> PerQuery:
    """Mean average precision at the depth of the number of relevant items, `R`.

    `sum_{r <= R} rel_r P@r / R`.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].

    Returns:
      One value a query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit.

    Source: A Metric Learning Reality Check, arXiv 2003.08505, Eq. 1.

    >>> map_at_r(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[0, 1, 1]])).tolist()
    [0.25]
    """
    scores, targets = _check(scores, targets)
    hits, within, count = _within_r(scores, targets)
    precision = jnp.cumsum(hits, -1) / jnp.arange(1, scores.shape[1] + 1)
    return jnp.sum(hits * precision * within, -1) / jnp.maximum(count, 1)


def ndcg_at_k(scores: Scores, targets: Targets, *, k: int = 5) -> PerQuery:
    """Discounted gain of the k highest ranked items over that of the best ranking.

    `sum_{r <= k} g_r / log2(r + 1)` over the largest value it can take; the gains `g` are `targets`
    as they are.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: the gain of each item, zero or more; true counts as one [queries, items].
      k: the depth.

    Returns:
      One value a query [queries], in float32.

    Raises:
      ValueError: if the shapes do not fit or `k` is not from 1 to the number of items.

    Source: textbook definition with linear gains, as `ndcg_score` of scikit-learn and, for 0 and 1,
    nDCG@k of the Extreme Classification Repository.

    >>> ndcg_at_k(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[1, 0, 0]]), k=2).tolist()
    [1.0]
    """
    scores, targets = _check(scores, targets, k)
    gains = targets.astype(jnp.float32)
    discount = 1 / jnp.log2(jnp.arange(2, k + 2, dtype=jnp.float32))
    best = jnp.sum(jax.lax.top_k(gains, k)[0] * discount, -1)
    got = jnp.sum(_best(scores, gains, k) * discount, -1)
    return jnp.where(best > 0, got / jnp.where(best > 0, best, 1), 0)


def label_propensities(
    counts: Int[Array, "items"], *, examples: int, a: float = 0.55, b: float = 1.5
) -> Float[Array, "items"]:
    """How likely a relevant label is to have been noticed, from how often it was seen.

    `1 / (1 + C (n + b)^-a)` with `C = (log N - 1) (b + 1)^a`.

    Args:
      counts: in how many training examples each label is relevant, `n` [items].
      examples: the number of training examples, `N`, three or more.
      a: 0.55 for most data sets, 0.5 for Wikipedia, 0.6 for Amazon.
      b: 1.5 for most data sets, 0.4 for Wikipedia, 2.6 for Amazon.

    Returns:
      Propensities [items], in float32.

    Raises:
      ValueError: if a shape or number does not fit.

    Source: Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking & Other Missing
    Label Applications (Jain, Prabhu, Varma, KDD 2016), Eq. 6.

    >>> np.asarray(label_propensities(jnp.array([1, 100]), examples=1000), float).round(3)
    array([0.145, 0.565])
    """
    check_rank("counts", counts, 1)
    check(
        isinstance(examples, int) and examples > 2,
        "examples",
        f"got {examples!r}, takes an integer of three or more",
    )
    check_positive(a=a, b=b)
    n = jnp.asarray(counts).astype(jnp.float32)
    c = (jnp.log(jnp.float32(examples)) - 1) * jnp.power(jnp.float32(b + 1), a)
    return 1 / (1 + c * jnp.power(n + b, -a))


def propensity_scored_precision_at_k(
    scores: Scores,
    targets: Targets,
    propensities: Float[Array, "items"],
    *,
    k: int = 1,
    is_normalized: bool = True,
) -> PerQuery:
    """Precision at k in which rare labels count more, over the best that is possible.

    `sum_{r <= k} rel_r / p_r` over its value for the best ranking.

    Args:
      scores: the higher, the earlier [queries, items].
      targets: above zero where relevant [queries, items].
      propensities: the `p` of each item, see `label_propensities` [items].
      k: the depth.
      is_normalized: False returns `sum_{r <= k} rel_r / p_r / k` alone.

    Returns:
      One value a query [queries], in float32. The usual PSP@k of a data set is a ratio of sums over
      its queries, not the mean of ratios: with `is_normalized=False`, the sum for `scores` over
      that for the best scores, `targets / propensities`.

    Raises:
      ValueError: if the shapes do not fit or `k` is not from 1 to the number of items.

    Source: Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking & Other Missing
    Label Applications (Jain, Prabhu, Varma, KDD 2016), Section 4; PSP@k of the Extreme
    Classification Repository, and the ratio of sums that of `xclib/evaluation/xc_metrics.py` of
    kunaldahiya/pyxclib. In the same way `ndcg_at_k` of `targets / propensities` is the
    propensity-scored nDCG of each query.

    >>> scores, p = jnp.array([[3.0, 2.0, 1.0]]), jnp.array([1.0, 1.0, 0.5])
    >>> propensity_scored_precision_at_k(scores, jnp.array([[1, 0, 1]]), p, k=1).tolist()
    [0.5]
    """
    scores, targets = _check(scores, targets, k)
    check_floating(propensities=propensities)
    check_shape("propensities", propensities, scores.shape[1:], "[items], as scores")
    gains = jnp.where(targets > 0, 1 / upcast(propensities).astype(jnp.float32), 0)
    got = jnp.sum(_best(scores, gains, k), -1)
    if not is_normalized:
        return got / k
    best = jnp.sum(jax.lax.top_k(gains, k)[0], -1)
    return jnp.where(best > 0, got / jnp.where(best > 0, best, 1), 0)
