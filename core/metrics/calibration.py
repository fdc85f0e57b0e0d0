"""Whether probabilities mean what they say: calibration errors and proper scores.

`probabilities` [batch, classes] and `labels` [batch]. A bin of confidences holds its upper edge and
not its lower one; an empty bin counts for nothing. Each measure is one number for the batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..losses._shared import pick
from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    safe_divide,
    safe_log,
    upcast,
)

Probabilities = Float[Array, "batch classes"]
Labels = Int[Array, "batch"]
Where = Bool[Array, "batch"] | None


class Reliability(NamedTuple):
    """What a reliability diagram draws, one entry a bin of confidences.

    Attributes:
      confidence: mean confidence [bins], zero where a bin is empty.
      accuracy: share of right predictions [bins], zero where a bin is empty.
      share: share of the examples [bins]; they sum to one.
    """

    confidence: Float[Array, "bins"]
    accuracy: Float[Array, "bins"]
    share: Float[Array, "bins"]


def _check(
    probabilities: Any, labels: Any, where: Any, bins: Any = 1, name: str = "probabilities"
) -> tuple[Array, Array, Array]:
    """The arguments as arrays, the first in its accumulation dtype, the last as weights of it.

    What absent examples hold is replaced, since weights of zero make no zero of NaN.
    """
    check_floating(**{name: probabilities})
    check_rank(name, probabilities, 2)
    check(jnp.shape(probabilities)[1] > 0, name, "got no classes, takes one or more")
    check_integer(labels=labels)
    batch = jnp.shape(probabilities)[:1]
    check_shape("labels", labels, batch, f"[batch], one a row of {name}")
    check_count(bins=bins)
    p = upcast(probabilities)
    if where is None:
        return p, jnp.asarray(labels), jnp.ones(batch, p.dtype)
    check_boolean(where=where)
    check_shape("where", where, batch, "[batch], as labels")
    there = jnp.asarray(where)
    p, labels = jnp.where(there[:, None], p, 0), jnp.where(there, labels, 0)
    return p, labels, there.astype(p.dtype)


def _mean(values: Array, weights: Array) -> Array:
    """The mean over the examples that are there; zero of none."""
    return safe_divide(jnp.sum(weights * values), jnp.sum(weights))


def _top(p: Array, labels: Array) -> tuple[Array, Array]:
    """Confidence of each prediction, and one where it is right."""
    return jnp.max(p, -1), (jnp.argmax(p, -1) == labels).astype(p.dtype)


def _equal_width(confidence: Array, weights: Array, bins: int) -> Array:
    return jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)


def _equal_mass(confidence: Array, weights: Array, bins: int) -> Array:
    """Bins of as many examples, give or take one, by the rank of the confidence."""
    # Absent examples come last, so that they take no rank from the others.
    order = jnp.lexsort((confidence, weights == 0))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
    there = jnp.maximum(jnp.sum(weights > 0, dtype=order.dtype), 1)
    return jnp.clip(rank * bins // there, 0, bins - 1)


def _reliability(
    confidence: Array, right: Array, weights: Array, index: Array, bins: int
) -> Reliability:
    def total(values: Array) -> Array:
        return jax.ops.segment_sum(weights * values, index, num_segments=bins)

    mass = total(jnp.ones_like(confidence))
    return Reliability(
        safe_divide(total(confidence), mass),
        safe_divide(total(right), mass),
        safe_divide(mass, jnp.sum(mass)),
    )


def _error(bins: Reliability) -> Array:
    return jnp.sum(bins.share * jnp.abs(bins.confidence - bins.accuracy))


def reliability_bins(
    probabilities: Probabilities, labels: Labels, *, bins: int = 15, where: Where = None
) -> Reliability:
    """Mean confidence, accuracy and share of the examples in each bin of equal width.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      bins: number of bins `((b - 1) / bins, b / bins]` of the largest probability.
      where: which examples are there [batch].

    Returns:
      A `Reliability` of three arrays [bins], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: On Calibration of Modern Neural Networks, arXiv 1706.04599, Section 2.

    >>> out = reliability_bins(jnp.array([[0.9, 0.1], [0.2, 0.8]]), jnp.array([0, 0]), bins=2)
    >>> out.accuracy.tolist(), out.share.tolist()
    ([0.0, 0.5], [0.0, 1.0])
    """
    p, labels, weights = _check(probabilities, labels, where, bins)
    confidence, right = _top(p, labels)
    index = _equal_width(confidence, weights, bins)
    return _reliability(confidence, right, weights, index, bins)


def expected_calibration_error(
    probabilities: Probabilities, labels: Labels, *, bins: int = 15, where: Where = None
) -> Float[Array, ""]:
    """Mean distance of confidence and accuracy over bins of equal width: ECE.

    `sum_b share_b |confidence_b - accuracy_b|`.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      bins: number of bins of the largest probability.
      where: which examples are there [batch].

    Returns:
      The error [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: On Calibration of Modern Neural Networks, arXiv 1706.04599, Eq. 3.

    >>> p = jnp.array([[0.9, 0.1], [0.3, 0.7]])
    >>> round(float(expected_calibration_error(p, jnp.array([0, 0]))), 3)
    0.4
    """
    return _error(reliability_bins(probabilities, labels, bins=bins, where=where))


def maximum_calibration_error(
    probabilities: Probabilities, labels: Labels, *, bins: int = 15, where: Where = None
) -> Float[Array, ""]:
    """Largest distance of confidence and accuracy over bins of equal width: MCE.

    `max_b |confidence_b - accuracy_b|`.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      bins: number of bins of the largest probability.
      where: which examples are there [batch].

    Returns:
      The error [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: On Calibration of Modern Neural Networks, arXiv 1706.04599, Eq. 5.

    >>> p = jnp.array([[0.9, 0.1], [0.3, 0.7]])
    >>> round(float(maximum_calibration_error(p, jnp.array([0, 0]))), 3)
    0.7
    """
    out = reliability_bins(probabilities, labels, bins=bins, where=where)
    return jnp.max(jnp.abs(out.confidence - out.accuracy))


def adaptive_calibration_error(
    probabilities: Probabilities, labels: Labels, *, bins: int = 15, where: Where = None
) -> Float[Array, ""]:
    """Mean distance of confidence and accuracy over bins of as many examples each.

    `sum_b share_b |confidence_b - accuracy_b|`, bin `floor(bins rank / batch)` for the example of a
    `rank` from 0 on by confidence; of equal confidences the first comes first.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      bins: number of bins.
      where: which examples are there [batch].

    Returns:
      The error [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Measuring Calibration in Deep Learning, arXiv 1904.01685, adaptive calibration error,
    for the predicted class alone; Posterior Calibration and Exploratory Analysis for Natural
    Language Processing Models, arXiv 1508.05154.

    >>> p = jnp.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    >>> round(float(adaptive_calibration_error(p, jnp.array([0, 0, 1]), bins=1)), 3)
    0.133
    """
    p, labels, weights = _check(probabilities, labels, where, bins)
    confidence, right = _top(p, labels)
    index = _equal_mass(confidence, weights, bins)
    return _error(_reliability(confidence, right, weights, index, bins))


def classwise_calibration_error(
    probabilities: Probabilities, labels: Labels, *, bins: int = 15, where: Where = None
) -> Float[Array, ""]:
    """Calibration error of every class's probability, averaged over the classes.

    `(1 / K) sum_k sum_b share_kb |confidence_kb - frequency_kb|` with the probability of class `k`
    for its confidence and how often the label is `k` for its accuracy, in bins of equal width.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      bins: number of bins.
      where: which examples are there [batch].

    Returns:
      The error [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
    Dirichlet calibration, arXiv 1910.12656, classwise-ECE; Measuring Calibration in Deep Learning,
    arXiv 1904.01685, static calibration error.

    >>> p = jnp.array([[0.9, 0.1], [0.3, 0.7]])
    >>> round(float(classwise_calibration_error(p, jnp.array([0, 0]))), 3)
    0.4
    """
    p, labels, weights = _check(probabilities, labels, where, bins)

    def one(confidence: Array, label: Array) -> Array:
        right = (labels == label).astype(p.dtype)
        index = _equal_width(confidence, weights, bins)
        return _error(_reliability(confidence, right, weights, index, bins))

    return jnp.mean(jax.vmap(one, (1, 0))(p, jnp.arange(p.shape[1])))


def brier_score(
    probabilities: Probabilities, labels: Labels, *, where: Where = None
) -> Float[Array, ""]:
    """Mean squared distance of the probabilities from the one-hot label.

    `(1 / B) sum_i sum_k (p_ik - 1[k = y_i])^2`; `papyrax.losses.brier_loss` takes scores.

    Args:
      probabilities: predicted probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      where: which examples are there [batch].

    Returns:
      The score [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Verification of Forecasts Expressed in Terms of Probability (Brier, Monthly Weather
    Review 1950), Eq. 2.

    >>> round(float(brier_score(jnp.array([[0.25, 0.75]]), jnp.array([0]))), 3)
    1.125
    """
    p, labels, weights = _check(probabilities, labels, where)
    right = labels[:, None] == jnp.arange(p.shape[1])
    return _mean(jnp.sum(jnp.square(p - right), -1), weights)


def negative_log_likelihood(
    probabilities: Probabilities, labels: Labels, *, where: Where = None
) -> Float[Array, ""]:
    """Mean of minus the logarithm of the label's probability.

    `-(1 / B) sum_i log p_i,y_i`. For scores, cross-entropy is exact where the probability is not.

    Args:
      probabilities: predicted probabilities [batch, classes]; below the smallest normal number they
        count as that.
      labels: the right class of each example, from 0 on [batch].
      where: which examples are there [batch].

    Returns:
      The score [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: textbook definition; On Calibration of Modern Neural Networks, arXiv 1706.04599, Eq. 6.

    >>> round(float(negative_log_likelihood(jnp.array([[0.25, 0.75]]), jnp.array([0]))), 3)
    1.386
    """
    p, labels, weights = _check(probabilities, labels, where)
    return _mean(-safe_log(pick(p, labels)), weights)


def top_k_accuracy(
    scores: Float[Array, "batch classes"], labels: Labels, *, k: int = 5, where: Where = None
) -> Float[Array, ""]:
    """How often the label is among the `k` classes of the highest scores.

    `(1 / B) sum_i 1[#{j: s_ij > s_iy} + #{j < y: s_ij = s_iy} < k]`: of equal scores the first
    class comes first.

    Args:
      scores: scores or probabilities [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      k: how many guesses are allowed.
      where: which examples are there [batch].

    Returns:
      The share [], in float32 or wider.

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `k` is not positive.

    Source: textbook definition; ImageNet Large Scale Visual Recognition Challenge, arXiv
    1409.0575, Section 4.1.

    >>> float(top_k_accuracy(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([1]), k=2))
    1.0
    """
    s, labels, weights = _check(scores, labels, where, name="scores")
    check_count(k=k)
    label = pick(s, labels)[:, None]
    earlier = jnp.arange(s.shape[1]) < labels[:, None]
    # So written, a label without a score, or with NaN for one, comes last and not first.
    ahead = jnp.sum(~(s <= label) | ((s == label) & earlier), -1)
    return _mean((ahead < k).astype(s.dtype), weights)
