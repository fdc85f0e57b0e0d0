"""Losses that every comparison needs beside the papers' own; what optax has comes from there."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from ..numerics import (
    check,
    check_broadcastable,
    check_floating,
    check_positive,
    check_range,
    check_shape,
    restore,
    safe_abs,
    safe_log,
    upcast,
)
from ._shared import (
    check_labels,
    class_mask,
    is_label,
    keep_present,
    others_log_odds,
    pick_present,
    softplus,
)


def _wrong_probability(odds: Float[Array, "..."]) -> tuple[Array, Array]:
    """`1 - p_y` and its logarithm, from the log-odds against the label."""
    none = odds == -jnp.inf
    log_wrong = -softplus(-jnp.where(none, 0, odds))
    return jnp.where(none, 0, jnp.exp(log_wrong)), log_wrong


def focal_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    focusing: float = 2.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy that leaves well-classified examples alone; softmax over many classes.

    `-(1 - p_y)^g log p_y`. `optax.losses.sigmoid_focal_loss` is the one for independent classes.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      focusing: `g` (gamma), zero for cross-entropy.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `focusing` is negative.

    Source: Focal Loss for Dense Object Detection, arXiv 1708.02002, Eq. 4.

    >>> loss = focal_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]), focusing=0.0)
    >>> np.asarray(loss, float).round(3)
    array([1.386])
    """
    check_labels(logits, labels)
    check_range("focusing", focusing, 0)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    odds = others_log_odds(upcast(logits), labels, mask)
    loss = jnp.exp(focusing * _wrong_probability(odds)[1]) * softplus(odds)
    return restore(keep_present(loss, labels, mask), logits)


def mae_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Mean absolute error of the probabilities: bounded, symmetric, tolerant to uniform noise.

    `sum_k |p_k - 1[k = y]| = 2 (1 - p_y)`; twice the comp-sum loss of order 2.

    Args:
      logits: scores [..., classes].
      labels: the given class of each example, from 0 on [...].
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Robust Loss Functions under Label Noise for Deep Neural Networks, arXiv 1712.09482.

    >>> loss = mae_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([1.5])
    """
    check_labels(logits, labels)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    wrong, _ = _wrong_probability(others_log_odds(upcast(logits), labels, mask))
    return restore(keep_present(2 * wrong, labels, mask), logits)


def symmetric_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    forward_weight: float = 0.1,
    reverse_weight: float = 1.0,
    log_zero: float = math.log(1e-4),
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy plus its reverse, which resists wrong labels.

    `a (-log p_y) + b (-sum_k p_k log q_k)` with the one-hot label `q` and `log 0 = A`; the second
    term is `-A (1 - p_y)`.

    Args:
      logits: scores [..., classes].
      labels: the given class of each example, from 0 on [...].
      forward_weight: `a` (alpha); 0.1 for CIFAR-10, 6 for CIFAR-100.
      reverse_weight: `b` (beta); 1 for CIFAR-10, 0.1 for CIFAR-100.
      log_zero: `A`, below zero.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Symmetric Cross Entropy for Robust Learning with Noisy Labels, arXiv 1908.06112, Eq. 7.
    The paper varies `A`; the default is what implementations that clip the one-hot label at 1e-4
    amount to.

    >>> loss = symmetric_cross_entropy(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([7.046])
    """
    check_labels(logits, labels)
    check_range("forward_weight", forward_weight, 0)
    check_range("reverse_weight", reverse_weight, 0)
    check_range("log_zero", log_zero, None, 0, open_high=True)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    odds = others_log_odds(upcast(logits), labels, mask)
    loss = forward_weight * softplus(odds) - reverse_weight * log_zero * _wrong_probability(odds)[0]
    return restore(keep_present(loss, labels, mask), logits)


