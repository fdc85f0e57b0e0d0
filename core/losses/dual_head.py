"""Distillation through an auxiliary head: losses on logits, and gradients that do not conflict."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_shape,
    restore,
    safe_divide,
    upcast,
)
from ._shared import check_targets, softplus


def _log_cosh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log cosh x` to full relative precision near zero, without overflow far from it."""
    near = jnp.abs(x) < 1
    small, large = jnp.where(near, x, 0), jnp.where(near, 1, jnp.abs(x))
    around_zero = jnp.log1p(2 * jnp.square(jnp.sinh(small / 2)))
    return jnp.where(near, around_zero, large + jnp.log1p(jnp.exp(-2 * large)) - math.log(2))


def binary_kl_loss(
    logits: Float[Array, "... classes"],
    teacher_logits: Float[Array, "... classes"],
    *,
    temperature: float = 2.0,
) -> Float[Array, "..."]:
    """BinaryKL: every class is a yes-or-no question on which the student is to agree.

    `T^2 sum_k KL(Bern(sigmoid(z_t / T)) | Bern(sigmoid(z_s / T)))`. Unlike a softmax, it sees a
    shift that all logits share.

    Args:
      logits: the student's scores [..., classes].
      teacher_logits: the teacher's scores [..., classes].
      temperature: `T`.

    Returns:
      One loss an example [...], zero where the logits agree.

    Raises:
      ValueError: if a shape, a dtype or `temperature` does not fit.

    Source: Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head,
    arXiv 2411.08937, BinaryKL; `distiller_zoo/BinaryKL.py` of penghui-yang/DHKD, which clips the
    probabilities to [1e-8, 1 - 1e-8] and averages over the batch.

    >>> loss = binary_kl_loss(jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 1.0]]))
    >>> np.asarray(loss, float).round(3)
    array([0.227])
    """
    check_targets(logits, teacher_logits, "teacher_logits")
    check_positive(temperature=temperature)
    student, teacher = upcast(logits, teacher_logits)
    a, b = teacher / temperature, student / temperature
    each = jax.nn.sigmoid(a) * (a - b) + softplus(b) - softplus(a)
    return restore(temperature**2 * jnp.sum(each, -1), logits, teacher_logits)


def binary_kl_norm_loss(
    logits: Float[Array, "... classes"],
    teacher_logits: Float[Array, "... classes"],
    *,
    temperature: float = 2.0,
    clip: float | None = None,
) -> Float[Array, "..."]:
    """BinaryKL-Norm, the loss of the auxiliary head: it sees only how the logits differ.

    `T^2 sum_k KL(Bern(1/2) | Bern(sigmoid((z_s - z_t) / T)))
    = T^2 sum_k log cosh((z_s - z_t) / (2 T))`: `|z_s - z_t|^2 / 8` nearby, linear far away.

    Args:
      logits: scores of the student's auxiliary head [..., classes].
      teacher_logits: the teacher's scores [..., classes].
      temperature: `T`.
      clip: keep the probability in [clip, 1 - clip], beyond which nothing is learned any more;
        None for no limit.

    Returns:
      One loss an example [...], zero where the logits agree.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head,
    arXiv 2411.08937, BinaryKL-Norm; `distiller_zoo/BinaryKLNorm.py` of penghui-yang/DHKD, which is
    `clip=1e-8` and averages over the batch.

    >>> loss = binary_kl_norm_loss(jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 1.0]]))
    >>> np.asarray(loss, float).round(3)
    array([0.247])
    """
    check_targets(logits, teacher_logits, "teacher_logits")
    check_positive(temperature=temperature)
    student, teacher = upcast(logits, teacher_logits)
    half = (student - teacher) / (2 * temperature)
    if clip is not None:
        check_range("clip", clip, 0, 0.5, open_low=True, open_high=True)
        limit = -jax.scipy.special.logit(jnp.asarray(clip, half.dtype)) / 2
        half = jnp.clip(half, -limit, limit)
    return restore(temperature**2 * jnp.sum(_log_cosh(half), -1), logits, teacher_logits)


def align_gradients(gradient: PyTree, auxiliary: PyTree) -> PyTree:
    """Add an auxiliary gradient without what opposes the main one.

    `g + h - min(<h, g>, 0) / |g|^2 g` over all entries of both trees: where the two conflict, the
    auxiliary one is projected onto what is orthogonal to the main one.

    Args:
      gradient: `g`, of the main loss: a tree of floating-point arrays [...].
      auxiliary: `h`, of the auxiliary loss: a tree of the same shapes, zeros where it has none.

    Returns:
      The tree of gradients to step with [...], in the dtypes of `gradient`.

    Raises:
      ValueError: if the trees differ in structure or shape or are not floating point.

    Source: Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head,
    arXiv 2411.08937, gradient alignment; `OptimGradAlign` in `helper/optimizer.py` of
    penghui-yang/DHKD agrees.

    >>> g, h = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-5.0, 2.0])}
    >>> align_gradients(g, h)["w"].tolist()
    [1.0, 2.0]
    """
    main, tree = jax.tree.flatten(gradient)
    other, same = jax.tree.flatten(auxiliary)
    check(str(tree) == str(same), "auxiliary", f"got the tree {same}, takes {tree}, as gradient")
    for a, b in zip(main, other):
        check_floating(gradient=a, auxiliary=b)
        check_shape("auxiliary", b, jnp.shape(a), "as the leaf of gradient")
    pairs = [upcast(a, b) for a, b in zip(main, other)]
    # The common scale keeps the squares in range; it cancels.
    scale = jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0) for a, _ in pairs]))
    scale = jax.lax.stop_gradient(jnp.where(scale > 0, scale, 1))
    inner: Any = sum(jnp.sum(a / scale * b) for a, b in pairs)
    square: Any = sum(jnp.sum(jnp.square(a / scale)) for a, _ in pairs)
    share = safe_divide(jnp.minimum(inner, 0), square) / scale
    out = [restore(a + b - share * a, leaf) for (a, b), leaf in zip(pairs, main)]
    return jax.tree.unflatten(tree, out)
