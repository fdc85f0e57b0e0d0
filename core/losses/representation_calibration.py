"""Wrong labels on long tails: the Gaussians of the classes' representations, recovered.

Outliers of a class are left out, rare classes borrow from the common ones near by, and from the
Gaussians as many further examples are drawn as a balanced classifier needs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_log,
    safe_sqrt,
    upcast,
)
from .similarity import pairwise_euclidean


def _check_rows(features: Any, labels: Any) -> None:
    check_floating(features=features)
    check_rank("features", features, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(features)[:1], "[examples], one a row of features")


def local_outlier_factor(
    features: Float[Array, "examples features"],
    labels: Int[Array, "examples"] | None = None,
    *,
    neighbours: int = 20,
) -> Float[Array, "examples"]:
    """How much sparser it is around an example than around its neighbours.

        reach(a, b) = max(|a - b|, k-distance(b)),   density(a) = 1 / mean_b reach(a, b)
        factor(a) = mean_b density(b) / density(a),   b the k nearest of a

    About one within a cluster and larger outside. With labels, neighbours are looked for in the
    example's own class, and an example whose label is wrong is an outlier of it. Shift, rotation
    and scale do not matter.

    Args:
      features: representations [examples, features].
      labels: classes [examples]; without them all examples are of one.
      neighbours: k; a class of fewer has all others as neighbours. Clumps of up to k wrong labels
        are found.

    Returns:
      One factor an example [examples], a constant to derivatives; one where there is no neighbour.

    Raises:
      ValueError: if a shape or dtype does not fit or `neighbours` is no count.

    Source: LOF: Identifying Density-Based Local Outliers, Breunig et al. 2000; for wrong labels in
    When Noisy Labels Meet Long Tail Dilemmas, arXiv 2211.10955, distributional calibration.

    >>> x = jnp.array([[0.0], [1.0], [2.0], [3.0], [9.0]])
    >>> np.asarray(local_outlier_factor(x, neighbours=2), float).round(1).tolist()
    [1.0, 1.0, 1.0, 1.0, 4.3]
    """
    check_floating(features=features)
    check_rank("features", features, 2)
    check_count(neighbours=neighbours)
    x = jax.lax.stop_gradient(upcast(features))
    rows = x.shape[0]
    check(rows > 0, "features", "got no rows, takes one or more")
    allowed = ~jnp.eye(rows, dtype=bool)
    if labels is not None:
        _check_rows(features, labels)
        labels = jnp.asarray(labels)
        allowed &= labels[:, None] == labels
    # The centre first: squares of far-off features would cancel in the distances. And to scale one,
    # which the factor does not see.
    x = x - jnp.mean(x, 0)
    x = safe_divide(x, jnp.max(jnp.abs(x)))
    k = min(neighbours, max(rows - 1, 1))
    near, index = jax.lax.top_k(jnp.where(allowed, -pairwise_euclidean(x, x), -jnp.inf), k)
    there = jnp.isfinite(near)
    distance = jnp.where(there, -near, 0)
    furthest = jnp.max(distance, 1)  # the k-distance
    count = jnp.sum(there, 1)
    reach = jnp.where(there, jnp.maximum(distance, furthest[index]), 0)
    # As in scikit-learn, so that duplicates have a density too.
    density = 1 / (safe_divide(jnp.sum(reach, 1), count.astype(x.dtype)) + 1e-10)
    around = safe_divide(jnp.sum(jnp.where(there, density[index], 0), 1), count.astype(x.dtype))
    return restore(jnp.where(count > 0, around / density, 1), features)


class ClassGaussians(NamedTuple):
    """A Gaussian for every class.

    Attributes:
      counts: examples [classes].
      means: [classes, features].
      covariances: [classes, features, features].
    """

    counts: Float[Array, "classes"]
    means: Float[Array, "classes features"]
    covariances: Float[Array, "classes features features"]


def class_gaussians(
    features: Float[Array, "examples features"],
    labels: Int[Array, "examples"],
    *,
    classes: int,
    where: Bool[Array, "examples"] | None = None,
) -> ClassGaussians:
    """The sample mean and covariance of each class, of the examples that are kept.

        mean_k = mean of z over S_k,   cov_k = sum (z - mean_k)(z - mean_k)' / (|S_k| - 1)

    Args:
      features: representations z [examples, features].
      labels: classes, from 0 on [examples].
      classes: number of classes.
      where: which examples are kept, such as `local_outlier_factor(...) < 1.5` [examples].

    Returns:
      The `ClassGaussians`, constants to derivatives; zero for a class without examples, and without
      spread for one of a single example.

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: When Noisy Labels Meet Long Tail Dilemmas, arXiv 2211.10955, distributional calibration.

    >>> g = class_gaussians(jnp.array([[0.0], [2.0], [5.0]]), jnp.array([0, 0, 1]), classes=2)
    >>> g.means[:, 0].tolist(), g.covariances[:, 0, 0].tolist()
    ([1.0, 5.0], [2.0, 0.0])
    """
    _check_rows(features, labels)
    check_count(classes=classes)
    x, labels = jax.lax.stop_gradient(upcast(features)), jnp.asarray(labels)
    member = labels[:, None] == jnp.arange(classes)
    if where is not None:
        check_boolean(where=where)
        check_shape("where", where, labels.shape, "[examples], as labels")
        member &= jnp.asarray(where)[:, None]
    member = member.astype(x.dtype)
    counts = jnp.sum(member, 0)
    means = safe_divide(member.T @ x, counts[:, None])

    def covariance(one: tuple[Array, Array, Array]) -> Array:
        column, mean, count = one
        gap = column[:, None] * (x - mean)
        return gap.T @ gap / jnp.maximum(count - 1, 1)

    return ClassGaussians(counts, means, jax.lax.map(covariance, (member.T, means, counts)))


def calibrate_gaussians(
    gaussians: ClassGaussians,
    head: Bool[Array, "classes"],
    *,
    neighbours: int = 3,
    strength: float = 0.5,
    dispersion: float = 0.0,
) -> ClassGaussians:
    """Gaussians of rare classes with statistics borrowed from the nearest common ones.

        w_j ~ n_j exp(-|mean_j - mean_k|) over the q head classes j nearest to the tail class k
        mean_k <- g sum_j w_j mean_j + (1 - g) mean_k
        cov_k <- g sum_j w_j cov_j + (1 - g) cov_k + a 1 1'

    What few examples, some with wrong labels, say of a class is uncertain; what similar classes say
    is less so.

    Args:
      gaussians: of all classes.
      head: the common classes, which stay as they are [classes].
      neighbours: q; fewer where there are fewer head classes.
      strength: g, between 0 and 1.
      dispersion: a, for spread that no class has shown.

    Returns:
      The calibrated `ClassGaussians`.

    Raises:
      ValueError: if a shape or dtype does not fit or a hyper-parameter is out of range.

    Source: When Noisy Labels Meet Long Tail Dilemmas, arXiv 2211.10955, distributional calibration;
    there is no code. The paper's structure (head classes by distance of means, a mixture of
    statistics, dispersion); the form of the weights is ours.

    >>> g = ClassGaussians(jnp.array([9.0, 2.0]), jnp.array([[0.0], [1.0]]), jnp.ones((2, 1, 1)))
    >>> calibrate_gaussians(g, jnp.array([True, False]), strength=0.25).means[:, 0].tolist()
    [0.0, 0.75]
    """
    check_floating(means=gaussians.means, covariances=gaussians.covariances)
    check_rank("gaussians", gaussians.means, 2)
    classes, width = jnp.shape(gaussians.means)
    shape = (classes, width, width)
    check_shape("gaussians", gaussians.covariances, shape, "covariances [classes, d, d], as means")
    check_boolean(head=head)
    check_shape("head", head, (classes,), "[classes], as gaussians")
    check_count(neighbours=neighbours)
    check_range("strength", strength, 0, 1)
    check_range("dispersion", dispersion, 0)
    counts, means, covariances = upcast(*gaussians)
    head = jnp.asarray(head)
    candidates = head & ~jnp.eye(classes, dtype=bool)
    distance = pairwise_euclidean(means, means)
    near, index = jax.lax.top_k(
        jnp.where(candidates, -distance, -jnp.inf), min(neighbours, classes)
    )
    there = jnp.isfinite(near)
    # A softmax of log n_j - distance, in which neighbours that are not there have no share.
    score = jnp.where(there, safe_log(counts)[index] + jnp.where(there, near, 0), -jnp.inf)
    top = jnp.max(score, 1, keepdims=True, initial=-1e30)
    raw = jnp.where(there, jnp.exp(jnp.where(there, score - top, 0)), 0)
    w = safe_divide(raw, jnp.sum(raw, 1, keepdims=True))
    g = jnp.where(~head & jnp.any(there, 1), jnp.asarray(strength, means.dtype), 0)[:, None]
    mean = g * jnp.einsum("kq,kqd->kd", w, means[index]) + (1 - g) * means
    g = g[:, None]
    spread = g * jnp.einsum("kq,kqde->kde", w, covariances[index]) + (1 - g) * covariances
    spread = spread + dispersion * (~head)[:, None, None]
    return ClassGaussians(counts, mean, spread)


def sample_gaussians(
    key: Array, gaussians: ClassGaussians, labels: Int[Array, "samples"]
) -> Float[Array, "samples features"]:
    """Representations drawn from the Gaussians of these classes.

    `z = mean_y + cov_y^(1/2) e`, `e ~ N(0, I)`. The covariance may be singular.

    Args:
      key: a random key [].
      gaussians: of all classes.
      labels: the class of each sample, from 0 on [samples].

    Returns:
      Samples [samples, features].

    Raises:
      ValueError: if a shape or dtype does not fit.

    Source: When Noisy Labels Meet Long Tail Dilemmas, arXiv 2211.10955, distributional calibration.

    >>> g = ClassGaussians(jnp.ones(1), jnp.full((1, 2), 3.0), jnp.zeros((1, 2, 2)))
    >>> sample_gaussians(jax.random.key(0), g, jnp.array([0])).tolist()
    [[3.0, 3.0]]
    """
    check_key(key=key)
    check_integer(labels=labels)
    check_rank("labels", labels, 1)
    check_rank("gaussians", gaussians.means, 2)
    means, covariances = upcast(gaussians.means, gaussians.covariances)
    shape = (*means.shape, means.shape[1])
    check_shape("gaussians", covariances, shape, "covariances [classes, d, d], as means")
    values, vectors = jnp.linalg.eigh(covariances)
    roots = vectors * safe_sqrt(values)[:, None, :]
    labels = jnp.asarray(labels)
    noise = jax.random.normal(key, (*labels.shape, means.shape[1]), jnp.float32)
    drawn = means[labels] + jnp.einsum("nde,ne->nd", roots[labels], noise.astype(means.dtype))
    return restore(drawn, gaussians.means)


def individual_calibration_regularizer(
    features: Float[Array, "... features"],
    anchors: Float[Array, "... features"],
    *,
    weight: float = 1.0,
) -> Float[Array, "..."]:
    """How far representations have moved from those of contrastive learning.

    `weight |z - z_0|^2`, added to the cross-entropy of mixed examples (mixup). The representations
    `z_0` were learnt without labels, so that wrong ones cannot have spoiled them.

    Args:
      features: representations z in training [..., features].
      anchors: z_0 of the same examples, without gradient [..., features].
      weight: of the distance.

    Returns:
      One value an example [...].

    Raises:
      ValueError: if a shape or dtype does not fit or `weight` is negative.

    Source: When Noisy Labels Meet Long Tail Dilemmas, arXiv 2211.10955, individual calibration;
    there is no code, and the weight is not known.

    >>> z = jnp.array([[1.0, 2.0]])
    >>> individual_calibration_regularizer(z, z - 1, weight=0.5).tolist()
    [1.0]
    """
    check_floating(features=features, anchors=anchors)
    check_rank("features", features, 1, at_least=True)
    check_shape("anchors", anchors, jnp.shape(features), "[..., features], as features")
    check_range("weight", weight, 0)
    z, z0 = upcast(features, anchors)
    apart = jnp.sum(jnp.square(z - jax.lax.stop_gradient(z0)), -1)
    return restore(weight * apart, features, anchors)