def label_smoothing_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    label_smoothing: float = 0.1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy to labels of which a share is spread over all classes.

    `-(1 - e) log p_y - (e / K) sum_k log p_k`, without forming the dense targets, for which see
    `optax.losses.smooth_labels`.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      label_smoothing: `e`, the share, in [0, 1].
      where: which examples [...] or which classes [..., classes] are there; `K` counts those that
        are. An example whose own label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or the share out of range.

    Source: Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567, Section 7.

    >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
    >>> loss = label_smoothing_cross_entropy(logits, jnp.array([0]), label_smoothing=1.0)
    >>> np.asarray(loss, float).round(3)
    array([0.837])
    """
    check_labels(logits, labels)
    check_range("label_smoothing", label_smoothing, 0, 1)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    z = upcast(logits)
    # The label's lead over the mean score is what smoothing charges for.
    lead = pick_present(z, labels, mask)[..., None] - z
    if mask is None:
        mean_lead = jnp.mean(lead, -1)
    else:
        there = jnp.maximum(jnp.sum(mask, -1), 1)
        mean_lead = jnp.sum(jnp.where(mask, lead, 0), -1) / there
    loss = softplus(others_log_odds(z, labels, mask)) + label_smoothing * mean_lead
    return restore(keep_present(loss, labels, mask), logits)


def brier_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Squared error of the probabilities, a proper scoring rule that is bounded by two.

    `sum_k (p_k - 1[k = y])^2`.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Verification of Forecasts Expressed in Terms of Probability (Brier, Monthly Weather
    Review 1950), Eq. 2, for a single forecast.

    >>> loss = brier_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([1.125])
    """
    check_labels(logits, labels)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    z = upcast(logits)
    own = pick_present(z, labels, mask)
    there = z if mask is None else jnp.where(mask, z, own[..., None])
    top = jax.lax.stop_gradient(jnp.max(there, -1))
    # One exponential an entry; its sums are those of the probabilities and of their squares.
    share = jnp.exp(there - top[..., None])
    absent = is_label(labels, z.shape[-1])
    if mask is not None:
        absent |= ~mask
    rest = jnp.where(absent, 0, share)
    wrong = jnp.sum(rest, -1)
    total = wrong + jnp.exp(own - top)
    loss = (jnp.square(wrong) + jnp.sum(jnp.square(rest), -1)) / jnp.square(total)
    return restore(keep_present(loss, labels, mask), logits)


def _class_counts(counts: Any, logits: Any) -> Array:
    check(
        jnp.issubdtype(jnp.result_type(counts), jnp.number),
        "counts",
        f"got dtype {jnp.result_type(counts)}, takes numbers",
    )
    check_shape("counts", counts, jnp.shape(logits)[-1:], "[classes], as the last axis of logits")
    return jnp.asarray(counts).astype(upcast(logits).dtype)


def ldam_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    counts: Num[Array, "classes"],
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy with larger margins for rarer classes.

    `-log(exp(s (z_y - m_y)) / (exp(s (z_y - m_y)) + sum_{j != y} exp(s z_j)))` with
    `m_j = C / n_j^(1/4)`, `C` such that the rarest class has the margin `max_margin`.

    Args:
      logits: scores [..., classes], cosines in the paper's experiments.
      labels: the right class of each example, from 0 on [...].
      counts: how many training examples each class has, `n`; a class without any counts as one of
        one example [classes].
      max_margin: the margin of the rarest class.
      scale: `s`, what the scores are multiplied by.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, arXiv
    1906.07413, the LDAM loss; `losses.py` of kaidic/LDAM-DRW has the same values and defaults.

    >>> cosines, counts = jnp.array([[0.9, 0.1]]), jnp.array([16, 1])
    >>> loss = ldam_loss(cosines, jnp.array([0]), counts, scale=1.0)
    >>> np.asarray(loss, float).round(3)
    array([0.455])
    """
    check_labels(logits, labels)
    check_range("max_margin", max_margin, 0)
    check_positive(scale=scale)
    n = jnp.maximum(_class_counts(counts, logits), 1)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    margins = max_margin * jnp.power(jnp.min(n) / n, 0.25)
    odds = others_log_odds(scale * upcast(logits), labels, mask) + scale * margins[labels]
    return restore(keep_present(softplus(odds), labels, mask), logits)


def logit_adjusted_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    counts: Num[Array, "classes"],
    *,
    strength: float = 1.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy that lets the classes' frequencies explain themselves; balanced softmax.

    `-log softmax(z + t log n)_y`. With `t = 1` it is the balanced softmax: trained so, the scores
    as they are decide as if all classes were equally frequent.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      counts: how many training examples each class has, or its prior [classes].
      strength: `t` (tau); zero is cross-entropy.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `strength` is negative.

    Source: Long-tail learning via logit adjustment, arXiv 2007.07314, softmax cross-entropy with
    logit adjustment; Balanced Meta-Softmax for Long-Tailed Visual Recognition, arXiv 2007.10740,
    whose authors' code agrees.

    >>> loss = logit_adjusted_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), jnp.array([30, 10]))
    >>> np.asarray(jnp.exp(-loss), float).round(3)
    array([0.75])
    """
    check_labels(logits, labels)
    check_range("strength", strength, 0)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    z = upcast(logits) + strength * safe_log(_class_counts(counts, logits))
    loss = softplus(others_log_odds(z, labels, mask))
    return restore(keep_present(loss, labels, mask), logits)


def _residual(predictions: Any, targets: Any) -> Array:
    check_floating(predictions=predictions, targets=targets)
    check_shape("targets", targets, jnp.shape(predictions), "[...], as predictions")
    predictions, targets = upcast(predictions, targets)
    return targets - predictions


