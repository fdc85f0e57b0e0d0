"""Neural collapse: how near features are to a point a class, and the points to a regular frame."""

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
