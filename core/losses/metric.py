"""Metric learning: a batch of labelled embeddings, positives drawn together, negatives apart.

Every loss is a few lines on `Pairs`, and takes what the engine offers:

- `references` and `reference_labels`: compare the anchors with these (a memory of earlier batches)
  rather than with each other;
- `labels` as integers, as booleans [batch, labels] (a pair is positive that shares a label) or as
  explicit `PairMasks`;
- `chunk_size`, `axis_name` and `ring`, as the module `pairs` describes.

An anchor without positives, or without negatives where the loss compares the two, has loss zero.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import check, check_positive, check_range, restore
from ._shared import everyone, softplus
from .batch_pairs import in_batch
from .pair_sums import (
    Embeddings,
    PerAnchor,
    Reduction,
    References,
    average,
    check_reduction,
    decoupled,
)
from .pairs import Block, Labels, negative, positive
from .similarity import DISTANCES, SIMILARITIES, Similarity, named


def contrastive_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    power: int = 2,
    distance: str | Similarity = "euclidean",
    reduction: Reduction = "mean",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Contrastive loss: positives closer than one margin, negatives farther than another.

    `mean_p [d_ap - m_p]_+^k / k + mean_n [m_n - d_an]_+^k / k`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_margin: the distance up to which a positive pair costs nothing, `m_p`.
      negative_margin: the distance from which on a negative pair costs nothing, `m_n`.
      power: the exponent `k`, 1 or 2.
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      reduction: "mean" over an anchor's pairs, over the "active" ones that cost something, "sum".
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Dimensionality Reduction by Learning an Invariant Mapping (Hadsell, Chopra, LeCun,
    CVPR 2006), Eq. 4, averaged for each anchor. KevinMusgrave/pytorch-metric-learning has
    `power=1`, unit vectors and "active" over the pairs of the whole batch.

    >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])
    >>> contrastive_loss(x, jnp.array([0, 0, 1])).tolist()
    [12.625, 12.5, 0.0625]
    """
    check_range("positive_margin", positive_margin, 0)
    check_range("negative_margin", negative_margin, 0)
    check(power in (1, 2), "power", f"got {power!r}, takes 1 or 2")
    check_reduction(reduction)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("distance", distance, DISTANCES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )

    def cost(excess: Array) -> Array:
        return jax.nn.relu(excess) ** power / power

    near = average(pairs, lambda b: cost(b.values - positive_margin), positive, reduction)
    far = average(pairs, lambda b: cost(negative_margin - b.values), negative, reduction)
    return restore(near + far, embeddings)


def n_pair_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    l2_penalty: float = 0.0,
    similarity: str | Similarity = "dot",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Multi-class N-pair loss: a positive against all negatives of the anchor at once.

    `mean_p log(1 + sum_n exp(s_an - s_ap)) + l2_penalty |x_a|^2`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      l2_penalty: weight of the squared norm of the anchor.
      similarity: "dot", "cosine" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Improved Deep Metric Learning with Multi-class N-pair Loss Objective (Sohn, NeurIPS
    2016), Eq. 7, for any number of positives; `NPairsLoss` of
    KevinMusgrave/pytorch-metric-learning takes one pair a class.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> np.asarray(n_pair_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.313, 0.313, 0.   ])
    """
    check_range("l2_penalty", l2_penalty, 0)
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
    loss = decoupled(pairs, jnp.ones(len(embeddings), pairs.dtype))
    penalty = l2_penalty * jnp.sum(jnp.square(pairs.anchors[0]), -1)
    return restore(loss + penalty, embeddings)


def nca_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    scale: float = 1.0,
    distance: str | Similarity = "squared_euclidean",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Neighbourhood components analysis: the share of a soft neighbourhood that is of the class.

    `-log(sum_p exp(-scale d_ap) / sum_j exp(-scale d_aj))`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      scale: the inverse temperature.
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Neighbourhood Components Analysis (Goldberger, Roweis, Hinton, Salakhutdinov, NeurIPS
    2004), the logarithm of Eq. 5's terms; `NCALoss` of KevinMusgrave/pytorch-metric-learning
    agrees, of unit vectors and without the anchors that have no positive.

    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    >>> np.asarray(nca_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([1.137, 0.576, 0.   ])
    """
    check_positive(scale=scale)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("distance", distance, DISTANCES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    near, far = (pairs.log_sum_exp(lambda b: -scale * b.values, w) for w in (positive, negative))
    there = near != -jnp.inf
    loss = softplus(far - jnp.where(there, near, 0))
    return restore(jnp.where(there, loss, 0), embeddings)


def lifted_structure_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    is_pairwise: bool = False,
    distance: str | Similarity = "euclidean",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Lifted structure loss, generalized: all positives of an anchor against all its negatives.

    `[log sum_p exp(d_ap - m_p) + log sum_n exp(m_n - d_an)]_+`; the original, `is_pairwise`, takes
    each positive pair against the negatives of both,
    `mean_p [d_ap - m_p + log(sum_n exp(m_n - d_an) + sum_n exp(m_n - d_pn))]_+^2 / 2`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_margin: subtracted from the distance of positives, `m_p`.
      negative_margin: distance from which on a negative matters less, `m_n`.
      is_pairwise: the original loss; the batch is then compared with itself, without a ring.
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: In Defense of the Triplet Loss for Person Re-Identification, arXiv 1703.07737, Eq. 8
    (the lifted embedding of arXiv 1511.06452 for each anchor);
    `GeneralizedLiftedStructureLoss` of KevinMusgrave/pytorch-metric-learning agrees, but for
    anchors without positives or negatives, whose empty sums it sets to zero. `is_pairwise` is
    Eq. 4 of arXiv 1511.06452 and `LiftedStructureLoss` there, in the mean over positive pairs.

    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    >>> np.asarray(lifted_structure_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([1.5  , 0.882, 0.   ])
    """
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=named("distance", distance, DISTANCES),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    far = pairs.log_sum_exp(lambda b: negative_margin - b.values, negative)
    if is_pairwise:
        check(references is None, "references", "got an array, takes None with is_pairwise")
        check(not ring, "ring", "got True, takes False with is_pairwise")
        everywhere = everyone(far, axis_name)
        # Over no negatives the sum is empty, whose logarithm would be minus infinity.
        some = everywhere != -jnp.inf
        safe = jnp.where(some, everywhere, jnp.finfo(pairs.dtype).min / 4)

        def cost(b: Block, far: Array) -> Array:
            others = jnp.logaddexp(far, safe[b.number][None])
            excess = jax.nn.relu(b.values - positive_margin + others)
            return jnp.where(b.positive, jnp.square(excess) / 2, 0)

        own = jnp.where(far != -jnp.inf, far, jnp.finfo(pairs.dtype).min / 4)
        loss = pairs.total(cost, own) / jnp.maximum(pairs.count(positive), 1)
        return restore(loss, embeddings)
    near = pairs.log_sum_exp(lambda b: b.values - positive_margin, positive)
    there = (near != -jnp.inf) & (far != -jnp.inf)
    total = jnp.where(there, near, 0) + jnp.where(there, far, 0)
    return restore(jax.nn.relu(total), embeddings)
