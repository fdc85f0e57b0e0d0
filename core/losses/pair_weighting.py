"""Pair losses that weight each pair by how far it is from where it should be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import check_positive, check_range, restore, safe_divide
from ._shared import mean_of_rows, softplus
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, References, average
from .pairs import Block, Labels, either, negative, positive
from .similarity import SIMILARITIES, Similarity, named


def multi_similarity_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_scale: float = 2.0,
    negative_scale: float = 50.0,
    base: float = 0.5,
    mining_margin: float | None = 0.1,
    similarity: str | Similarity = "cosine",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Multi-similarity loss: pairs weighted by their own and their relative similarity.

    `log(1 + sum_p exp(-a (s_ap - base))) / a + log(1 + sum_n exp(b (s_an - base))) / b`

    over the pairs that are mined: negatives more similar than the least similar positive less
    `mining_margin`, and positives less similar than the most similar negative plus it.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_scale: `a` (alpha in the paper).
      negative_scale: `b` (beta in the paper).
      base: the similarity that divides the two (lambda in the paper).
      mining_margin: epsilon of the paper; None for all pairs, and then an anchor without positives
        still repels its negatives.
      similarity: "cosine", "dot" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, arXiv
    1904.06627, Eq. 11 to 15; `MultiSimilarityLoss` and `MultiSimilarityMiner` of
    KevinMusgrave/pytorch-metric-learning agree.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> np.asarray(multi_similarity_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.   , 0.679, 0.   ])
    """
    check_positive(positive_scale=positive_scale, negative_scale=negative_scale)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("similarity", similarity, SIMILARITIES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    lowest = jnp.finfo(pairs.dtype).min
    if mining_margin is None:
        least = jnp.full(len(embeddings), lowest)
        most = -least
    else:
        # Half the range, so that no margin added to it overflows; where there are none, nothing
        # is mined.
        least = -pairs.bound(lambda b: jnp.where(b.positive, -b.values, lowest / 2)) - mining_margin
        most = pairs.bound(lambda b: jnp.where(b.negative, b.values, lowest / 2)) + mining_margin

    # NaN is mined, so that it is seen.
    def near(b: Block, most: Array) -> Array:
        return b.positive & ~(b.values >= most)

    def far(b: Block, least: Array) -> Array:
        return b.negative & ~(b.values <= least)

    def term(b: Block, sign: float, scale: Any, there: Array) -> Array:
        return jnp.where(there, sign * scale * (b.values - base), lowest)

    def log_sum(which: Any, limit: Array, sign: float, scale: Any) -> Array:
        total = pairs.log_sum_exp(
            lambda b, limit: term(b, sign, scale, which(b, limit)), either, limit
        )
        # Over none, the sum is of numbers that stand for zero, or empty.
        return softplus(jnp.where(total <= lowest / 2, -jnp.inf, total)) / scale

    attract = log_sum(near, most, -1.0, positive_scale)
    repel = log_sum(far, least, 1.0, negative_scale)
    return restore(attract + repel, embeddings)


def circle_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    margin: float = 0.4,
    scale: float = 80.0,
    similarity: str | Similarity = "cosine",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Circle loss: every pair pulled as hard as it is far from its optimum.

    `log(1 + sum_n exp(g [s_n + m]_+ (s_n - m)) sum_p exp(-g [1 + m - s_p]_+ (s_p - 1 + m)))`
    with the factors in brackets constant for the gradient.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      margin: `m`, how far the optima are relaxed.
      scale: `g`, gamma in the paper; 80 for retrieval, 256 with margin 0.25 for faces.
      similarity: "cosine", "dot" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Circle Loss: A Unified Perspective of Pair Similarity Optimization, arXiv 2002.10857,
    Eq. 4 to 8, for each anchor; `CircleLoss` of KevinMusgrave/pytorch-metric-learning agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> np.asarray(circle_loss(x, jnp.array([0, 0, 1]), scale=8.0), float).round(3)
    array([1.063, 5.139, 0.   ])
    """
    check_range("margin", margin, 0)
    check_positive(scale=scale)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("similarity", similarity, SIMILARITIES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    weight = jax.lax.stop_gradient

    def near(b: Block) -> Array:
        return -scale * jax.nn.relu(1 + margin - weight(b.values)) * (b.values - 1 + margin)

    def far(b: Block) -> Array:
        return scale * jax.nn.relu(weight(b.values) + margin) * (b.values - margin)

    total = pairs.log_sum_exp(near, positive) + pairs.log_sum_exp(far, negative)
    return restore(softplus(total), embeddings)


def threshold_consistent_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.5,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Threshold-consistent margin (TCM) loss: a regularizer for one threshold for all classes.

    `w_p sum_{p: s <= m_p} (m_p - s_p) / N_p + w_n sum_{n: s >= m_n} (s_n - m_n) / N_n`

    with cosines `s`. `N_p` and `N_n` are the numbers of such hard pairs for each anchor on average
    over the batch, so that the mean of the losses is the paper's. Added to another loss.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_margin: the cosine that positives must reach, `m_p`.
      negative_margin: the cosine that negatives must stay below, `m_n`.
      positive_weight: `w_p` (lambda plus in the paper).
      negative_weight: `w_n` (lambda minus in the paper).
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Threshold-Consistent Margin Loss for Open-World Deep Metric Learning, arXiv 2307.04047,
    the definition of the TCM regularizer; `ThresholdConsistentMarginLoss` of
    KevinMusgrave/pytorch-metric-learning computes the mean.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> np.asarray(threshold_consistent_margin_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.225, 0.495, 0.42 ])
    """
    check_range("positive_margin", positive_margin, -1, 1)
    check_range("negative_margin", negative_margin, -1, 1)
    check_range("positive_weight", positive_weight, 0)
    check_range("negative_weight", negative_weight, 0)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("similarity", "cosine", SIMILARITIES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )

    def near(b: Block) -> Array:
        return b.positive & (b.values <= positive_margin)

    def far(b: Block) -> Array:
        return b.negative & (b.values >= negative_margin)

    def share(values: Callable[[Block], Array], which: Callable[[Block], Array]) -> Array:
        number = mean_of_rows(pairs.count(which), axis_name)
        return safe_divide(average(pairs, values, which, "sum"), number)

    attract = share(lambda b: positive_margin - b.values, near)
    repel = share(lambda b: b.values - negative_margin, far)
    return restore(positive_weight * attract + negative_weight * repel, embeddings)
