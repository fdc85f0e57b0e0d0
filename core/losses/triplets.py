"""Triplet loss, over all triplets of a batch or those that mining picks."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..numerics import check, check_range, restore
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, Reduction, References, check_reduction
from .pairs import Block, Labels, negative, positive
from .similarity import DISTANCES, Similarity, named


def _sorted_negatives(block: Block) -> tuple[Array, Array]:
    """Distances in ascending order, the negatives' first [anchors, references], and a count."""
    order = jnp.argsort(jnp.where(block.negative, block.values, jnp.inf), axis=-1)
    return jnp.take_along_axis(block.values, order, -1), jnp.sum(block.negative, -1, keepdims=True)


def _rank(block: Block, at: Array, side: str) -> Array:
    """How many negatives of the anchor lie below each of `at` [anchors, references]."""
    ascending = jnp.sort(jnp.where(block.negative, block.values, jnp.inf), axis=-1)
    find = jax.vmap(lambda a, v: jnp.searchsorted(a, v, side=side))
    return jax.lax.stop_gradient(find(*map(jax.lax.stop_gradient, (ascending, at))))


def _all_triplets(block: Block, margin: Any, reduction: Reduction) -> Array:
    """`[margin + d_ap - d_an]_+` over all positives and negatives of each anchor.

    With the negatives in ascending order the active ones of a positive are the first `k`, so their
    sum is `k (margin + d_ap)` less a prefix sum: all triplets in the memory of all pairs.
    """
    limit = block.values + margin
    ascending, count = _sorted_negatives(block)
    here = jnp.arange(ascending.shape[-1]) < count
    prefix = jnp.cumsum(jnp.where(here, ascending, 0), -1)
    k = _rank(block, limit, "left")
    below = jnp.where(k > 0, jnp.take_along_axis(prefix, jnp.maximum(k - 1, 0), -1), 0)
    total = jnp.sum(jnp.where(block.positive, k * limit - below, 0), -1)
    if reduction == "sum":
        return total
    number = k if reduction == "active" else count
    triplets = jnp.sum(jnp.where(block.positive, number, 0), -1)
    return total / jnp.maximum(triplets, 1)


def _semi_hard(block: Block, margin: Any, reduction: Reduction) -> Array:
    """Each positive with the nearest negative beyond it, or with the farthest one if none is."""
    ascending, count = _sorted_negatives(block)
    k = jnp.minimum(_rank(block, block.values, "right"), count - 1)
    partner = jnp.take_along_axis(ascending, jnp.maximum(k, 0), -1)
    pairs = block.positive & (count > 0)
    cost = jnp.where(pairs, jax.nn.relu(margin + block.values - partner), 0)
    number = jnp.sum(pairs & (cost > 0) if reduction == "active" else pairs, -1)
    return jnp.sum(cost, -1) / (1 if reduction == "sum" else jnp.maximum(number, 1))


def triplet_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    margin: float | None = 0.2,
    mining: Literal["hard", "semi_hard", "all"] = "hard",
    distance: str | Similarity = "euclidean",
    reduction: Reduction = "mean",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Triplet loss: each positive closer than each negative, by a margin.

    `[margin + d_ap - d_an]_+`, over the triplets that `mining` picks: the anchor's farthest
    positive with its nearest negative ("hard"); every positive with the nearest negative that is
    farther than it, or with the farthest one if none is ("semi_hard"); or every positive with every
    negative ("all", in the memory of all pairs).

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      margin: how much closer; None for the soft margin `log(1 + exp(d_ap - d_an))` of "hard".
      mining: "hard", "semi_hard" or "all".
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      reduction: "mean" over an anchor's triplets, over the "active" ones that cost something,
        "sum".
      chunk_size: look at so many references at a time ("hard" only); all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them ("hard" only).

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: FaceNet, arXiv 1503.03832, Eq. 1 and semi-hard negatives (squared distances of unit
    vectors there); In Defense of the Triplet Loss for Person Re-Identification, arXiv 1703.07737,
    Eq. 5 ("hard"), Eq. 6 ("all", with "active" its batch-all without zeros) and the soft margin.

    >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    >>> np.asarray(triplet_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.7  , 0.082, 0.   ])
    """
    modes = ("hard", "semi_hard", "all")
    check(mining in modes, "mining", f"got {mining!r}, takes {', '.join(map(repr, modes))}")
    check_reduction(reduction)
    check(margin is not None or mining == "hard", "margin", "got None, which takes mining='hard'")
    if margin is not None:
        check_range("margin", margin, 0)
    if mining != "hard":
        check(chunk_size is None, "chunk_size", f"got {chunk_size}, takes None with {mining!r}")
        check(not ring, "ring", f"got True, takes False with {mining!r}")
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
    if mining == "all":
        return restore(_all_triplets(pairs.dense, margin, reduction), embeddings)
    if mining == "semi_hard":
        return restore(_semi_hard(pairs.dense, margin, reduction), embeddings)
    there = (pairs.count(positive) > 0) & (pairs.count(negative) > 0)
    gap = pairs.largest(positive) - pairs.largest(negative, sign=-1)
    loss = jax.nn.softplus(gap) if margin is None else jax.nn.relu(margin + gap)
    return restore(jnp.where(there, loss, 0), embeddings)
