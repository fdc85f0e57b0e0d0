"""Self-distillation: a student predicts what a slow teacher makes of another view (DINO, MSN)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_log,
    safe_normalize,
    upcast,
)
from ._shared import mean_of_devices
from .views import sinkhorn_assignment

Outputs = Float[Array, "views batch prototypes"]


class DinoState(NamedTuple):
    """State of `dino_loss` and of `ibot_loss`.

    Attributes:
      center: moving average of the teacher's outputs [prototypes].
    """

    center: Float[Array, "prototypes"]


def dino_init(prototypes: int) -> DinoState:
    """The state of `dino_loss` or `ibot_loss` before the first step.

    The center is zero.

    Args:
      prototypes: the number of outputs of student and teacher.

    Returns:
      `DinoState` of an array [prototypes].

    Raises:
      ValueError: if `prototypes` is not positive.

    Source: Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294,
    Algorithm 1.

    >>> dino_init(3).center.tolist()
    [0.0, 0.0, 0.0]
    """
    check_count(prototypes=prototypes)
    return DinoState(jnp.zeros(prototypes, jnp.float32))


def _check_outputs(state: DinoState, student: Any, teacher: Any, meaning: str) -> None:
    check_floating(student=student, teacher=teacher)
    check_rank("student", student, 3)
    check(0 not in jnp.shape(student), "student", f"got shape {jnp.shape(student)}, takes no zeros")
    check_rank("teacher", teacher, 3)
    width = jnp.shape(student)[-1:]
    check_shape("teacher", teacher, (*jnp.shape(teacher)[:-1], *width), meaning)
    check_shape("state.center", state.center, width, "[prototypes], as student")


def _targets(
    state: DinoState,
    teacher: Array,
    temperature: Any,
    sinkhorn_iterations: int,
    axis_name: str | None,
    where: Array | None = None,
) -> Array:
    """Probabilities of the teacher, centred or balanced over the rows that are there."""
    if sinkhorn_iterations == 0:
        return jax.nn.softmax((teacher - state.center.astype(teacher.dtype)) / temperature, -1)
    check_count(sinkhorn_iterations=sinkhorn_iterations)
    rows = teacher.reshape(-1, teacher.shape[-1]) / temperature
    there = None if where is None else where.reshape(-1)
    balanced = sinkhorn_assignment(
        rows, there, temperature=1.0, iterations=sinkhorn_iterations, axis_name=axis_name
    )
    return balanced.reshape(teacher.shape)


def _recenter(state: DinoState, mean: Array, momentum: Any) -> DinoState:
    center = state.center.astype(mean.dtype)
    moved = momentum * center + (1 - momentum) * mean
    return DinoState(jax.lax.stop_gradient(moved).astype(state.center.dtype))


def dino_loss(
    state: DinoState,
    student: Outputs,
    teacher: Outputs,
    *,
    temperature: float = 0.1,
    teacher_temperature: float | Float[Array, ""] = 0.04,
    momentum: float = 0.9,
    sinkhorn_iterations: int = 0,
    axis_name: str | None = None,
) -> tuple[Float[Array, "batch"], DinoState]:
    """DINO: every view of the student predicts the teacher's distribution of every other view.

    `mean_{v != w} -sum_k q_vk log softmax_k(s_w / t)` with the teacher's
    `q_v = softmax((g_v - c) / t_g)`, a constant for the gradient. The center `c`, without which one
    prototype would come to take all, then moves towards the mean of `g` over views and batch.

    Args:
      state: from `dino_init` or the step before.
      student: outputs of the student for all views [views, batch, prototypes], those that the
        teacher has seen too first, in the same order.
      teacher: outputs of the teacher for its views [teacher_views, batch, prototypes].
      temperature: `t`.
      teacher_temperature: `t_g`, as a rule raised from 0.04 to 0.07 during the first epochs.
      momentum: the weight of the old center.
      sinkhorn_iterations: above zero, `q` is the `sinkhorn_assignment` of all views of the batch in
        so many iterations, without the center, as in DINOv2 (3).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch], and the new state.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294, Eq. 3 and
    Algorithm 1; `DINOLoss` of lightly-ai/lightly agrees in values, gradients and center, and that
    of facebookresearch/dinov2 with Sinkhorn's algorithm.

    >>> outputs = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> loss, state = dino_loss(dino_init(2), outputs, outputs, teacher_temperature=0.5)
    >>> np.asarray(loss, float).round(3), np.asarray(state.center, float).round(3)
    (array([8.808]), array([0.05, 0.05]))
    """
    _check_outputs(state, student, teacher, "[views, batch, prototypes], batch as student")
    batch = jnp.shape(student)[1]
    check_shape("teacher", teacher, (None, batch, None), "[views, batch, prototypes], as student")
    views, others = jnp.shape(student)[0], jnp.shape(teacher)[0]
    count = views * others - min(views, others)
    check(count > 0, "teacher", "got no pair of different views, takes two views or more in all")
    check_positive(temperature=temperature, teacher_temperature=teacher_temperature)
    check_range("momentum", momentum, 0, 1)
    s, g = upcast(student, jax.lax.stop_gradient(teacher))
    log_p = jax.nn.log_softmax(s / temperature, -1)
    q = _targets(state, g, teacher_temperature, sinkhorn_iterations, axis_name)
    every = -jnp.einsum("vbk,wbk->vwb", q, log_p, precision=jax.lax.Precision.HIGHEST)
    different = ~jnp.eye(others, views, dtype=bool)[..., None]
    loss = jnp.sum(jnp.where(different, every, 0), (0, 1)) / count
    mean = mean_of_devices(jnp.mean(g, (0, 1)), axis_name)
    return restore(loss, student), _recenter(state, mean, momentum)


def ibot_loss(
    state: DinoState,
    student: Float[Array, "batch tokens prototypes"],
    teacher: Float[Array, "batch tokens prototypes"],
    mask: Bool[Array, "batch tokens"],
    *,
    temperature: float = 0.1,
    teacher_temperature: float | Float[Array, ""] = 0.04,
    momentum: float = 0.9,
    sinkhorn_iterations: int = 0,
    axis_name: str | None = None,
) -> tuple[Float[Array, "batch"], DinoState]:
    """iBOT: the student predicts the teacher's distribution of the patches that it does not see.

    `mean_{i masked} -sum_k q_ik log softmax_k(s_i / t)` with the teacher's
    `q_i = softmax((g_i - c) / t_g)`, a constant for the gradient. The center `c` moves towards the
    mean of `g` over the masked patches of the batch.

    Args:
      state: from `dino_init` or the step before, other than that of `dino_loss`.
      student: outputs for the patches of an image with some masked [batch, tokens, prototypes].
      teacher: outputs for the same patches of the whole image [batch, tokens, prototypes].
      mask: which patches the student did not see [batch, tokens].
      temperature: `t`.
      teacher_temperature: `t_g`.
      momentum: the weight of the old center.
      sinkhorn_iterations: above zero, `q` is the `sinkhorn_assignment` of all masked patches of the
        batch in so many iterations, without the center, as in DINOv2 (3).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an image [batch], zero without a masked patch, and the new state.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: iBOT: Image BERT Pre-Training with Online Tokenizer, arXiv 2111.07832, the loss of
    masked patches, with a center of these alone as in DINOv2, arXiv 2304.07193; `IBOTPatchLoss` of
    lightly-ai/lightly agrees in values, gradients and center, and that of facebookresearch/dinov2
    with Sinkhorn's algorithm.

    >>> outputs, mask = jnp.array([[[1.0, 0.0], [0.0, 1.0]]]), jnp.array([[True, False]])
    >>> loss, state = ibot_loss(dino_init(2), -outputs, outputs, mask, teacher_temperature=0.5)
    >>> np.asarray(loss, float).round(3), np.asarray(state.center, float).round(3)
    (array([8.808]), array([0.1, 0. ]))
    """
    _check_outputs(state, student, teacher, "[batch, tokens, prototypes], as student")
    check_shape("teacher", teacher, jnp.shape(student), "[batch, tokens, prototypes], as student")
    check_shape("mask", mask, jnp.shape(student)[:2], "[batch, tokens], one a patch")
    masked = jnp.asarray(mask)
    check_boolean(mask=masked)
    check_positive(temperature=temperature, teacher_temperature=teacher_temperature)
    check_range("momentum", momentum, 0, 1)
    s, g = upcast(student, jax.lax.stop_gradient(teacher))
    log_p = jax.nn.log_softmax(s / temperature, -1)
    q = _targets(state, g, teacher_temperature, sinkhorn_iterations, axis_name, masked)
    each = -jnp.sum(q * log_p, -1)
    loss = jnp.sum(jnp.where(masked, each, 0), -1) / jnp.maximum(jnp.sum(masked, -1), 1)
    total = jnp.sum(jnp.where(masked[..., None], g, 0), (0, 1))
    count = jnp.sum(masked, dtype=g.dtype)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    moved = _recenter(state, safe_divide(total, count), momentum)
    return restore(loss, student), DinoState(jnp.where(count > 0, moved.center, state.center))


def msn_loss(
    anchors: Float[Array, "views batch features"],
    targets: Float[Array, "batch features"],
    prototypes: Float[Array, "prototypes features"],
    prior: Float[Array, "prototypes"] | None = None,
    *,
    temperature: float = 0.1,
    sharpening: float = 0.25,
    sinkhorn_iterations: int = 3,
    prior_weight: float = 1.0,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """MSN: masked views are assigned to prototypes as the whole image is, all prototypes in use.

    `mean_v -sum_k q_k log p_vk + w KL(mean p || prior)` with `p_v = softmax(cos(a_v, c) / t)`
    and the target `q = softmax(cos(z, c) / (t r))`, balanced over the batch by Sinkhorn's algorithm
    and constant for the gradient. The mean of `p` is over views and batch.

    Args:
      anchors: embeddings of the masked views by the student [views, batch, features].
      targets: embeddings of the whole images by the teacher [batch, features].
      prototypes: `c` [prototypes, features].
      prior: how much of the batch each prototype should get, a distribution [prototypes]; uniform
        for None, with which the divergence is minus the entropy up to a constant.
      temperature: `t`.
      sharpening: `r`.
      sinkhorn_iterations: how often shares of prototypes and of examples are normalized; 0 for not
        at all.
      prior_weight: `w` (lambda in the papers).
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an image [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Masked Siamese Networks for Label-Efficient Learning, arXiv 2204.07141, Eq. 1;
    `MSNLoss` of lightly-ai/lightly agrees in values and gradients. The prior is that of The Hidden
    Uniform Cluster Prior in Self-Supervised Learning, arXiv 2210.07277 (PMSN), which takes powers
    `k^-0.25`; lightly has the divergence the other way round there.

    >>> x, prototypes = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
    >>> np.asarray(msn_loss(x[None], x, prototypes, temperature=0.5), float).round(3)
    array([0.128, 0.128])
    """
    check_floating(anchors=anchors, targets=targets, prototypes=prototypes)
    check_rank("anchors", anchors, 3)
    check(0 not in jnp.shape(anchors), "anchors", f"got shape {jnp.shape(anchors)}, takes no zeros")
    check_shape("targets", targets, jnp.shape(anchors)[1:], "[batch, features], as anchors")
    features = jnp.shape(anchors)[-1]
    check_shape("prototypes", prototypes, (None, features), "[prototypes, features], as anchors")
    count = jnp.shape(prototypes)[0]
    check(count > 0, "prototypes", "got none, takes one or more")
    if prior is not None:
        check_floating(prior=prior)
        check_shape("prior", prior, (count,), "[prototypes], one a prototype")
    check_positive(temperature=temperature, sharpening=sharpening)
    if sinkhorn_iterations != 0:
        check_count(sinkhorn_iterations=sinkhorn_iterations)
    check_range("prior_weight", prior_weight, 0)
    a, z, c = map(safe_normalize, upcast(anchors, targets, prototypes))

    def scores(x: Array, c: Array) -> Array:
        cosine = jnp.einsum("...f,kf->...k", x, c, precision=jax.lax.Precision.HIGHEST)
        return cosine / temperature

    log_q = jax.nn.log_softmax(jax.lax.stop_gradient(scores(z, c)) / sharpening, -1)
    q = jnp.exp(log_q)
    if sinkhorn_iterations:
        q = sinkhorn_assignment(
            log_q, temperature=1.0, iterations=sinkhorn_iterations, axis_name=axis_name
        )
    log_p = jax.nn.log_softmax(scores(a, c), -1)
    loss = -jnp.mean(jnp.sum(q * log_p, -1), 0)
    mean = mean_of_devices(jnp.mean(jnp.exp(log_p), (0, 1)), axis_name)
    wanted = jnp.full(count, 1 / count, a.dtype) if prior is None else upcast(prior)
    divergence = jnp.sum(mean * (safe_log(mean) - safe_log(wanted.astype(a.dtype))))
    return restore(loss + prior_weight * divergence, anchors, targets, prototypes)
