"""Losses that ask for confidence that means something: high where the prediction is right."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import check_labels, mean_of_devices, pick


def _prediction(
    logits: Float[Array, "... classes"],
) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
    """The largest probability and its class: of equal ones the first, also in the derivative."""
    top = jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    classes = logits.shape[-1]
    # As argmax, which takes longer on a CPU.
    first = jnp.min(jnp.where(logits == top, jnp.arange(classes), classes), -1)
    total = jnp.sum(jnp.exp(logits - top), -1)
    return jnp.exp(pick(logits, first) - top[..., 0]) / total, first


def correctness_aware_loss(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    *,
    balance: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Squared distance of the confidence from whether the prediction is right.

    `(max_k p_k - 1[argmax_k p_k = y])^2`. It lowers the confidence of every wrong prediction, also
    of one that barely missed the label, where cross-entropy would raise it.

    Args:
      logits: calibrated scores, as a rule `scores / temperature` [batch, classes].
      labels: the right class of each example, from 0 on [batch].
      balance: weigh right and wrong predictions so that each kind has half of the batch's weight,
        `1 / (2 share)`; a batch of one kind alone keeps its weights of one.
      axis_name: the mesh axis whose devices share the batch, for the shares of the kinds.

    Returns:
      One loss an example [batch]; its mean is that of the batch.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: Optimizing Calibration by Gaining Aware of Prediction Correctness, arXiv 2404.13016, the
    correctness-aware loss; with `balance` its gradients are those of
    `src/cal_metrics/temperature_scaling_CA.py` of liuyvchi/Correctness-aware-calibration, which
    divides zero by zero where a batch is all right or all wrong.

    >>> loss = correctness_aware_loss(jnp.log(jnp.array([[0.6, 0.4]] * 2)), jnp.array([0, 1]))
    >>> np.asarray(loss, float).round(2)
    array([0.16, 0.36])
    """
    check_labels(logits, labels)
    check_rank("logits", logits, 2)
    z = upcast(logits)
    confidence, predicted = _prediction(z)
    right = (predicted == jnp.asarray(labels)).astype(z.dtype)
    loss = jnp.square(confidence - right)
    if balance:
        share = mean_of_devices(jnp.mean(right), axis_name)
        kind = jnp.where(right > 0, share, 1 - share)
        loss = loss * jnp.where((share > 0) & (share < 1), 1 / (2 * kind), 1)
    return restore(loss, logits)


