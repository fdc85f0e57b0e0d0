"""Neural collapse: features near to a point a class, points to a frame, classifiers to points."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    safe_divide,
    safe_norm,
    upcast,
)


def _check(features: Any, labels: Any, classes: int) -> None:
    check_floating(features=features)
    check_rank("features", features, 2)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(features)[:1], "[batch], one a row of features")
    check_count(classes=classes)


def within_class_variability(
    features: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    *,
    classes: int,
    kind: str = "trace",
) -> Float[Array, ""]:
    """NC1: the scatter of features around the mean of their class, against that of the means.

    With the covariances `S_W` within and `S_B` between classes, `tr(S_W) / tr(S_B)` or
    `tr(S_W pinv(S_B)) / classes`. Both are zero at collapse, and blind to shift, rotation and
    scale of the features.

    Args:
      features: one row an example [batch, dim].
      labels: the class of each [batch], from 0 on.
      classes: the number of classes; those without an example count for nothing.
      kind: "trace" or "pinv".

    Returns:
      The variability [] in float32, or float64 for that; zero where no two means differ.

    Raises:
      ValueError: if the shapes or dtypes do not fit, or for another kind.

    Source: Prevalence of Neural Collapse during the terminal phase of deep learning training, arXiv
    2008.08186 (pinv); Perturbation Analysis of Neural Collapse, arXiv 2210.16658 (trace). Classes
    weigh by their examples in both covariances.

    >>> features = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    >>> round(float(within_class_variability(features, jnp.array([0, 0, 1, 1]), classes=2)), 4)
    0.3077
    """
    _check(features, labels, classes)
    check(kind in ("trace", "pinv"), "kind", f"got {kind!r}, takes 'trace' or 'pinv'")
    x = upcast(features)
    member = (jnp.asarray(labels)[:, None] == jnp.arange(classes)).astype(x.dtype)
    counts = member.sum(0)
    x = x - jnp.mean(x, 0)
    means = safe_divide(member.T @ x, counts[:, None])
    inside = x - member @ means
    between = jnp.sqrt(counts)[:, None] * means
    if kind == "trace":
        return safe_divide(jnp.sum(inside**2), jnp.sum(between**2))
    # pinv(B'B) = pinv(B) pinv(B)', so that tr(W'W pinv(B'B)) is the square of |W pinv(B)|. The cut
    # is that of the largest singular value times rounding.
    cut = max(between.shape) * float(jnp.finfo(x.dtype).eps)
    return jnp.sum((inside @ jnp.linalg.pinv(between, rtol=cut)) ** 2) / classes


def frame_distance(
    vectors: Float[Array, "classes dim"], *, kind: str = "simplex"
) -> Float[Array, ""]:
    """NC2: how far class vectors are from a simplex or an orthogonal frame, up to scale.

    `|M M' / |M M'| - T / |T||` in Frobenius norms, with `T = I - 1 1' / K` for a simplex and
    `T = I` for an orthogonal frame. Zero for a frame of the kind, whatever its size and rotation.

    Args:
      vectors: `M`, one row a class [classes, dim]: class means, centred for a simplex, or the rows
        of a classifier.
      kind: "simplex" or "orthogonal".

    Returns:
      The distance [] in float32, or float64 for that; one where all vectors are zero.

    Raises:
      ValueError: if the shape or dtype does not fit, or for another kind.

    Source: Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data, arXiv
    2301.00437, section 5.

    >>> round(float(frame_distance(jnp.eye(3), kind="orthogonal")), 4)
    0.0
    """
    check_floating(vectors=vectors)
    check_rank("vectors", vectors, 2)
    check(jnp.shape(vectors)[0] > 1, "vectors", "got fewer than two rows, takes one a class")
    check(
        kind in ("simplex", "orthogonal"), "kind", f"got {kind!r}, takes 'simplex' or 'orthogonal'"
    )
    m = upcast(vectors)
    classes = m.shape[0]
    # The scale first: the fourth power of a large entry would leave the dtype.
    m = safe_divide(m, jnp.max(jnp.abs(m)))
    gram = m @ m.T
    target = jnp.eye(classes, dtype=m.dtype) - (1 / classes if kind == "simplex" else 0)
    unit = safe_divide(gram, safe_norm(gram, axis=None))
    return safe_norm(unit - target / jnp.linalg.norm(target), axis=None)


def self_duality_distance(
    classifier: Float[Array, "classes dim"], means: Float[Array, "classes dim"]
) -> Float[Array, ""]:
    """NC3: how far a classifier is from the class means that it tells apart, up to scale.

    `|W / |W| - M / |M||` in Frobenius norms: zero where every class vector is its class mean times
    one positive number, `sqrt(2)` where the two are orthogonal, two where they are opposite.

    Args:
      classifier: `W`, one row a class [classes, dim].
      means: `M`, the means of the features of each class, less the mean over classes where the
        classifier has a bias [classes, dim].

    Returns:
      The distance [] in float32, or float64 for that; one where one of the two is zero.

    Raises:
      ValueError: if the shapes or dtypes do not fit.

    Source: Prevalence of Neural Collapse during the terminal phase of deep learning training, arXiv
    2008.08186, convergence to self-duality; there it is squared.

    >>> means = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> round(float(self_duality_distance(3 * means, means)), 4)
    0.0
    """
    check_floating(classifier=classifier, means=means)
    check_rank("classifier", classifier, 2)
    check_shape("means", means, jnp.shape(classifier), "[classes, dim], as classifier")
    w, m = upcast(classifier, means)
    unit = (safe_divide(v, safe_norm(v, axis=None)) for v in (w, m))
    return safe_norm(jnp.subtract(*unit), axis=None)


def nearest_centre_agreement(
    features: Float[Array, "batch dim"],
    logits: Float[Array, "batch classes"],
    means: Float[Array, "classes dim"],
) -> Float[Array, ""]:
    """NC4: how often a classifier decides as the nearest class mean does.

    The share of examples with `argmax_k z_k = argmin_k |h - mu_k|`. It is one at collapse.

    Args:
      features: `h`, what the classifier is given [batch, dim].
      logits: `z`, what it makes of them [batch, classes].
      means: `mu`, the mean feature of each class, as `papyrax.losses.class_means` gives it, as a
        rule over the training examples [classes, dim]; not centred.

    Returns:
      The share [], from zero to one, in float32, or float64 for that.

    Raises:
      ValueError: if the shapes or dtypes do not fit.

    Source: Prevalence of Neural Collapse during the terminal phase of deep learning training, arXiv
    2008.08186, simplification to nearest class centre; there it is the share that differs.

    >>> features, means = jnp.array([[1.0], [4.0]]), jnp.array([[0.0], [5.0]])
    >>> float(nearest_centre_agreement(features, jnp.array([[2.0, 1.0], [2.0, 1.0]]), means))
    0.5
    """
    check_floating(features=features, logits=logits, means=means)
    check_rank("features", features, 2)
    check_shape("logits", logits, (jnp.shape(features)[0], None), "[batch, classes]")
    check(jnp.shape(logits)[1] > 0, "logits", "got no classes, takes one or more")
    takes = "[classes, dim], as logits and features"
    check_shape("means", means, (jnp.shape(logits)[1], jnp.shape(features)[1]), takes)
    h, mu = upcast(features, means)
    # |h - mu|^2 without its |h|^2, around the middle of the means and in their size: what cancels
    # and what could leave the dtype is gone before anything is squared.
    middle = jnp.mean(mu, 0)
    size = jnp.max(jnp.abs(mu - middle))
    h, mu = (safe_divide(v - middle, size) for v in (h, mu))
    nearest = jnp.argmax(h @ mu.T - jnp.sum(mu**2, -1) / 2, -1)
    return jnp.mean((jnp.argmax(logits, -1) == nearest).astype(h.dtype))
