"""The spherical family: losses of the logits' sum, their sum of squares and the label's logit."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import check_positive, restore, safe_sqrt, upcast
from ._shared import check_labels, class_mask, keep_present, pick, softplus


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
      eps: added to the standard deviation, relative to the largest deviation of a logit from the
        mean; equal logits have z-score and gradient zero.
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
    z = pick(_standardize(upcast(logits), mask, eps), labels)
    loss = softplus(sharpness * (threshold - z)) / sharpness
    return restore(keep_present(loss, labels, mask), logits)


def _standardize(
    scores: Float[Array, "... classes"], mask: Bool[Array, "... classes"] | None, eps: float
) -> Float[Array, "... classes"]:
    """Z-scores among the classes that are there."""
    there = jnp.ones_like(scores, bool) if mask is None else mask
    count = jnp.maximum(jnp.sum(there, -1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(there, scores / count, 0), -1, keepdims=True)
    centred = jnp.where(there, scores - mean, 0)
    # Divided by the largest deviation first: squares neither overflow nor vanish, and what is left
    # of equal logits after rounding is not blown up.
    largest = jnp.max(jnp.abs(centred), -1, keepdims=True)
    noise = 8 * jnp.finfo(scores.dtype).eps * jnp.max(jnp.abs(scores), -1, keepdims=True)
    some = largest > noise
    unit = jnp.where(some, centred / jnp.where(some, largest, 1), 0)
    return unit / (safe_sqrt(jnp.sum(jnp.square(unit), -1, keepdims=True) / count) + eps)


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
    squares = jnp.square(upcast(logits) + shift) + eps
    total = jnp.sum(squares if mask is None else jnp.where(mask, squares, 0), -1)
    present = total > 0
    loss = jnp.log(jnp.where(present, total, 1)) - jnp.log(pick(squares, labels))
    return restore(keep_present(loss, labels, mask), logits)
