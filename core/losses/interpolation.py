"""Pairs with mixed examples: labels between positive and negative, and losses that take them."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_integer,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_log,
    upcast,
)
from ._shared import log_sum_exp, softplus
from .pair_sums import Reduction, check_reduction

Matrix = Float[Array, "anchors mixed"]


def _leading(name: str, share: Any, shape: tuple[int, ...]) -> None:
    """Raise unless `share` is a number or an array of the first axes of `shape`."""
    got = jnp.shape(share)
    check(
        got == shape[: len(got)],
        name,
        f"got shape {got}, takes a number or an array of the first axes of {shape}",
    )


def mix_features(
    first: Float[Array, "..."], second: Float[Array, "..."], share: Any
) -> Float[Array, "..."]:
    """`share first + (1 - share) second`: a mixture, or an extrapolation for shares above one.

    The shares may be one number, one for each example or one for each entry. With a share of
    `1 + r` the result is `first + r (first - second)`, farther from `second` than `first` is.

    Args:
      first: inputs, features or embeddings [...].
      second: what they are mixed with, of the same shape [...].
      share: the weight of `first`, a number or an array over the first axes of it, such as
        [batch] for [batch, features].

    Returns:
      The mixtures [...], not normalized.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: mixup: Beyond Empirical Risk Minimization, arXiv 1710.09412, Eq. 1; of embeddings in
    metric learning, It Takes Two to Tango: Mixup for Deep Metric Learning, arXiv 2106.04990.

    >>> mix_features(jnp.array([[4.0, 0.0]]), jnp.array([[0.0, 4.0]]), 0.25).tolist()
    [[1.0, 3.0]]
    """
    check_floating(first=first, second=second)
    check_shape("second", second, jnp.shape(first), "as first")
    _leading("share", share, jnp.shape(first))
    x, y = upcast(first, second)
    share = jnp.asarray(share, x.dtype)
    share = share.reshape(share.shape + (1,) * (x.ndim - share.ndim))
    return restore(share * x + (1 - share) * y, first, second)


def mixed_pair_targets(
    labels: Int[Array, "anchors"],
    first: Int[Array, "mixed"],
    second: Int[Array, "mixed"],
    share: Any,
) -> Matrix:
    """How positive each pair of a clean anchor and a mixed example is, from zero to one.

    `share 1[y_a = y_first] + (1 - share) 1[y_a = y_second]`: one and zero are the positives and
    negatives of clean examples, what is between belongs to the anchor in part.

    Args:
      labels: class of each anchor [anchors].
      first: class of the first example of each mixture [mixed].
      second: class of the second [mixed].
      share: the weight of the first, a number or one for each mixture [mixed].

    Returns:
      The labels of the pairs [anchors, mixed].

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: It Takes Two to Tango: Mixup for Deep Metric Learning, arXiv 2106.04990, the
    interpolation of the labels of pairs.

    >>> labels = jnp.array([0, 1, 2])
    >>> mixed_pair_targets(labels, labels[:1], labels[1:2], 0.75).tolist()
    [[0.75], [0.25], [0.0]]
    """
    check_integer(labels=labels, first=first, second=second)
    for name, x in (("labels", labels), ("first", first)):
        check_rank(name, x, 1)
    check_shape("second", second, jnp.shape(first), "[mixed], as first")
    _leading("share", share, jnp.shape(first))
    # Whole numbers for a share would round it away.
    share = jnp.asarray(share)
    share = share.astype(jnp.promote_types(share.dtype, jnp.float32))
    mine, other = (jnp.asarray(labels)[:, None] == jnp.asarray(c)[None] for c in (first, second))
    return share * mine + (1 - share) * other


def _check_pairs(similarities: Any, targets: Any, where: Any) -> tuple[Any, Any, Any]:
    """Similarities and targets in the dtype to compute in, and which pairs are there."""
    check_floating(similarities=similarities, targets=targets)
    check_rank("similarities", similarities, 2)
    shape = jnp.shape(similarities)
    check_shape("targets", targets, shape, "[anchors, mixed], as similarities")
    there = jnp.ones(shape, bool)
    if where is not None:
        check_shape("where", where, shape, "[anchors, mixed], as similarities")
        there = jnp.asarray(where)
        check_boolean(where=there)
    s, y = upcast(similarities, targets)
    return s, y, there


def interpolated_contrastive_loss(
    similarities: Matrix,
    targets: Matrix,
    *,
    margin: float = 0.5,
    reduction: Reduction = "sum",
    where: Bool[Array, "anchors mixed"] | None = None,
) -> Float[Array, "anchors"]:
    """Metrix, contrastive: each pair attracts as far as it is positive and repels for the rest.

    `sum_v -y_v s_v + (1 - y_v) [s_v - margin]_+`. Targets of zero and one are the contrastive loss
    on similarities. Minus distances `d` with a margin of `-m` give `y d + (1 - y) [m - d]_+`.

    Args:
      similarities: `s` of each anchor with each mixed (or clean) example [anchors, mixed].
      targets: `y`, how positive each pair is, as of `mixed_pair_targets` [anchors, mixed].
      margin: similarity up to which a negative costs nothing.
      reduction: "sum" over an anchor's pairs, their "mean", or "active": each of the two terms
        divided by the number of its pairs that cost something.
      where: which pairs are there [anchors, mixed]; all by default.

    Returns:
      One loss an anchor [anchors]; zero over no pairs.

    Raises:
      ValueError: if a shape, a dtype or `reduction` does not fit.

    Source: It Takes Two to Tango: Mixup for Deep Metric Learning, arXiv 2106.04990, the generic
    loss over mixed pairs in its contrastive form; billpsomas/Metrix_ICLR22 has minus distances,
    margin -0.5 and "active" over the pairs of the whole batch, and so agrees in values and
    gradients.

    >>> s = jnp.array([[1.0, 0.75]])
    >>> interpolated_contrastive_loss(s, jnp.array([[0.5, 0.0]])).tolist()
    [0.0]
    """
    check_reduction(reduction)
    s, y, there = _check_pairs(similarities, targets, where)
    near = jnp.where(there, -y * s, 0)
    far = jnp.where(there, (1 - y) * jax.nn.relu(s - margin), 0)

    def reduce(cost: Array) -> Array:
        total = jnp.sum(cost, -1)
        if reduction == "sum":
            return total
        count = jnp.sum(there if reduction == "mean" else cost > 0, -1)
        return total / jnp.maximum(count, 1)

    return restore(reduce(near) + reduce(far), similarities, targets)


def interpolated_multi_similarity_loss(
    similarities: Matrix,
    targets: Matrix,
    *,
    positive_scale: float = 18.0,
    negative_scale: float = 75.0,
    base: float = 0.77,
    where: Bool[Array, "anchors mixed"] | None = None,
) -> Float[Array, "anchors"]:
    """Metrix, multi-similarity: both sums weighted by how positive each pair is.

    `log(1 + sum_v y_v exp(-b (s_v - m))) / b + log(1 + sum_v (1 - y_v) exp(g (s_v - m))) / g`.
    Targets of zero and one are the multi-similarity loss over all pairs, without mining.

    Args:
      similarities: `s` of each anchor with each mixed (or clean) example [anchors, mixed].
      targets: `y`, how positive each pair is, as of `mixed_pair_targets` [anchors, mixed].
      positive_scale: `b` (beta in the paper).
      negative_scale: `g` (gamma in the paper).
      base: `m`, the similarity that divides the two.
      where: which pairs are there [anchors, mixed]; all by default.

    Returns:
      One loss an anchor [anchors]; zero over no pairs.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: It Takes Two to Tango: Mixup for Deep Metric Learning, arXiv 2106.04990, the generic
    loss over mixed pairs in its multi-similarity form. The defaults are those that A Metric
    Learning Reality Check, arXiv 2003.08505, found for the loss on clean pairs.

    >>> s, y = jnp.array([[0.77, 0.77]]), jnp.array([[1.0, 0.0]])
    >>> np.asarray(interpolated_multi_similarity_loss(s, y), float).round(3)
    array([0.048])
    """
    check_positive(positive_scale=positive_scale, negative_scale=negative_scale)
    s, y, there = _check_pairs(similarities, targets, where)

    def one(weights: Array, scale: Any) -> Array:
        there_too = there & (weights > 0)
        terms = scale * (s - base) + safe_log(jnp.where(there_too, weights, 1))
        return softplus(log_sum_exp(terms, there_too)) / abs(scale)

    loss = one(y, -positive_scale) + one(1 - y, negative_scale)
    return restore(loss, similarities, targets)
