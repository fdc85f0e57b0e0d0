"""Self-supervision without negative pairs: VICReg, Barlow Twins, SimSiam, SwAV."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    accumulation_dtype,
    check,
    check_boolean,
    check_count,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_normalize,
    upcast,
)
from ._shared import everyone
from .pair_sums import check_views

Views = Float[Array, "batch features"]


def vicreg_loss(
    view1: Views,
    view2: Views,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float | Float[Array, ""] = 1.0,
    epsilon: float = 1e-4,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """VICReg: views alike, every feature spread out, no two features correlated.

    `w_i |z - z'|^2 / d + w_v (v(Z) + v(Z')) / 2 + w_c (c(Z) + c(Z'))` with
    `v = mean_k [1 - sqrt(Var(z_k) + epsilon)]_+` and `c = sum_{k != l} Cov(z_k, z_l)^2 / d`. The
    terms of the batch are the same for each of its examples; the mean is the paper's loss with
    its variance term averaged over the views, as in the authors' code.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      invariance_weight: `w_i` (lambda in the paper).
      variance_weight: `w_v` (mu in the paper).
      covariance_weight: `w_c` (nu in the paper).
      epsilon: added to the variance.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch]. In a batch of one variance and covariance are zero.

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: VICReg, arXiv 2105.04906, Eq. 1 to 6; `VICRegLoss` of lightly-ai/lightly agrees in
    values and gradients (facebookresearch/vicreg halves the variance term of the paper, as here).

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> print(f"{vicreg_loss(x, x)[0]:.3f}")
    12.375
    """
    check_views(view1=view1, view2=view2)
    check_range("invariance_weight", invariance_weight, 0)
    check_range("variance_weight", variance_weight, 0)
    check_range("covariance_weight", covariance_weight, 0)
    check_positive(epsilon=epsilon)
    x, y = upcast(view1, view2)
    features = x.shape[1]
    invariance = jnp.mean(jnp.square(x - y), -1)
    variance, covariance = jnp.zeros((), x.dtype), jnp.zeros((), x.dtype)
    for z in everyone((x, y), axis_name):
        z = z - jnp.mean(z, 0)
        cov = jnp.matmul(z.T, z, precision=jax.lax.Precision.HIGHEST) / max(len(z) - 1, 1)
        deviation = jnp.sqrt(jnp.sum(z * z, 0) / max(len(z) - 1, 1) + epsilon)
        variance += jnp.mean(jax.nn.relu(1 - deviation)) / 2
        off = jnp.where(jnp.eye(features, dtype=bool), 0, cov)
        covariance += jnp.sum(jnp.square(off)) / features
    batch = variance_weight * variance + covariance_weight * covariance
    return restore(invariance_weight * invariance + batch, view1, view2)


def barlow_twins_loss(
    view1: Views,
    view2: Views,
    *,
    redundancy_weight: float = 5e-3,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Barlow Twins: the correlation of the views' features made the identity.

    `sum_k (1 - C_kk)^2 + w sum_{k != l} C_kl^2` with the correlation `C` over the batch of the
    features of one view with those of the other. It is a property of the batch and the same for
    each of its examples.

    Args:
      view1: embeddings of one view of each example [batch, features].
      view2: embeddings of the other view [batch, features].
      redundancy_weight: `w` (lambda in the paper).
      epsilon: added to the variance before its root.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      The loss of the batch for each example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Barlow Twins, arXiv 2103.03230, Eq. 1 and 2; the authors' facebookresearch/barlowtwins
    and lightly-ai/lightly standardize with this epsilon too, on several devices by each device's
    statistics (here by those of all).

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> print(f"{barlow_twins_loss(x, -x)[0]:.3f}")
    8.000
    """
    check_views(view1=view1, view2=view2)
    check_range("redundancy_weight", redundancy_weight, 0)
    check_positive(epsilon=epsilon)

    def standard(z: Array) -> Array:
        z = z - jnp.mean(z, 0)
        return z / jnp.sqrt(jnp.mean(z * z, 0) + epsilon)

    x, y = map(standard, everyone(upcast(view1, view2), axis_name))
    c = jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST) / len(x)
    same = jnp.eye(c.shape[0], dtype=bool)
    loss = jnp.sum(jnp.where(same, jnp.square(1 - c), redundancy_weight * jnp.square(c)))
    return restore(jnp.broadcast_to(loss, (len(view1),)), view1, view2)


def negative_cosine_loss(
    predictions: Float[Array, "... features"], targets: Float[Array, "... features"]
) -> Float[Array, "..."]:
    """The loss of SimSiam, and up to a constant and a factor of BYOL: minus the cosine.

    `-cos(p, stop_gradient(z))`; BYOL's squared distance of unit vectors is `2 + 2` times it. The
    symmetric loss is the mean of both ways round.

    Args:
      predictions: the predictor's output for one view [..., features].
      targets: the projection of the other view, a constant for the gradient [..., features].

    Returns:
      One loss an example [...].

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: Exploring Simple Siamese Representation Learning, arXiv 2011.10566, Eq. 1 and Algorithm
    1; Bootstrap Your Own Latent, arXiv 2006.07733, Eq. 2.

    >>> loss = negative_cosine_loss(jnp.array([[2.0, 0.0]]), jnp.array([[0.6, 0.8]]))
    >>> np.asarray(loss, float).round(3)
    array([-0.6])
    """
    check_floating(predictions=predictions, targets=targets)
    check_rank("predictions", predictions, 1, at_least=True)
    check_shape("targets", targets, jnp.shape(predictions), "[..., features], as predictions")
    p, z = map(safe_normalize, upcast(predictions, jax.lax.stop_gradient(targets)))
    return restore(-jnp.sum(p * z, -1), predictions, targets)


