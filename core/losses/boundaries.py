"""Pair losses with a boundary: positives are to lie within a distance, negatives beyond it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import check_range, restore
from .batch_pairs import in_batch
from .pair_sums import Embeddings, PerAnchor, Reduction, References, check_reduction, per_anchor
from .pairs import Block, Labels, either
from .similarity import DISTANCES, Similarity, named


def margin_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    margin: float = 0.2,
    boundary: float | Float[Array, ""] | Float[Array, "batch"] = 1.2,
    distance: str | Similarity = "normalized_euclidean",
    reduction: Reduction = "active",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Margin-based loss: positives within a boundary, negatives beyond it, each by a margin.

    `[margin + d_ap - b_a]_+` of positives and `[margin + b_a - d_an]_+` of negatives. The boundary
    may be learned, one for all or one a class (`boundary=b[labels]`), with `nu * b` added to the
    loss to hold it back.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`, such as
        those of `distance_weighted_pairs`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      margin: alpha in the paper.
      boundary: beta in the paper, positive, for all or for each anchor [batch].
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      reduction: over positives and negatives together, "mean" over an anchor's pairs, over the
        "active" ones that cost something, "sum".
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Sampling Matters in Deep Embedding Learning, arXiv 1706.07567, Section 4.2. `MarginLoss`
    of KevinMusgrave/pytorch-metric-learning agrees for "sum", divided by the number of costly pairs
    of the batch; it takes a pair once for every triplet that it is in.

    >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> loss = margin_loss(x, jnp.array([0, 0, 1]), boundary=0.8)
    >>> np.asarray(loss, float).round(3)
    array([0.331, 0.506, 0.542])
    """
    check_range("margin", margin, 0)
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
    b = per_anchor("boundary", boundary, len(embeddings), pairs.dtype)

    def cost(block: Block, b: Array) -> Array:
        near = jnp.where(block.positive, jax.nn.relu(margin + block.values - b), 0)
        return near + jnp.where(block.negative, jax.nn.relu(margin + b - block.values), 0)

    total = pairs.total(cost, b)
    if reduction == "sum":
        return restore(total, embeddings)
    if reduction == "mean":
        count = pairs.count(either)
    else:
        count = pairs.total(lambda block, b: (cost(block, b) > 0).astype(pairs.dtype), b)
    return restore(total / jnp.maximum(jax.lax.stop_gradient(count), 1), embeddings)


def ranked_list_loss(
    embeddings: Embeddings,
    labels: Labels,
    references: References = None,
    reference_labels: Labels | None = None,
    *,
    margin: float = 0.4,
    boundary: float = 1.2,
    positive_scale: float = 0.0,
    negative_scale: float = 10.0,
    negative_weight: float = 0.5,
    is_weight_constant: bool = True,
    distance: str | Similarity = "normalized_euclidean",
    chunk_size: int | None = None,
    axis_name: str | None = None,
    ring: bool = False,
) -> PerAnchor:
    """Ranked list loss: a class within a hypersphere, and not in a point; the rest beyond it.

    `(1 - l) sum_p w_p [d_ap - (b - m)]_+ + l sum_n w_n [b - d_an]_+` over the pairs that cost
    something, with weights `w_p ~ exp(T_p (d_ap - (b - m)))` and `w_n ~ exp(T_n (b - d_an))` that
    sum to one for each anchor.

    Args:
      embeddings: the anchors [batch, features].
      labels: class of each anchor [batch], sets of labels [batch, labels] or `PairMasks`.
      references: what the anchors are compared with [references, features]; each other by default.
      reference_labels: their labels [references] or [references, labels].
      margin: `m`, between the boundaries of positives and negatives.
      boundary: `b` (alpha in the paper), the distance that negatives are to have; positives may lie
        at `b - m`.
      positive_scale: `T_p`; 0 weights positives alike.
      negative_scale: `T_n`, how much more the nearest negatives count.
      negative_weight: `l`.
      is_weight_constant: whether weights are constants for the gradient; False for the gradient of
        pytorch-metric-learning.
      distance: "euclidean", "normalized_euclidean" (of unit vectors), "squared_euclidean", "snr",
        "poincare", "lorentz" or a function of two arrays of embeddings.
      chunk_size: look at so many references at a time; all for None.
      axis_name: the mesh axis whose devices share the batch.
      ring: send the references round that axis rather than gather them.

    Returns:
      One loss an anchor [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Ranked List Loss for Deep Metric Learning, arXiv 1903.03238, Section 4, with the weights
    of all positives; `RankedListLoss` of KevinMusgrave/pytorch-metric-learning agrees but for 1e-5
    that it adds to every weight, and for negatives at distance zero, which it leaves out.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> np.asarray(ranked_list_loss(x, jnp.array([0, 0, 1])), float).round(3)
    array([0.591, 0.46 , 0.275])
    """
    check_range("margin", margin, 0)
    check_range("boundary", boundary, margin)
    check_range("positive_scale", positive_scale, 0)
    check_range("negative_scale", negative_scale, 0)
    check_range("negative_weight", negative_weight, 0, 1)
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
    keep = jax.lax.stop_gradient if is_weight_constant else lambda x: x

    def weighted(
        excess: Callable[[Block], Array], which: Callable[[Block], Array], scale: float
    ) -> Array:
        """The mean of the excess over the pairs where it is above zero, with softmax weights."""

        def costly(b: Block) -> Bool[Array, "anchors block"]:
            return which(b) & ~(excess(b) <= 0)

        total = keep(pairs.log_sum_exp(lambda b: scale * excess(b), costly))
        total = jnp.where(total != -jnp.inf, total, 0)

        def term(b: Block, total: Array) -> Array:
            there = costly(b)
            e = jnp.where(there, excess(b), 0)
            return jnp.where(there, jnp.exp(keep(scale * e) - total) * e, 0)

        return pairs.total(term, total)

    near = weighted(lambda b: b.values - (boundary - margin), lambda b: b.positive, positive_scale)
    far = weighted(lambda b: boundary - b.values, lambda b: b.negative, negative_scale)
    return restore((1 - negative_weight) * near + negative_weight * far, embeddings)
