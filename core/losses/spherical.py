"""The spherical family: losses of the logits' sum, their sum of squares and the label's logit."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check_count,
    check_floating,
    check_positive,
    check_shape,
    restore,
    safe_divide,
    safe_sqrt,
    upcast,
)
from ._shared import check_labels, class_mask, keep_present, pick_present, softplus


def z_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    sharpness: float = 1.0,
    threshold: float = 0.0,
    eps: float = 1e-12,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Softplus of the label's z-score among all logits, blind to their shift and scale.

    `softplus(a (b - z)) / a` with `z = (o_y - mean(o)) / (std(o) + eps)` over the classes. It tends
    to the hinge `relu(b - z)` as `a` grows. `|z| <= sqrt(classes - 1)`, so a threshold above that
    never lets an example rest.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      sharpness: `a`; small values weigh all examples alike, large ones those below the threshold.
      threshold: `b`, the z-score aimed at.
      eps: added to the standard deviation, relative to how far the largest logit is above the
        mean, which is held fixed in derivatives; equal logits have z-score and gradient zero.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong, `sharpness` or `eps` not positive.

    Source: The Z-loss: a shift and scale invariant classification loss belonging to the Spherical
    Family, arXiv 1604.08859; `example/timing_example.py` of
    pascal20100/factored_output_layer has `a = 1` and `b = 0`, the defaults here. Both are tuned
    for each ranking measure in the paper. There `eps` is absolute; it is relative here, so that
    scale invariance is exact.

    >>> logits = jnp.array([[1.0, -1.0], [100.0, -100.0]])
    >>> np.asarray(z_loss(logits, jnp.array([0, 0])), float).round(3)
    array([0.313, 0.313])
    """
    check_labels(logits, labels)
    check_positive(sharpness=sharpness, eps=eps)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    mean, variance, label = _unit_moments(upcast(logits), labels, mask)
    loss = _soft_hinge((label - mean) / (safe_sqrt(variance) + eps), sharpness, threshold)
    return restore(keep_present(loss, labels, mask), logits)


def _soft_hinge(z: Float[Array, "..."], sharpness: float, threshold: float) -> Float[Array, "..."]:
    return softplus(sharpness * (threshold - z)) / sharpness


def _unit_moments(
    scores: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    mask: Bool[Array, "... classes"] | None,
) -> tuple[Array, Array, Array]:
    """Mean, variance and the label's score among the classes that are there.

    They are those of the scores less a constant and over a constant, by example, such that squares
    neither overflow nor vanish. What rounding leaves of equal scores has variance zero.
    """
    classes: Any = scores.shape[-1]
    there = scores
    if mask is not None:
        classes = jnp.maximum(jnp.sum(mask, -1, keepdims=True), 1).astype(scores.dtype)
        there = jnp.where(mask, scores, 0)
    mean = jnp.sum(there / classes, -1, keepdims=True)
    centre = jax.lax.stop_gradient(mean)
    top = jnp.max(scores if mask is None else jnp.where(mask, scores, -jnp.inf), -1, keepdims=True)
    # No score is further below the mean than all others together are above it.
    size = jax.lax.stop_gradient(top) - centre
    some = size > 8 * jnp.finfo(scores.dtype).eps * jnp.maximum(jnp.abs(centre), jnp.abs(top))
    scale = jnp.where(some, 1 / jnp.where(some, size, 1), 0)
    unit = (there - centre) * scale
    squares = jnp.square(unit)
    if mask is not None:
        squares = jnp.where(mask, squares, 0)
    off = (mean - centre) * scale  # zero but for its derivative, which the squares need not carry
    variance = (jnp.sum(squares, -1, keepdims=True) / classes - jnp.square(off))[..., 0]
    label = (pick_present(scores, labels, mask) - centre[..., 0]) * scale[..., 0]
    return off[..., 0], variance, label