def mixup_ranking_loss(
    logits: Float[Array, "batch classes"],
    mixed_logits: Float[Array, "batch classes"],
    *,
    margin: float = 2.0,
    where: Bool[Array, "batch"] | None = None,
    masking: Literal["example", "batch"] = "example",
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Asks that an example's largest score lead that of its mixture with another by a margin: MRL.

    `max(0, max_k z~_k - max_k z_k + margin)` of the scores `z` of the example and `z~` of the
    mixture. It is added to cross-entropy on the examples, with a weight of 0.1.

    Args:
      logits: scores of the examples as they are [batch, classes].
      mixed_logits: scores of the mixtures `lam x_i + (1 - lam) x_j` [batch, classes].
      margin: the lead; 2 for CIFAR, 1 for Tiny-ImageNet.
      where: where the two mixed examples are of different classes [batch]; the others have loss
        zero. All by default.
      masking: "example", or "batch" for what the released code computes: its product of shapes
        [batch] and [batch, 1] spreads the mean of `where` over all hinges.
      axis_name: the mesh axis whose devices share the batch, for that mean.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if the shapes do not fit, a dtype is wrong or `masking` is unknown.

    Source: RankMixup: Ranking-Based Mixup Training for Network Calibration, arXiv 2308.11990, the
    mixup-based ranking loss; `calibrate/losses/rankmixup.py` of cvlab-yonsei/RankMixup agrees on
    value and gradients with `masking="batch"`.

    >>> raw, mixed = jnp.array([[5.0, 0.0]]), jnp.array([[4.0, 1.0]])
    >>> mixup_ranking_loss(raw, mixed).tolist()
    [1.0]
    """
    check_floating(logits=logits, mixed_logits=mixed_logits)
    check_rank("logits", logits, 2)
    check(jnp.shape(logits)[1] > 0, "logits", "got no classes, takes one or more")
    check_shape("mixed_logits", mixed_logits, jnp.shape(logits), "[batch, classes], as logits")
    check(
        masking in ("example", "batch"),
        "masking",
        f"got {masking!r}, takes 'example' or 'batch'",
    )
    raw, mixed = upcast(logits, mixed_logits)
    if where is not None:
        check_boolean(where=where)
        check_shape("where", where, jnp.shape(logits)[:1], "[batch]")
        there = jnp.asarray(where)
        if masking == "example":
            raw, mixed = (jnp.where(there[:, None], x, 0) for x in (raw, mixed))
    loss = jnp.maximum(jnp.max(mixed, -1) - jnp.max(raw, -1) + margin, 0)
    if where is not None:
        if masking == "batch":
            loss = loss * mean_of_devices(jnp.mean(there, dtype=loss.dtype), axis_name)
        else:
            loss = jnp.where(there, loss, 0)
    return restore(loss, logits, mixed_logits)


def _ndcg_parts(logits: Any, mixed_logits: Any, mixing: Any) -> None:
    check_floating(logits=logits, mixed_logits=mixed_logits, mixing=mixing)
    check_rank("logits", logits, 2)
    check(jnp.shape(logits)[1] > 0, "logits", "got no classes, takes one or more")
    shape = (None, *jnp.shape(logits))
    check_shape("mixed_logits", mixed_logits, shape, "[mixtures, batch, classes]")
    check_shape("mixing", mixing, jnp.shape(mixed_logits)[:2], "[mixtures, batch]")


def mixup_ndcg_loss(
    logits: Float[Array, "batch classes"],
    mixed_logits: Float[Array, "mixtures batch classes"],
    mixing: Float[Array, "mixtures batch"],
) -> Float[Array, "batch"]:
    """Asks that confidences be ordered, and sized, as the shares that were mixed: M-NDCG.

    `1 - min(r, 1 / r)`, `r = DCG / IDCG`, over the list of the example and its mixtures by falling
    share: `DCG = sum_j c_j / log2(j + 1)` of the confidences `c_j = max_k p_jk`, `IDCG` the same of
    the shares, which are 1 for the example itself. It is added to cross-entropy on the examples,
    with a weight of 0.1.

    Args:
      logits: scores of the examples as they are [batch, classes].
      mixed_logits: scores of several mixtures of each [mixtures, batch, classes].
      mixing: the larger share, `max(lam, 1 - lam)`, or 1 where both parts are of one class
        [mixtures, batch].

    Returns:
      One loss an example [batch], from 0 to 1.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: RankMixup: Ranking-Based Mixup Training for Network Calibration, arXiv 2308.11990,
    M-NDCG; value and gradients agree with `calibrate/losses/rankmixup.py` of
    cvlab-yonsei/RankMixup.

    >>> sure = jnp.array([[50.0, 0.0]])
    >>> mixup_ndcg_loss(sure, sure[None], jnp.array([[1.0]])).tolist()
    [0.0]
    """
    _ndcg_parts(logits, mixed_logits, mixing)
    raw, mixed, share = upcast(logits, mixed_logits, mixing)
    share = jax.lax.stop_gradient(share)
    order = jnp.argsort(-share, axis=0)
    gains = jnp.take_along_axis(_prediction(mixed)[0], order, axis=0)
    ideal = jnp.take_along_axis(share, order, axis=0)
    gains = jnp.concatenate([_prediction(raw)[0][None], gains])
    ideal = jnp.concatenate([jnp.ones_like(ideal, shape=(1, ideal.shape[1])), ideal])
    discount = 1 / jnp.log2(jnp.arange(2, len(gains) + 2, dtype=gains.dtype))
    dcg, idcg = discount @ gains, discount @ ideal
    # Confidences are at least 1 / classes and the first share is one, so neither sum is zero.
    loss = 1 - jnp.where(idcg > dcg, dcg, idcg) / jnp.where(idcg > dcg, idcg, dcg)
    return restore(loss, logits, mixed_logits)
