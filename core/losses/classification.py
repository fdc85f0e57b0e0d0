"""Cross-entropy and its relatives: what a classifier is trained with when its labels are right."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_broadcastable,
    check_floating,
    check_rank,
    restore,
    upcast,
)
from ..numerics.stablemax import log_s, s
from ._shared import (
    check_labels,
    check_targets,
    class_mask,
    is_label,
    keep_present,
    label_is_there,
    log_sum_exp,
    pick,
    softplus,
)


def _mask(
    logits: Float[Array, "..."], axis: int, where: Bool[Array, "..."] | None
) -> Bool[Array, "..."] | None:
    check_floating(logits=logits)
    check_rank("logits", logits, 1, at_least=True)
    rank = jnp.ndim(logits)
    check(-rank <= axis < rank, "axis", f"got {axis}, takes one of the {rank} of logits")
    if where is None:
        return None
    check_boolean(where=where)
    check_broadcastable("where", where, jnp.shape(logits), "as logits")
    return jnp.broadcast_to(where, jnp.shape(logits))


def log_stablemax(
    logits: Float[Array, "... classes"],
    *,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "... classes"]:
    """Logarithm of `stablemax`, the softmax whose exponential is replaced by a slow function.

    `log s(x_i) - log sum_j s(x_j)` with `log s(x) = log(1 + x)` for `x >= 0` and `-log(1 - x)`
    below.

    Args:
      logits: scores [..., classes].
      axis: the axis of the classes.
      where: booleans that broadcast to `logits`: the classes that are there. An absent class gets
        the lowest finite number; so does every class of a row without any.

    Returns:
      Log-probabilities of the shape of `logits`.

    Raises:
      ValueError: if `logits` is not floating point, or `axis` or `where` does not fit it.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, the definition of
    StableMax; compared with `utils.py` of
    LucasPrietoAl/grokking-at-the-edge-of-numerical-stability, which takes the logarithm of the
    ratio in float64. Here the logarithm is taken first, which float32 is enough for.

    >>> np.asarray(log_stablemax(jnp.array([0.0, 1.0, -1.0])), float).round(3)
    array([-1.253, -0.56 , -1.946])
    """
    mask = _mask(logits, axis, where)
    scores = upcast(logits)
    values = log_s(scores if mask is None else jnp.where(mask, scores, 0))
    log_p = values - log_sum_exp(values, mask, axis, keepdims=True)
    if mask is not None:
        # Half precision has the narrower range where it is float16.
        lowest = float(jnp.finfo(jnp.result_type(logits)).min)
        log_p = jnp.where(mask, jnp.where(mask, log_p, 0), lowest)
    return restore(log_p, logits)


def stablemax(
    logits: Float[Array, "... classes"],
    *,
    axis: int = -1,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "... classes"]:
    """Probabilities in proportion to a function that grows linearly and decays as a reciprocal.

    `p_i = s(x_i) / sum_j s(x_j)` with `s(x) = x + 1` for `x >= 0` and `1 / (1 - x)` below. `s` is
    continuously differentiable, increasing, and `s(x) s(-x) = 1`. Unlike softmax the result
    changes when a constant is added to all scores.

    Args:
      logits: scores [..., classes].
      axis: the axis of the classes.
      where: booleans that broadcast to `logits`: the classes that are there. An absent class has
        probability zero; so has every class of a row without any.

    Returns:
      Probabilities of the shape of `logits`; they sum to one along `axis`.

    Raises:
      ValueError: if `logits` is not floating point, or `axis` or `where` does not fit it.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, the definition of
    StableMax; agrees with `utils.py` of
    LucasPrietoAl/grokking-at-the-edge-of-numerical-stability.

    >>> np.asarray(stablemax(jnp.array([0.0, 1.0, -1.0])), float).round(3)
    array([0.286, 0.571, 0.143])
    """
    check_floating(logits=logits)
    return restore(jnp.exp(log_stablemax(upcast(logits), axis=axis, where=where)), logits)


def stablemax_cross_entropy(
    logits: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy of integer labels under `stablemax`, which does not collapse in float32.

    `-log(s(x_y) / sum_j s(x_j))`, computed as `log(1 + sum_{j != y} s(x_j) / s(x_y))`, so that
    the loss of a well-learned example stays above zero and its gradient alive.

    Args:
      logits: scores [..., classes].
      labels: the right class of each example, from 0 on [...].
      where: which examples [...] or which classes [..., classes] are there. An example whose own
        label is absent has loss zero.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit, `logits` is not floating point or `labels` not integer.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, StableMax
    cross-entropy; values and gradients agree with `utils.py` of
    LucasPrietoAl/grokking-at-the-edge-of-numerical-stability in float64.

    >>> loss = stablemax_cross_entropy(jnp.array([[3.0, -1.0, -1.0]]), jnp.array([0]))
    >>> np.asarray(loss, float).round(3)
    array([0.223])
    """
    check_labels(logits, labels)
    mask, labels = class_mask(where, logits), jnp.asarray(labels)
    scores = upcast(logits)
    others, own, there = ~is_label(labels, scores.shape[-1]), pick(scores, labels), scores
    if mask is not None:
        others, there = others & mask, jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    top = jax.lax.stop_gradient(jnp.max(there, -1))
    if mask is not None:
        own = jnp.where(label_is_there(labels, mask), own, top)
    # `s` is monotone and grows slowly: its sum needs no logarithm or exponential of any entry.
    scale = jnp.maximum(s(-top), float(jnp.finfo(top.dtype).tiny))
    total = jnp.sum(jnp.where(others, s(there, scale[..., None]), 0), -1)
    none = total == 0
    odds = jnp.log(jnp.where(none, 1, total)) - jnp.log(scale) - log_s(own)
    loss = softplus(jnp.where(none, -jnp.inf, odds))
    return restore(keep_present(loss, labels, mask), logits)


def stablemax_cross_entropy_with_targets(
    logits: Float[Array, "... classes"],
    targets: Float[Array, "... classes"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Cross-entropy of dense targets (smoothed, mixed up, of a teacher) under `stablemax`.

    `-sum_i t_i log(s(x_i) / sum_j s(x_j))`.

    Args:
      logits: scores [..., classes].
      targets: the weight of each class, as a rule a distribution [..., classes].
      where: which examples [...] or which classes [..., classes] are there; an absent class takes
        no part, whatever its target.

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697; the natural extension of
    its StableMax cross-entropy to targets that are not one-hot.

    >>> x = jnp.array([[3.0, -1.0, -1.0]])
    >>> loss = stablemax_cross_entropy_with_targets(x, jnp.array([[0.9, 0.05, 0.05]]))
    >>> np.asarray(loss, float).round(3)
    array([0.431])
    """
    check_targets(logits, targets)
    mask = class_mask(where, logits)
    scores, weights = upcast(logits, targets)
    if mask is not None:
        scores, weights = jnp.where(mask, scores, 0), jnp.where(mask, weights, 0)
    values = log_s(scores)
    log_p = values - log_sum_exp(values, mask, keepdims=True)
    if mask is not None:
        log_p = jnp.where(mask, log_p, 0)
    return restore(-jnp.sum(weights * log_p, -1), logits, targets)