def taylor_softmax_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy under a softmax whose exponential is its second-order Taylor polynomial.

    `-log(t(o_y) / sum_k t(o_k))` with `t(o) = 1 + o + o^2 / 2`, which is at least one half.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
    arXiv 1511.05042; a baseline of arXiv 1604.08859.

    >>> loss = taylor_softmax_cross_entropy(jnp.array([[2.0, 0.0]]), jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([0.182])
    """
    # t(o) = ((1 + o)^2 + 1) / 2, in whose quotients the half cancels.
    return _square_loss(logits, labels, 1.0, 1.0, where)


def spherical_softmax_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    eps: float = 1e-3,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy under a softmax whose exponential is the square.

    `-log((o_y^2 + eps) / sum_k (o_k^2 + eps))`: blind to the scale of logits far above `eps`, and
    to their signs.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      eps: keeps the probabilities away from zero.
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `eps` is not positive.

    Source: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
    arXiv 1511.05042; a baseline of arXiv 1604.08859.

    >>> loss = spherical_softmax_cross_entropy(jnp.array([[3.0, 1.0]]), jnp.array([0]), eps=1e-6)
    >>> np.asarray(loss, float).round(3)
    array([0.105])
    """
    check_positive(eps=eps)
    return _square_loss(logits, labels, 0.0, eps, where)


def _square_loss(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    shift: float,
    eps: float,
    where: Bool[Array, "..."] | None,
) -> Float[Array, "..."]:
    """`-log(q_y / sum_k q_k)` with `q = (o + shift)^2 + eps`."""
    check_labels(logits, labels)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    scores = upcast(logits)
    own = jnp.square(pick_present(scores, labels, mask) + shift) + eps
    if mask is None:
        total = jnp.sum(jnp.square(scores + shift) + eps, -1)
    else:
        squares = jnp.square(jnp.where(mask, scores, 0) + shift) + eps
        total = jnp.sum(jnp.where(mask, squares, 0), -1)
    loss = jnp.log(jnp.where(total == 0, 1, total)) - jnp.log(own)
    return restore(keep_present(loss, labels, mask), logits)


# The same losses, and the squared error, of what alone they depend on: the mean and the variance of
# the logits over the classes and the label's logit, whatever the number of classes.


def _check_moments(mean: Any, variance: Any, label: Any, classes: Any) -> tuple[Array, ...]:
    check_floating(mean=mean, variance=variance, label=label)
    check_shape("variance", variance, jnp.shape(mean), "[...], as mean")
    check_shape("label", label, jnp.shape(mean), "[...], as mean")
    check_count(classes=classes)
    return upcast(mean, variance, label)


def z_loss_of_moments(
    mean: Float[Array, "..."],
    variance: Float[Array, "..."],
    label: Float[Array, "..."],
    classes: int,
    *,
    sharpness: float = 1.0,
    threshold: float = 0.0,
) -> Float[Array, "..."]:
    """`z_loss` of the mean `m` and the variance `v` of the logits: `softplus(a (b - z)) / a`.

    `z = (o_y - m) / sqrt(v)`, zero where the variance is.

    Args:
      mean: of the logits over the classes [...].
      variance: of the logits over the classes [...].
      label: the label's logit `o_y` [...].
      classes: the number of classes, which this loss does not need.
      sharpness: `a`.
      threshold: `b`, the z-score aimed at.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `sharpness` is not positive.

    Source: The Z-loss: a shift and scale invariant classification loss belonging to the Spherical
    Family, arXiv 1604.08859.

    >>> round(float(z_loss_of_moments(jnp.array(1.0), jnp.array(4.0), jnp.array(5.0), 9)), 4)
    0.1269
    """
    m, v, o = _check_moments(mean, variance, label, classes)
    check_positive(sharpness=sharpness)
    loss = _soft_hinge(safe_divide(o - m, safe_sqrt(v)), sharpness, threshold)
    return restore(loss, mean, variance, label)


def taylor_softmax_of_moments(
    mean: Float[Array, "..."],
    variance: Float[Array, "..."],
    label: Float[Array, "..."],
    classes: int,
) -> Float[Array, "..."]:
    """`taylor_softmax_cross_entropy` of the mean `m` and the variance `v` of K logits.

    `log(K (v + (m + 1)^2 + 1)) - log((o_y + 1)^2 + 1)`.

    Args:
      mean: of the logits over the classes [...].
      variance: of the logits over the classes [...].
      label: the label's logit `o_y` [...].
      classes: the number of classes `K`.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
    arXiv 1511.05042.

    >>> loss = taylor_softmax_of_moments(jnp.array(1.0), jnp.array(1.0), jnp.array(2.0), 2)
    >>> round(float(loss), 3)
    0.182
    """
    m, v, o = _check_moments(mean, variance, label, classes)
    return restore(_square_loss_of_moments(m, v, o, classes, 1.0, 1.0), mean, variance, label)


def spherical_softmax_of_moments(
    mean: Float[Array, "..."],
    variance: Float[Array, "..."],
    label: Float[Array, "..."],
    classes: int,
    *,
    eps: float = 1e-3,
) -> Float[Array, "..."]:
    """`spherical_softmax_cross_entropy` of the mean `m` and the variance `v` of K logits.

    `log(K (v + m^2 + eps)) - log(o_y^2 + eps)`.

    Args:
      mean: of the logits over the classes [...].
      variance: of the logits over the classes [...].
      label: the label's logit `o_y` [...].
      classes: the number of classes `K`.
      eps: keeps the probabilities away from zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `eps` is not positive.

    Source: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family,
    arXiv 1511.05042.

    >>> loss = spherical_softmax_of_moments(jnp.array(2.0), jnp.array(1.0), jnp.array(3.0), 2)
    >>> round(float(loss), 3)
    0.105
    """
    m, v, o = _check_moments(mean, variance, label, classes)
    check_positive(eps=eps)
    return restore(_square_loss_of_moments(m, v, o, classes, 0.0, eps), mean, variance, label)


def _square_loss_of_moments(
    m: Array, v: Array, o: Array, classes: int, shift: float, eps: float
) -> Array:
    total = (v + jnp.square(m + shift) + eps) * classes
    return jnp.log(total) - jnp.log(jnp.square(o + shift) + eps)


def squared_error_of_moments(
    mean: Float[Array, "..."],
    variance: Float[Array, "..."],
    label: Float[Array, "..."],
    classes: int,
) -> Float[Array, "..."]:
    """The squared distance of K logits to the one-hot label, of their mean `m` and variance `v`.

    `sum_k (o_k - 1[k = y])^2 = K (v + m^2) - 2 o_y + 1`.

    Args:
      mean: of the logits over the classes [...].
      variance: of the logits over the classes [...].
      label: the label's logit `o_y` [...].
      classes: the number of classes `K`.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse
    Targets, arXiv 1412.7091, the squared error of sparse targets.

    >>> float(squared_error_of_moments(jnp.array(2.0), jnp.array(1.0), jnp.array(3.0), 2))
    5.0
    """
    m, v, o = _check_moments(mean, variance, label, classes)
    return restore(classes * (v + jnp.square(m)) - 2 * o + 1, mean, variance, label)
