"""Mining: which pairs of a batch a loss is given, as `PairMasks` in place of its labels.

    masks = hard_pairs(embeddings, labels, share=0.5)
    loss = contrastive_loss(embeddings, masks)

`triplet_loss` and `multi_similarity_loss` mine by themselves.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import check, check_count, check_key, check_positive, check_range
from .batch_pairs import in_batch
from .pair_sums import Embeddings, References
from .pairs import Block, Labels, PairMasks
from .similarity import DISTANCES, Similarity, named, pairwise_euclidean

Hardness = Literal["easy", "semi_hard", "hard", "all"]


def _block(
    embeddings: Any, labels: Any, references: Any, reference_labels: Any, distance: Any
) -> Block:
    """All pairs with their distances, constant for the gradient."""
    compare = named("distance", distance, DISTANCES)
    pairs = in_batch(embeddings, labels, references, reference_labels, compare=compare)
    return pairs.constant().dense


def margin_pairs(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive_margin: float = 0.2,
    negative_margin: float = 0.8,
    distance: str | Similarity = "normalized_euclidean",
) -> PairMasks:
    """The pairs on the wrong side of a margin.

    Positives with `d_ap > positive_margin` and negatives with `d_an < negative_margin`.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive_margin: the distance up to which a positive is left out.
      negative_margin: the distance from which on a negative is left out.
      distance: as for `contrastive_loss`.

    Returns:
      `PairMasks` of arrays [batch, references].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: `PairMarginMiner` of KevinMusgrave/pytorch-metric-learning.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> margin_pairs(x, jnp.array([0, 0, 1]), negative_margin=0.5).negative.astype(int).tolist()
    [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    check_range("positive_margin", positive_margin, 0)
    check_range("negative_margin", negative_margin, 0)
    b = _block(embeddings, labels, references, reference_labels, distance)
    near = b.positive & (b.values > positive_margin)
    return PairMasks(near, b.negative & (b.values < negative_margin))


def hard_pairs(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    share: float = 0.5,
    distance: str | Similarity = "normalized_euclidean",
) -> PairMasks:
    """The hardest share of the positive pairs of a batch, and of its negative pairs.

    The `ceil(share N)` of `N` positive pairs that are farthest apart, and the same of negative
    pairs that are closest; of equal ones the first.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      share: of the pairs of the batch.
      distance: as for `contrastive_loss`.

    Returns:
      `PairMasks` of arrays [batch, references].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Hard-Aware Deeply Cascaded Embedding, arXiv 1611.05720, Section 3.3; `HDCMiner` of
    KevinMusgrave/pytorch-metric-learning agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> hard_pairs(x, jnp.array([0, 0, 1])).negative.astype(int).tolist()
    [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    check_range("share", share, 0, 1, open_low=True)
    b = _block(embeddings, labels, references, reference_labels, distance)

    def hardest(which: Bool[Array, "*P"], values: Float[Array, "*P"]) -> Bool[Array, "*P"]:
        order = jnp.argsort(jnp.where(which, -values, jnp.inf).reshape(-1))
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
        # A product in float32 may be just above the whole number that it stands for.
        count = jnp.ceil(share * jnp.sum(which) * (1 - 1e-6))
        return which & (rank.reshape(which.shape) < count)

    return PairMasks(hardest(b.positive, b.values), hardest(b.negative, -b.values))


def easy_hard_pairs(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    positive: Hardness = "easy",
    negative: Hardness = "semi_hard",
    distance: str | Similarity = "normalized_euclidean",
) -> PairMasks:
    """One positive and one negative of each anchor, by how hard they are.

    The "easy" positive is the nearest, the "hard" one the farthest and the "semi_hard" one the
    farthest that is nearer than the negative; the "hard" negative is the nearest, the "easy" one
    the farthest and the "semi_hard" one the nearest that is farther than the positive. With "all"
    each anchor keeps them all. An anchor that has not both is left out, unless one is "all".

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      positive: "easy", "semi_hard", "hard" or "all".
      negative: "easy", "semi_hard", "hard" or "all"; only one can be "semi_hard", and then the
        other is not "all".
      distance: as for `contrastive_loss`.

    Returns:
      `PairMasks` of arrays [batch, references].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Improved Embeddings with Easy Positive Triplet Mining, arXiv 1904.04370, Section 3;
    `BatchEasyHardMiner` of KevinMusgrave/pytorch-metric-learning agrees.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    >>> masks = easy_hard_pairs(x, jnp.array([0, 0, 1, 1]))
    >>> masks.negative.astype(int).tolist()
    [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    """
    known = ("easy", "semi_hard", "hard", "all")
    for name, choice in (("positive", positive), ("negative", negative)):
        check(choice in known, name, f"got {choice!r}, takes {', '.join(map(repr, known))}")
    both = {positive, negative}
    check(
        "semi_hard" not in both or (len(both) > 1 and "all" not in both),
        "negative",
        f"got {negative!r} together with positive={positive!r}, takes one semi_hard, and no all",
    )
    b = _block(embeddings, labels, references, reference_labels, distance)

    def choose(which: Any, nearest: bool) -> tuple[Array, Array]:
        """The nearest (farthest) pair of each anchor as a mask, and its distance."""
        values = jnp.where(which, b.values if nearest else -b.values, jnp.inf)
        first = jnp.argmin(values, 1)[:, None]
        one = which & (jnp.arange(values.shape[1])[None] == first)
        return one, jnp.take_along_axis(b.values, first, 1)

    near, far = b.positive, b.negative
    if negative == "semi_hard":
        near, limit = choose(near, positive == "easy")
        far, _ = choose(far & (b.values > limit), True)
    elif positive == "semi_hard":
        far, limit = choose(far, negative == "hard")
        near, _ = choose(near & (b.values < limit), False)
    else:
        near = near if positive == "all" else choose(near, positive == "easy")[0]
        far = far if negative == "all" else choose(far, negative == "hard")[0]
    if "all" not in both:
        there = jnp.any(near, 1, keepdims=True) & jnp.any(far, 1, keepdims=True)
        near, far = near & there, far & there
    return PairMasks(near, far)


def distance_weighted_pairs(
    key: Array,
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    negatives: int = 1,
    cutoff: float = 0.5,
    farthest: float = 1.4,
) -> PairMasks:
    """All positives of each anchor, and negatives drawn evenly over distances.

    Negatives with the probability `~ 1 / q(max(d, cutoff))` for `d < farthest`, none twice, where
    `q(d) = d^(features - 2) (1 - d^2 / 4)^((features - 3) / 2)` is how often distances of random
    unit vectors occur; among all its negatives, where none of an anchor's is so near.

    Args:
      key: a typed key [].
      embeddings: the anchors, made unit vectors here [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      negatives: how many are drawn for each anchor; the paper has as many as positives.
      cutoff: the distance below which negatives weigh no more.
      farthest: the distance from which on negatives are not drawn, below 2.

    Returns:
      `PairMasks` of arrays [batch, references].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Sampling Matters in Deep Embedding Learning, arXiv 1706.07567, Section 4.1;
    `DistanceWeightedMiner` of KevinMusgrave/pytorch-metric-learning has the same weights. The
    authors' code has them, too, but draws from the own class as well where no negative is near.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> masks = distance_weighted_pairs(jax.random.key(0), x, jnp.array([0, 0, 1]))
    >>> jnp.sum(masks.negative, 1).tolist()
    [1, 1, 1]
    """
    check_key(key=key)
    check_count(negatives=negatives)
    check_positive(cutoff=cutoff)
    check_range("farthest", farthest, cutoff, 2, open_low=True, open_high=True)
    b = _block(
        embeddings,
        labels,
        references,
        reference_labels,
        lambda x, y: pairwise_euclidean(x, y, normalize=True),
    )
    features = jnp.shape(embeddings)[1]
    d = jnp.clip(b.values, cutoff, farthest)
    log_weight = (2 - features) * jnp.log(d) - (features - 3) / 2 * jnp.log1p(-d * d / 4)
    within = b.negative & (b.values < farthest)
    some = jnp.any(within, 1, keepdims=True)
    log_weight = jnp.where(some, jnp.where(within, log_weight, -jnp.inf), 0)
    # The largest of log-weights with Gumbel noise are a draw without repetition.
    noise = jax.random.gumbel(key, d.shape, jnp.float32)
    score = jnp.where(jnp.where(some, within, b.negative), log_weight + noise, -jnp.inf)
    _, chosen = jax.lax.top_k(score, min(negatives, d.shape[1]))
    drawn = jnp.any(chosen[..., None] == jnp.arange(d.shape[1]), 1)
    return PairMasks(b.positive, drawn & (score > -jnp.inf))


def histogram_pairs(
    key: Array,
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    bins: int = 100,
    positives_per_bin: int = 10,
    negatives_per_bin: int = 10,
    distance: str | Similarity = "normalized_euclidean",
) -> PairMasks:
    """Pairs drawn evenly over distances: at most so many of every bin of equal width.

    The distances of the positive pairs of the batch, from the smallest to the largest, are cut into
    bins, and of every bin pairs are drawn at random, none twice; so are negative pairs.

    Args:
      key: a typed key [].
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      bins: how many bins.
      positives_per_bin: how many positive pairs of a bin, at most.
      negatives_per_bin: how many negative pairs of a bin, at most.
      distance: as for `contrastive_loss`.

    Returns:
      `PairMasks` of arrays [batch, references].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: `UniformHistogramMiner` of KevinMusgrave/pytorch-metric-learning, which draws a pair of
    a sparse bin several times.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> masks = histogram_pairs(jax.random.key(0), x, jnp.array([0, 1, 2]), bins=1)
    >>> masks.negative.astype(int).tolist()
    [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    """
    check_key(key=key)
    counts = {"positives_per_bin": positives_per_bin, "negatives_per_bin": negatives_per_bin}
    check_count(bins=bins, **counts)
    b = _block(embeddings, labels, references, reference_labels, distance)

    def even(key: Array, which: Bool[Array, "*P"], most: int) -> Bool[Array, "*P"]:
        there, values = which.reshape(-1), b.values.reshape(-1)
        low = jnp.min(jnp.where(there, values, jnp.inf))
        high = jnp.max(jnp.where(there, values, -jnp.inf))
        place = jnp.where(high > low, (values - low) / jnp.where(high > low, high - low, 1), 0)
        number = jnp.clip((place * bins).astype(jnp.int32), 0, bins - 1)
        number = jnp.where(there, number, bins)
        # In a random order, by bin: the rank within the bin is the distance from its start.
        order = jnp.lexsort((jax.random.uniform(key, there.shape, jnp.float32), number))
        start = jnp.searchsorted(number[order], number[order])
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)) - start)
        return which & (rank < most).reshape(which.shape)

    first, second = jax.random.split(key)
    return PairMasks(
        even(first, b.positive, positives_per_bin), even(second, b.negative, negatives_per_bin)
    )