def sinkhorn_assignment(
    scores: Float[Array, "batch prototypes"],
    where: Bool[Array, "batch"] | None = None,
    *,
    temperature: float = 0.05,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Float[Array, "batch prototypes"]:
    """Soft assignment of a batch to prototypes, in which every prototype gets an equal share.

    `exp(scores / t)`, its columns and its rows normalized in turn; rows last.

    Args:
      scores: similarity to each prototype [batch, prototypes].
      where: which rows are there [batch]; all for None.
      temperature: `t` (epsilon in the paper).
      iterations: how often both are normalized.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      Distributions over the prototypes [batch, prototypes], zero for rows that are not there.

    Raises:
      ValueError: if `scores`, `where` or a hyper-parameter does not fit.

    Source: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
    2006.09882, Section 3.1 and its pseudo-code; in logarithms here, which cannot overflow;
    `sinkhorn` of lightly-ai/lightly agrees where it does not.

    >>> q = sinkhorn_assignment(jnp.array([[1.0, 0.9], [1.0, 0.5]]), iterations=50)
    >>> np.asarray(q, float).round(2)
    array([[0.02, 0.98],
           [0.98, 0.02]])
    """
    check_floating(scores=scores)
    check_rank("scores", scores, 2)
    check(min(jnp.shape(scores)) > 0, "scores", f"got shape {jnp.shape(scores)}, takes no zeros")
    check_positive(temperature=temperature)
    check_count(iterations=iterations)
    log_q = upcast(scores) / temperature
    there = jnp.ones((len(log_q), 1), bool)
    if where is not None:
        check_shape("where", where, jnp.shape(scores)[:1], "[batch], one a row")
        there = jnp.asarray(where)[:, None]
        check_boolean(where=there)

    def share_of_columns(log_q: Array) -> Array:
        lowest = jnp.finfo(log_q.dtype).min
        top = jax.lax.stop_gradient(jnp.max(jnp.where(there, log_q, lowest), 0))
        if axis_name is not None:
            top = jax.lax.pmax(top, axis_name)
        top = jnp.where(top > lowest, top, 0)  # no row at all
        total = jnp.sum(jnp.where(there, jnp.exp(jnp.where(there, log_q - top, 0)), 0), 0)
        if axis_name is not None:
            total = jax.lax.psum(total, axis_name)
        return log_q - top - jnp.log(jnp.where(total > 0, total, 1))

    def step(_: Any, log_q: Array) -> Array:
        return jax.nn.log_softmax(share_of_columns(log_q), -1)

    log_q = jax.lax.fori_loop(0, iterations, step, log_q)
    return restore(jnp.where(there, jnp.exp(log_q), 0), scores)


def swav_loss(
    scores1: Float[Array, "batch prototypes"],
    scores2: Float[Array, "batch prototypes"],
    crops: Float[Array, "crops batch prototypes"] | None = None,
    queues: Float[Array, "2 queued prototypes"] | None = None,
    *,
    temperature: float = 0.1,
    assignment_temperature: float = 0.05,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """SwAV: predict the assignment of one view from the other.

    `-(sum_k q2_k log softmax_k(s1 / t) + sum_k q1_k log softmax_k(s2 / t)) / 2` with the
    assignments `q` of `sinkhorn_assignment`, constants for the gradient. With small crops, each of
    the two assignments is predicted from the other view and from every crop, by their mean.

    Args:
      scores1: cosines of one view with the prototypes [batch, prototypes].
      scores2: cosines of the other view [batch, prototypes].
      crops: cosines of small crops of each example [crops, batch, prototypes]; none by default.
      queues: cosines of earlier examples' first and second views with today's prototypes, which
        share the prototypes out together with the batch where it is small [2, queued, prototypes].
      temperature: `t` of the prediction.
      assignment_temperature: that of the assignment (epsilon in the paper).
      iterations: of Sinkhorn's algorithm.
      axis_name: the mesh axis whose devices share the batch.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
    2006.09882, Eq. 1 and 2, and 6 for small crops, halved as `SwaVLoss` of lightly-ai/lightly does,
    which agrees in values and gradients.

    >>> s = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> np.asarray(swav_loss(s, s), float).round(3)
    array([0., 0.])
    """
    check_views(scores1=scores1, scores2=scores2)
    check_positive(temperature=temperature, assignment_temperature=assignment_temperature)
    batch, prototypes = jnp.shape(scores1)
    given = [scores1, scores2]
    if crops is not None:
        check_floating(crops=crops)
        check_shape("crops", crops, (None, batch, prototypes), "[crops, batch, prototypes]")
        given.append(crops)
    if queues is not None:
        check_floating(queues=queues)
        check_shape("queues", queues, (2, None, prototypes), "[2, queued, prototypes]")
    dtype = accumulation_dtype(*given)
    first, second = (jnp.asarray(s, dtype) for s in given[:2])

    def target(number: int, s: Array) -> Array:
        if queues is not None:
            s = jnp.concatenate([s, jnp.asarray(queues[number], dtype)])
        return sinkhorn_assignment(
            jax.lax.stop_gradient(s),
            temperature=assignment_temperature,
            iterations=iterations,
            axis_name=axis_name,
        )[:batch]

    def predict(s: Array) -> Array:
        return jax.nn.log_softmax(s / temperature, -1)

    one, other = target(0, first), target(1, second)
    loss, views = other * predict(first) + one * predict(second), 1
    if crops is not None:
        loss = loss + (one + other) * jnp.sum(predict(jnp.asarray(crops, dtype)), 0)
        views += len(crops)
    return restore(-jnp.sum(loss, -1) / (2 * views), *given)
