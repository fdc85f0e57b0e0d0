"""Losses that learn from a teacher: its probabilities, its features, its points, or one's own past.

No gradient is held back from a teacher that is an argument; one that is trained elsewhere enters
under `jax.lax.stop_gradient`, or simply is not differentiated. Remembered predictions and the
errors that only choose between regions carry none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check_count,
    check_floating,
    check_integer,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_norm,
    safe_normalize,
    upcast,
)
from ._shared import as_index, check_labels, check_targets, class_mask, is_label, log_sum_exp


def _log_softmax(z: Array, mask: Any) -> Array:
    """Log-probabilities over the classes that are there, zero elsewhere."""
    if mask is None:
        return jax.nn.log_softmax(z)
    return jnp.where(mask, z - log_sum_exp(z, mask, keepdims=True), 0)


def soft_cross_entropy(logits: Array, targets: Array) -> Array:
    """`-sum_k t_k log softmax(z)_k` in the dtype of the arguments."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), -1)


def knowledge_distillation_loss(
    logits: Float[Array, "... classes"],
    teacher_logits: Float[Array, "... classes"],
    *,
    temperature: float = 4.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Knowledge distillation: the divergence of the student's softened softmax from the teacher's.

    `T^2 KL(softmax(z_t / T) | softmax(z_s / T))`. The factor keeps the size of the gradient as `T`
    changes; for large `T` the loss tends to `|z_s - z_t|^2 / (2 K)` of centred logits. It is added
    to the cross-entropy with the labels, with a weight.

    Args:
      logits: the student's scores [..., classes].
      teacher_logits: the teacher's scores [..., classes].
      temperature: `T`, how far both softmaxes are softened.
      where: which examples [...] or which classes [..., classes] are there; an example without any
        class has loss zero.

    Returns:
      One loss an example [...], zero where both softmaxes agree.

    Raises:
      ValueError: if a shape, a dtype or `temperature` does not fit.

    Source: Distilling the Knowledge in a Neural Network, arXiv 1503.02531, Section 2. The paper
    tries temperatures from 1 to 20; 4 is the default of `KDLoss` in `CIFAR/utils.py` of
    WangYZ1608/Knowledge-Distillation-via-ND, with which this agrees.

    >>> loss = knowledge_distillation_loss(jnp.array([[2.0, 0.0]]), jnp.array([[5.0, 3.0]]))
    >>> np.asarray(loss, float).round(3)
    array([0.])
    """
    check_targets(logits, teacher_logits, "teacher_logits")
    check_positive(temperature=temperature)
    mask = class_mask(where, logits)
    student, teacher = upcast(logits, teacher_logits)
    log_p = _log_softmax(teacher / temperature, mask)
    log_q = _log_softmax(student / temperature, mask)
    p = jnp.exp(log_p) if mask is None else jnp.where(mask, jnp.exp(log_p), 0)
    loss = temperature**2 * jnp.sum(p * (log_p - log_q), -1)
    return restore(loss, logits, teacher_logits)


class PsKdState(NamedTuple):
    """What `ps_kd` remembers.

    Attributes:
      predictions: what the model last predicted for each training example [examples, classes].
    """

    predictions: Float[Array, "examples classes"]


def ps_kd_init(labels: Int[Array, "examples"], *, classes: int) -> PsKdState:
    """The state of `ps_kd` before the first epoch: the labels themselves.

    `P_0 = onehot(y)`, so that the first epoch is plain cross-entropy whatever the weight.

    Args:
      labels: the class of each training example, from 0 on [examples].
      classes: number of classes.

    Returns:
      A `PsKdState` of predictions [examples, classes] in float32.

    Raises:
      ValueError: if `labels` is not a vector of integers or `classes` not a positive integer.

    Source: Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv 2006.12000;
    `main.py` of lgcnsai/PS-KD-Pytorch.

    >>> ps_kd_init(jnp.array([1, 0]), classes=3).predictions.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    check_integer(labels=labels)
    check_rank("labels", labels, 1)
    check_count(classes=classes)
    return PsKdState(is_label(jnp.asarray(labels), classes).astype(jnp.float32))


def ps_kd_weight(
    epoch: Int[Array, ""] | int, *, epochs: int, final_weight: float = 0.8
) -> Float[Array, ""]:
    """How much of the target the past prediction makes up: it grows linearly over training.

    `a_t = a_T t / T` with epochs counted from one, so that the last one has `a_T`.

    Args:
      epoch: the epoch, from 0 on [].
      epochs: `T`, how many there are.
      final_weight: `a_T` in [0, 1].

    Returns:
      The weight [], in float32.

    Raises:
      ValueError: if `epoch` is not an integer, `epochs` not positive or `final_weight` out of
        range.

    Source: Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv 2006.12000,
    the linear growth of alpha; `main.py` of lgcnsai/PS-KD-Pytorch agrees.

    >>> print(f"{ps_kd_weight(9, epochs=10):.2f}")
    0.80
    """
    check_integer(epoch=epoch)
    check_positive(epochs=epochs)
    check_range("final_weight", final_weight, 0, 1)
    return final_weight * (jnp.asarray(epoch, jnp.float32) + 1) / epochs


def ps_kd(
    state: PsKdState,
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    indices: Int[Array, "batch"],
    *,
    weight: float | Float[Array, ""],
) -> tuple[Float[Array, "batch"], PsKdState]:
    """Progressive self-distillation: a share of the target is what one predicted an epoch ago.

    `-sum_k t_k log softmax(z)_k` with `t = (1 - a) onehot(y) + a P`, where `P` is the probability
    vector that the model gave this example when it last saw it. No gradient goes through `P`; after
    the call it holds the current prediction.

    Args:
      state: the last prediction of every training example.
      logits: scores [batch, classes].
      labels: the class of each example, from 0 on [batch].
      indices: which training examples these are [batch]; where one occurs twice, one of the two
        predictions is kept.
      weight: `a` in [0, 1], as `ps_kd_weight` gives it for the epoch [].

    Returns:
      One loss an example [batch], and the state with their new predictions.

    Raises:
      ValueError: if a shape, a dtype or `weight` does not fit.

    Source: Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv 2006.12000,
    the definition of the soft targets; `main.py` and `loss/pskd_loss.py` of
    lgcnsai/PS-KD-Pytorch, which average over the batch.

    >>> state = ps_kd_init(jnp.array([1, 0]), classes=2)
    >>> loss, state = ps_kd(state, jnp.zeros((1, 2)), jnp.array([0]), jnp.array([1]), weight=0.5)
    >>> state.predictions.tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    check_labels(logits, labels)
    check_rank("logits", logits, 2)
    check_integer(indices=indices)
    check_shape("indices", indices, jnp.shape(labels), "[batch], as labels")
    check_range("weight", weight, 0, 1)
    table, indices = jnp.asarray(state.predictions), jnp.asarray(indices)
    classes = jnp.shape(logits)[-1]
    check_shape("state", table, (None, classes), "[examples, classes], classes as logits")
    z = upcast(logits)
    past = jax.lax.stop_gradient(table)[indices].astype(z.dtype)
    targets = (1 - weight) * is_label(jnp.asarray(labels), classes) + weight * past
    loss = soft_cross_entropy(z, targets)
    now = jax.lax.stop_gradient(jax.nn.softmax(z)).astype(table.dtype)
    return restore(loss, logits), PsKdState(table.at[indices].set(now))


def class_means(
    features: Float[Array, "examples features"], labels: Int[Array, "examples"], *, classes: int
) -> Float[Array, "classes features"]:
    """The mean feature of each class.

    `mu_k = mean of f_i over y_i = k`; zero for a class without examples.

    Args:
      features: features [examples, features].
      labels: the class of each example, from 0 on [examples]; an example whose label is none of
        the classes counts for nothing.
      classes: number of classes.

    Returns:
      The means [classes, features].

    Raises:
      ValueError: if a shape or dtype does not fit or `classes` is not a positive integer.

    Source: textbook definition; the centres that `norm_direction_loss` takes, arXiv 2305.17007.

    >>> class_means(jnp.array([[1.0], [3.0], [5.0]]), jnp.array([1, 1, 0]), classes=2).tolist()
    [[5.0], [2.0]]
    """
    check_floating(features=features)
    check_rank("features", features, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(features)[:1], "[examples], one a row of features")
    check_count(classes=classes)
    x, labels = upcast(features), jnp.asarray(labels)
    rows = as_index(labels, classes)
    sums = jnp.zeros((classes, x.shape[1]), x.dtype).at[rows].add(x, mode="drop")
    counts = jnp.zeros((classes, 1), x.dtype).at[rows].add(1, mode="drop")
    return restore(safe_divide(sums, counts), features)


def norm_direction_loss(
    features: Float[Array, "... features"],
    teacher_features: Float[Array, "... features"],
    labels: Int[Array, "..."],
    class_means: Float[Array, "classes features"],
) -> Float[Array, "..."]:
    """The ND loss: student features towards the teacher's class mean, and at least as long.

    `1 - <f_s, e_y> / max(|f_s|, |f_t|)` with `e_k = mu_k / |mu_k|`, the direction of the teacher's
    mean feature of class `k`. It is zero where `f_s` points along `e_y` and is no shorter than
    `f_t`. A student shorter than its teacher is drawn along `e_y`, a longer one is only turned.

    Args:
      features: the student's penultimate features, brought to the teacher's width [..., features].
      teacher_features: the teacher's features of the same inputs [..., features].
      labels: the class of each example, from 0 on [...].
      class_means: the teacher's mean feature of each class over the training set, as the function
        `class_means` gives it [classes, features]; their lengths do not matter.

    Returns:
      One loss an example [...], from 0 to 2.

    Raises:
      ValueError: if a shape or a dtype does not fit.

    Source: Improving Knowledge Distillation via Regularizing Feature Norm and Direction, arXiv
    2305.17007, the ND loss; `DirectNormLoss` in `CIFAR/utils.py` of
    WangYZ1608/Knowledge-Distillation-via-ND agrees and averages over the batch.

    >>> mean = jnp.array([[1.0, 0.0]])
    >>> loss = norm_direction_loss(
    ...     jnp.array([[2.0, 0.0], [0.5, 0.0]]), jnp.ones((2, 2)), jnp.array([0, 0]), mean
    ... )
    >>> np.asarray(loss, float).round(3)
    array([0.   , 0.646])
    """
    check_floating(features=features, teacher_features=teacher_features, class_means=class_means)
    check_rank("features", features, 1, at_least=True)
    shape = jnp.shape(features)
    check_shape("teacher_features", teacher_features, shape, "[..., features], as features")
    check_integer(labels=labels)
    check_shape("labels", labels, shape[:-1], "[...], one a row of features")
    check_shape("class_means", class_means, (None, shape[-1]), "[classes, features]")
    student, teacher, means = upcast(features, teacher_features, class_means)
    # NaN for a label that is none of the classes.
    target = jnp.take(safe_normalize(means), as_index(jnp.asarray(labels), len(means)), axis=0)
    along = jnp.sum(student * target, -1)
    length = jnp.maximum(safe_norm(student), safe_norm(teacher))
    return restore(1 - safe_divide(along, length), features, teacher_features, class_means)


class SoftLabels(NamedTuple):
    """Adapted labels.

    Attributes:
      targets: a distribution over the classes for each example [..., classes].
      keep: whether the example is to be learned from [...].
    """

    targets: Float[Array, "... classes"]
    keep: Bool[Array, "..."]


def ferkd_labels(
    teacher_probabilities: Float[Array, "... classes"],
    labels: Int[Array, "..."],
    *,
    calibrate_below: float = 0.3,
    discard_below: float = 0.0,
    discard_above: float = 1.0,
    label_smoothing: float = 0.1,
) -> SoftLabels:
    """FerKD: where the teacher is unsure of a crop, the smoothed true label replaces its word.

    With the teacher's confidence `c = max_k p_k`: `(1 - e) onehot(y) + e / K` where
    `c < calibrate_below`, else `p`. Crops with `c < discard_below` or `c > discard_above` (the
    background and the too easy) are left out.

    Args:
      teacher_probabilities: the teacher's distribution for each crop [..., classes].
      labels: the class of the image that the crop is from, from 0 on [...].
      calibrate_below: the confidence below which the label replaces the teacher.
      discard_below: the confidence below which a crop is left out.
      discard_above: the confidence above which a crop is left out.
      label_smoothing: `e`, of the replacing labels.

    Returns:
      `SoftLabels` of targets [..., classes] and keep [...]. Their loss is
      `keep * optax.softmax_cross_entropy(logits, targets)`. No gradient reaches the teacher.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: FerKD: Surgical Label Adaptation for Efficient Distillation, arXiv 2312.17473: hard
    regions mining and calibration. The paper's text was not at hand and szq0214/FKD has no code
    of it, only of FKD: the rule follows the abstract, and thresholds, smoothing and its spread
    over all classes are ours. `calibrate_below=0` is FKD, `calibrate_below=1` label smoothing for
    all but the crops of which the teacher is certain.

    >>> p = jnp.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
    >>> out = ferkd_labels(p, jnp.array([1, 1]), calibrate_below=0.6, label_smoothing=0.3)
    >>> np.asarray(out.targets, float).round(2).tolist()
    [[0.1, 0.8, 0.1], [0.9, 0.1, 0.0]]
    """
    check_labels(teacher_probabilities, labels, "teacher_probabilities")
    check_range("calibrate_below", calibrate_below, 0, 1)
    check_range("discard_below", discard_below, 0, 1)
    check_range("discard_above", discard_above, 0, 1)
    check_range("label_smoothing", label_smoothing, 0, 1)
    p = jax.lax.stop_gradient(upcast(teacher_probabilities))
    classes = p.shape[-1]
    confidence = jnp.max(p, -1)
    hard = is_label(jnp.asarray(labels), classes).astype(p.dtype)
    smoothed = (1 - label_smoothing) * hard + label_smoothing / classes
    targets = jnp.where((confidence < calibrate_below)[..., None], smoothed, p)
    keep = (confidence >= discard_below) & (confidence <= discard_above)
    return SoftLabels(restore(targets, teacher_probabilities), keep)
