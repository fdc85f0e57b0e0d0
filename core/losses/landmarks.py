"""Losses of landmark regression."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_abs,
    upcast,
)


def _assist(
    distance: Float[Array, "..."],
    error: Float[Array, "..."],
    attraction: float,
    repulsion: float,
    band: float,
) -> Float[Array, "..."]:
    """Towards a teacher mirrored to the student's side from beyond it, away from it within."""
    beyond = (distance > error) & (error > 0)
    within = (distance >= band * error) & (distance <= error)
    gap = safe_abs(distance - error)
    return jnp.where(beyond, attraction * gap, jnp.where(within, repulsion * gap, 0))


def landmark_distillation_loss(
    points: Float[Array, "... coordinates"],
    targets: Float[Array, "... coordinates"],
    tough: Float[Array, "... coordinates"],
    tolerant: Float[Array, "... coordinates"],
    *,
    tough_weight: float = 1.0,
    tolerant_weight: float = 1.0,
    main_weight: float = 2.0,
    tough_pull: float = 1.9,
    tough_push: float = -0.45,
    tolerant_pull: float = 1.8,
    tolerant_push: float = -0.4,
    band: float = 0.15,
) -> Float[Array, "..."]:
    """KD-Loss: landmark regression helped by a teacher of exact and one of smoothed landmarks.

    With `d = |x - y|` and the error `e_T = |T - y|` of each teacher, for every coordinate
    `main * (3 d if d <= e_tol else d^2 + 3 e_tol - e_tol^2)`, and for either teacher, mirrored to
    the student's side of the target, `|d - e_T|` times the pull if `d > e_T > 0`, times the
    (negative) push if `band e_T <= d <= e_T`, times zero closer than that. So a student beyond a
    teacher is drawn to it, one between teacher and target is driven on to the target.

    Args:
      points: the student's coordinates [..., coordinates]; the paper normalizes them to about
        [-0.5, 0.5].
      targets: the true coordinates [..., coordinates].
      tough: what the teacher trained on the true landmarks says [..., coordinates].
      tolerant: what the teacher trained on smoothed landmarks says [..., coordinates].
      tough_weight: weight of the assistance of the tough teacher.
      tolerant_weight: weight of the assistance of the tolerant teacher.
      main_weight: weight of the main loss.
      tough_pull: how strongly the tough teacher attracts.
      tough_push: how strongly it repels, negative.
      tolerant_pull: how strongly the tolerant teacher attracts.
      tolerant_push: how strongly it repels, negative.
      band: the share of a teacher's error below which it is silent.

    Returns:
      One loss an example [...], the mean over its coordinates. No gradient reaches the teachers or
      the targets.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Facial Landmark Points Detection Using Knowledge Distillation-Based Neural Networks,
    arXiv 2111.07047, the KD-Loss; `kd_loss` in `custom_Losses.py` of aliprf/KD-Loss with the
    weights of its `student_train.py` and `main.py`, averaged over the batch.

    >>> x, y = jnp.array([[0.3, 0.0]]), jnp.array([[0.0, 0.0]])
    >>> loss = landmark_distillation_loss(x, y, y + 0.1, y + 0.2)
    >>> np.asarray(loss, float).round(3)
    array([0.93])
    """
    check_floating(points=points, targets=targets, tough=tough, tolerant=tolerant)
    check_rank("points", points, 1, at_least=True)
    shape = jnp.shape(points)
    check(shape[-1] > 0, "points", "got no coordinates, takes one or more on the last axis")
    for name, x in {"targets": targets, "tough": tough, "tolerant": tolerant}.items():
        check_shape(name, x, shape, "[..., coordinates], as points")
    check_positive(main_weight=main_weight)
    check_range("band", band, 0, 1)
    for name, push in {"tough_push": tough_push, "tolerant_push": tolerant_push}.items():
        check_range(name, push, None, 0)
    x, *fixed = upcast(points, targets, tough, tolerant)
    y, hard, soft = map(jax.lax.stop_gradient, fixed)
    distance, e_tough, e_tolerant = (safe_abs(a - y) for a in (x, hard, soft))
    main = jnp.where(
        distance <= e_tolerant,
        3 * distance,
        jnp.square(distance) + 3 * e_tolerant - jnp.square(e_tolerant),
    )
    total = (
        main_weight * main
        + tough_weight * _assist(distance, e_tough, tough_pull, tough_push, band)
        + tolerant_weight * _assist(distance, e_tolerant, tolerant_pull, tolerant_push, band)
    )
    return restore(jnp.mean(total, -1), points, targets, tough, tolerant)
