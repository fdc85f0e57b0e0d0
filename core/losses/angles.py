"""Pair losses of angles: at the negative of a triplet, and between unit vectors."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import check_positive, check_range, restore, safe_divide
from ._shared import mean_of_rows, sine, softplus
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, References
from .pairs import Block, Labels, negative, positive
from .similarity import pairwise_cosine


def angular_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    angle: float = 45.0,
    axis_name: str | None = None,
) -> PerAnchor:
    """Angular loss: the angle at the negative of a triangle with anchor and positive is bounded.

    `mean_p log(1 + sum_n exp(4 tan^2(angle) <x_a + x_p, x_n> - 2 (1 + tan^2(angle)) <x_a, x_p>))`
    of unit vectors.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      angle: the bound alpha in degrees, up to 60; the paper has 36 to 55.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Deep Metric Learning with Angular Loss, arXiv 1708.01682, Eq. 8, for all negatives of
    the anchor; `AngularLoss` of KevinMusgrave/pytorch-metric-learning, which does not normalize
    negatives, agrees for unit vectors, in the mean over the positive pairs of the batch.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> np.asarray(angular_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([1.171, 1.171, 0.   ])
    """
    check_range("angle", angle, 0, 60, open_low=True)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=pairwise_cosine,
        axis_name=axis_name,
    )
    squared = math.tan(math.radians(angle)) ** 2
    near, y = pairs.dense, pairs.references[0]
    # exp <x_a + x_p, x_n> is a product of two factors, so the sum over n is one of matrices.
    far = 4 * squared * near.values
    beside = 4 * squared * pairwise_cosine(y, y)
    tops = []
    for values, there in ((far, near.negative), (beside, jnp.ones_like(beside, bool))):
        top = jnp.max(jnp.where(there, values, -jnp.inf), 1, keepdims=True, initial=-8 * squared)
        tops.append(jax.lax.stop_gradient(top))
    factors = jnp.where(near.negative, jnp.exp(far - tops[0]), 0), jnp.exp(beside - tops[1])
    total = jnp.matmul(factors[0], factors[1].T, precision=jax.lax.Precision.HIGHEST)
    some = total != 0
    others = jnp.where(some, jnp.log(jnp.where(some, total, 1)) + tops[0] + tops[1].T, -jnp.inf)
    cost = softplus(others - 2 * (1 + squared) * near.values)
    count = jnp.sum(near.positive, 1)
    loss = jnp.sum(jnp.where(near.positive, cost, 0), 1) / jnp.maximum(count, 1)
    return restore(loss, embeddings)


def tuplet_margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    margin: float = 0.1,
    scale: float = 64.0,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Tuplet margin loss: a positive against all negatives, with a slack for hard positives.

    `mean_p log(1 + sum_n exp(scale (cos theta_an - cos(theta_ap - margin))))`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      margin: the slack beta in radians.
      scale: of the cosines.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Deep Metric Learning with Tuplet Margin Loss (Yu and Tao, ICCV 2019), Eq. 4;
    `TupletMarginLoss` of KevinMusgrave/pytorch-metric-learning (margin 5.73 degrees) takes the mean
    over the positive pairs of the batch.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> np.asarray(tuplet_margin_loss(x, jnp.array([0, 0, 1]), scale=2.0), float).round(3)
    array([0.23 , 0.824, 0.   ])
    """
    check_range("margin", margin, 0, math.pi / 2)
    check_positive(scale=scale)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    others = pairs.log_sum_exp(lambda b: scale * b.values, negative)
    some = others != -jnp.inf
    others = jnp.where(some, others, 0)

    def cost(b: Block, others: Array, some: Array) -> Array:
        near = b.values * jnp.cos(margin) + sine(b.values) * jnp.sin(margin)
        return jnp.where(b.positive & (some > 0), softplus(others - scale * near), 0)

    loss = pairs.total(cost, others, some) / jnp.maximum(pairs.count(positive), 1)
    return restore(loss, embeddings)


def intra_pair_variance_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_slack: float = 0.01,
    negative_slack: float = 0.01,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Intra-pair variance: all positive pairs alike, and all negative pairs; added to another loss.

    `sum_p [(1 - e) m_+ - s_ap]_+^2 / N_+ + sum_n [s_an - (1 + e) m_-]_+^2 / N_-` with cosines `s`,
    their means `m` over the positive and the negative pairs of the batch, and `N` their numbers for
    an anchor on average, so that the mean of the losses is the paper's.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_slack: `e` of positives.
      negative_slack: `e` of negatives.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Deep Metric Learning with Tuplet Margin Loss (Yu and Tao, ICCV 2019), Eq. 8 and 9;
    `IntraPairVarianceLoss` of KevinMusgrave/pytorch-metric-learning computes the mean.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> np.asarray(intra_pair_variance_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.   , 0.118, 0.118])
    """
    check_range("positive_slack", positive_slack, 0)
    check_range("negative_slack", negative_slack, 0)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=pairwise_cosine,
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )

    def spread(which: Callable[[Block], Array], sign: float, slack: float) -> Array:
        number = mean_of_rows(pairs.count(which), axis_name)
        total = mean_of_rows(pairs.total(lambda b: jnp.where(which(b), b.values, 0)), axis_name)
        mean = safe_divide(total, number)
        limit = jnp.full(len(embeddings), 1 + sign * slack) * mean

        def cost(b: Block, limit: Array) -> Array:
            excess = jax.nn.relu(sign * (b.values - limit))
            return jnp.where(which(b), jnp.square(excess), 0)

        return safe_divide(pairs.total(cost, limit), number)

    loss = spread(positive, -1.0, positive_slack) + spread(negative, 1.0, negative_slack)
    return restore(loss, embeddings)
