"""Pair losses of histograms: how the similarities of positives and of negatives are distributed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import check_count, restore, safe_divide
from ._shared import mean_of_rows
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, References
from .pairs import Block, Labels, Pairs, negative, positive
from .similarity import pairwise_cosine


def _histogram(
    pairs: Pairs, which: Callable[[Block], Array], start: float, stop: float, bins: int
) -> Float[Array, "anchors nodes"]:
    """How many values lie at each of `bins + 1` even nodes, those between two shared in proportion.

    Each pair is added to its two nodes: there is no array of all pairs at all nodes.
    """
    # Not traced: the rules of a ring may not close over what is.
    grid = np.linspace(start, stop, bins + 1, dtype=pairs.dtype)

    def shares(b: Block) -> tuple[Array, Array]:
        nodes = jnp.asarray(grid)
        width = nodes[1] - nodes[0]
        low = jnp.floor((jax.lax.stop_gradient(b.values) - nodes[0]) / width)
        low = jnp.clip(low.astype(jnp.int32), 0, bins - 1)
        both = jnp.stack([low, low + 1], -1)
        share = jax.nn.relu(1 - jnp.abs(b.values[..., None] - nodes[both]) / width)
        return both, jnp.where(which(b)[..., None], share, 0)

    return pairs.tally(shares, bins + 1)


def fast_ap_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    bins: int = 10,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """FastAP: one minus the average precision of each anchor's ranking, by histograms of distances.

    `1 - sum_l h+_l H+_l / (H_l N+)` with `h+` the histogram of squared distances of unit vectors to
    the positives, `H+` its running sums, `H` those of all references and `N+` the number of
    positives; a distance is shared by the two of `bins + 1` nodes from 0 to 4 that it is between.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      bins: how many intervals there are between the nodes.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch]; zero for one without positives.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Deep Metric Learning to Rank (Cakir, He, Xia, Kulis, Sclaroff, CVPR 2019), Eq. 7 and 8;
    `FastAPLoss` of KevinMusgrave/pytorch-metric-learning, after kunhe/FastAP-metric-learning,
    agrees, in the mean over the anchors with positives.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> np.asarray(fast_ap_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.5, 0.5, 0. ])
    """
    check_count(bins=bins)
    pairs = in_batch(
        embeddings,
        labels,
        references,
        reference_labels,
        compare=lambda x, y: 2 - 2 * pairwise_cosine(x, y),
        chunk_size=chunk_size,
        axis_name=axis_name,
        ring=ring,
    )
    near, far = (_histogram(pairs, which, 0, 4, bins) for which in (positive, negative))
    near_below, below = jnp.cumsum(near, 1), jnp.cumsum(near + far, 1)
    count = pairs.count(positive)
    # Where nothing lies at or below a node, nothing lies at it.
    precision = jnp.sum(safe_divide(near * near_below, below), 1) / jnp.maximum(count, 1)
    return restore(jnp.where(count > 0, 1 - precision, 0), embeddings)


def histogram_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    bins: int = 100,
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Histogram loss: the probability that a negative pair is more similar than a positive one.

    `sum_r h-_r sum_{q <= r} h+_q` with histograms `h` of the cosines of all positive and of all
    negative pairs of the batch, on `bins + 1` nodes from -1 to 1. Each anchor has the share of its
    own negative pairs, so that the mean of the losses is the paper's.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      bins: how many intervals there are between the nodes.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Learning Deep Embeddings with Histogram Loss, arXiv 1611.00822, Eq. 2 to 5;
    `HistogramLoss` of KevinMusgrave/pytorch-metric-learning computes the mean, without the pairs of
    anchors that have no positive.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> np.asarray(histogram_loss(x, jnp.array([0, 0, 1]), bins=10), float).round(3)
    array([0.75, 0.75, 1.5 ])
    """
    check_count(bins=bins)
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
    near, far = (_histogram(pairs, which, -1, 1, bins) for which in (positive, negative))
    near, positives, negatives = (
        mean_of_rows(x, axis_name) for x in (near, pairs.count(positive), pairs.count(negative))
    )
    below = safe_divide(jnp.cumsum(near), positives)
    loss = safe_divide(jnp.sum(far * below, 1), negatives)
    return restore(loss, embeddings)