def pinball_loss(
    predictions: Float[Array, "..."],
    targets: Float[Array, "..."],
    *,
    quantile: float | Float[Array, "..."] = 0.5,
    huber_delta: float | Float[Array, ""] = 0.0,
) -> Float[Array, "..."]:
    """The quantile loss, minimized by a quantile of the target's distribution.

    `|q - 1[r < 0]| h(r)` of the residual `r = target - prediction`, with `h(r) = |r|`; or, for a
    `delta` above zero, `h(r) = r^2 / (2 delta)` within `delta` and `|r| - delta / 2` beyond, which
    is the quantile Huber loss.

    Args:
      predictions: predicted quantiles [...].
      targets: observed values [...].
      quantile: `q` in [0, 1], a number or an array that broadcasts to [...].
      huber_delta: `delta`, where the loss turns from quadratic to linear; zero for the pinball.

    Returns:
      One loss an entry [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: Regression Quantiles (Koenker and Bassett, Econometrica 1978); Distributional
    Reinforcement Learning with Quantile Regression, arXiv 1710.10044, Eq. 10, whose Huber loss is
    `delta` times this one.

    >>> pinball_loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]), quantile=0.75).tolist()
    [0.75, 0.25]
    """
    r = _residual(predictions, targets)
    check_range("quantile", quantile, 0, 1)
    check_range("huber_delta", huber_delta, 0)
    check_broadcastable("quantile", quantile, r.shape, "[...], as predictions")
    size = safe_abs(r)
    if isinstance(huber_delta, jax.Array) or huber_delta:
        inside = jnp.minimum(size, huber_delta)
        delta = jnp.where(huber_delta == 0, 1, huber_delta)
        # The square within, the tangent beyond: h'(r) = min(|r|, delta) / delta.
        size = inside * inside / (2 * delta) + jnp.maximum(size - huber_delta, 0)
    weight = jnp.abs(jnp.asarray(quantile, r.dtype) - (r < 0))
    return restore(weight * size, predictions, targets)


def general_robust_loss(
    predictions: Float[Array, "..."],
    targets: Float[Array, "..."],
    *,
    shape: float | Float[Array, "..."] = 1.0,
    scale: float = 1.0,
) -> Float[Array, "..."]:
    """One family of robust regression losses, from the square to losses that forget outliers.

    `(|a - 2| / a) (((r / c)^2 / |a - 2| + 1)^(a / 2) - 1)` of the residual `r`, with its limits:
    `a = 2` is half the squared error, 1 the pseudo-Huber (Charbonnier) loss, 0 the Cauchy loss,
    -2 the Geman-McClure loss and minus infinity the Welsch loss.

    Args:
      predictions: predicted values [...].
      targets: observed values [...].
      shape: `a` (alpha), up to 2, a number or an array that broadcasts to [...]; it can be learnt.
      scale: `c`, the residual at which the loss stops being quadratic.

    Returns:
      One loss an entry [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or a hyper-parameter out of range.

    Source: A General and Adaptive Robust Loss Function, arXiv 1701.03077, Eq. 8; agrees with
    jonbarron/robust_loss_pytorch, which has no derivative by the shape at 0 and 2. Shapes above 2,
    which weigh outliers more than the square does, are left out.

    >>> x, y = jnp.zeros(3), jnp.array([0.0, 1.0, 100.0])
    >>> np.asarray(general_robust_loss(x, y, shape=-2.0), float).round(2)
    array([0. , 0.4, 2. ])
    """
    r = _residual(predictions, targets)
    check_range("shape", shape, None, 2)
    check_positive(scale=scale)
    check_broadcastable("shape", shape, r.shape, "[...], as predictions")
    a = jnp.asarray(shape, r.dtype)
    x = r / scale
    half_square = jnp.square(x) / 2
    limit, square = a == -jnp.inf, a == 2
    a = jnp.where(limit | square, 1, a)
    gap = jnp.maximum(2 - a, jnp.finfo(r.dtype).eps)
    # gap / a (exp(u) - 1) with u = (a / 2) log(1 + 2 half_square / gap), written so that a = 0
    # is no singularity: log term times gap / 2 times (exp(u) - 1) / u.
    far = jnp.abs(x) > 1e16  # whose squares may leave float32
    log_square = 2 * jnp.log(jnp.abs(jnp.where(far, x, 1)))
    near = jnp.square(jnp.where(far, 0, x))
    log_term = jnp.where(far, log_square - jnp.log(gap), jnp.log1p(near / gap))
    u = a / 2 * log_term
    small = jnp.abs(u) < 1e-3
    series = 1 + u / 2 * (1 + u / 3 * (1 + u / 4))
    ratio = jnp.where(small, series, jnp.expm1(u) / jnp.where(small, 1, u))
    loss = gap / 2 * log_term * ratio
    loss = jnp.where(square, half_square, loss)
    loss = jnp.where(limit, -jnp.expm1(-half_square), loss)
    return restore(loss, predictions, targets)
