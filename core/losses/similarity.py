"""How alike two embeddings are: a matrix of similarities or distances, every row against every row.

Distances come from inner products, so that a matrix product does the work. Squared distances that
are nothing but rounding are set to zero: the distance of equal vectors is exactly zero and has
derivative zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_norm,
    safe_normalize,
    safe_sqrt,
    upcast,
)

Matrix = Float[Array, "rows columns"]
Similarity = Callable[[Float[Array, "rows features"], Float[Array, "columns features"]], Matrix]


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    check_floating(x=x, y=y)
    check_rank("x", x, 2)
    check_shape("y", y, (None, jnp.shape(x)[-1]), "[columns, features], features as x")
    x, y = upcast(x, y)
    return x, y


def _dot(x: Float[Array, "rows features"], y: Float[Array, "columns features"]) -> Matrix:
    # Full precision: a temperature of 0.05 makes the rounding of bf16 products twenty times larger.
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def _squared(x: Float[Array, "rows features"], y: Float[Array, "columns features"]) -> Matrix:
    norms = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None]
    squared = norms - 2 * _dot(x, y)
    return jnp.where(squared <= 16 * jnp.finfo(x.dtype).eps * norms, 0, squared)


def arccosh_one_plus(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """`arccosh(1 + u)`, zero with derivative zero where `u` is zero or below."""
    none = u <= 0
    inside = jnp.where(none, 1, u)
    return jnp.where(none, 0, jnp.log1p(inside + jnp.sqrt(inside) * jnp.sqrt(inside + 2)))


def into_ball(
    x: Float[Array, "... features"], clip: float = 1e-5
) -> tuple[Float[Array, "... features"], Float[Array, "..."]]:
    """Points of the open unit ball, and `1 - |x|^2`.

    A point at or beyond the boundary is moved to `1 - clip` of the origin, where hyperbolic
    formulas and their derivatives are finite in float32.
    """
    norm = safe_norm(x, keepdims=True)
    x = jnp.where(norm > 1 - clip, safe_divide(x, norm) * (1 - clip), x)
    return x, 1 - jnp.sum(x * x, -1)


def pairwise_dot(x: Float[Array, "rows features"], y: Float[Array, "columns features"]) -> Matrix:
    """Inner products of all pairs of rows.

    `s_ij = <x_i, y_j>`.

    Args:
      x: embeddings [rows, features].
      y: embeddings [columns, features].

    Returns:
      Similarities [rows, columns].

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: textbook definition.

    >>> pairwise_dot(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[11.0, 2.0]]
    """
    a, b = _pair(x, y)
    return restore(_dot(a, b), x, y)


def pairwise_cosine(
    x: Float[Array, "rows features"], y: Float[Array, "columns features"]
) -> Matrix:
    """Cosines of all pairs of rows; a zero vector has cosine zero with everything.

    `s_ij = <x_i, y_j> / (|x_i| |y_j|)`.

    Args:
      x: embeddings [rows, features].
      y: embeddings [columns, features].

    Returns:
      Similarities [rows, columns] between minus one and one.

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: textbook definition.

    >>> pairwise_cosine(jnp.array([[0.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
    [[0.0, 1.0]]
    """
    a, b = _pair(x, y)
    return restore(_dot(safe_normalize(a), safe_normalize(b)), x, y)


def pairwise_squared_euclidean(
    x: Float[Array, "rows features"], y: Float[Array, "columns features"]
) -> Matrix:
    """Squared Euclidean distances of all pairs of rows.

    `d_ij = |x_i - y_j|^2`.

    Args:
      x: embeddings [rows, features].
      y: embeddings [columns, features].

    Returns:
      Squared distances [rows, columns].

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: textbook definition.

    >>> pairwise_squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[25.0]]
    """
    a, b = _pair(x, y)
    return restore(_squared(a, b), x, y)


def pairwise_euclidean(
    x: Float[Array, "rows features"],
    y: Float[Array, "columns features"],
    *,
    normalize: bool = False,
) -> Matrix:
    """Euclidean distances of all pairs of rows.

    `d_ij = |x_i - y_j|`.

    Args:
      x: embeddings [rows, features].
      y: embeddings [columns, features].
      normalize: whether to give every row the length one first.

    Returns:
      Distances [rows, columns].

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: textbook definition; `normalize=True` is the default distance of
    KevinMusgrave/pytorch-metric-learning.

    >>> pairwise_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    a, b = _pair(x, y)
    if normalize:
        a, b = safe_normalize(a), safe_normalize(b)
    return restore(safe_sqrt(_squared(a, b)), x, y)


def pairwise_snr(x: Float[Array, "rows features"], y: Float[Array, "columns features"]) -> Matrix:
    """Signal-to-noise-ratio distances of all pairs of rows: noise over the anchor's signal.

    `d_ij = var(y_j - x_i) / var(x_i)`, variances over the features of a row; not symmetric.

    Args:
      x: embeddings of the anchors [rows, features].
      y: embeddings [columns, features].

    Returns:
      Distances [rows, columns], zero for an anchor whose features are all equal.

    Raises:
      ValueError: if the shapes do not fit or an argument is not floating point.

    Source: Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, arXiv
    1904.02616, Eq. 4; `SNRDistance` of KevinMusgrave/pytorch-metric-learning agrees, but by default
    makes rows unit vectors first.

    >>> d = pairwise_snr(jnp.array([[0.0, 2.0]]), jnp.array([[0.0, 3.0], [4.0, 6.0]]))
    >>> d.tolist()
    [[0.25, 0.0]]
    """
    a, b = (z - jnp.mean(z, -1, keepdims=True) for z in _pair(x, y))
    return restore(safe_divide(_squared(a, b), jnp.sum(a * a, -1)[:, None]), x, y)


def pairwise_poincare(
    x: Float[Array, "rows features"],
    y: Float[Array, "columns features"],
    *,
    curvature: float = 1.0,
    clip: float = 1e-5,
) -> Matrix:
    """Distances of all pairs of rows in the Poincare ball.

    `d = arccosh(1 + 2 c |x - y|^2 / ((1 - c |x|^2) (1 - c |y|^2))) / sqrt(c)`.

    A vector at or beyond the boundary is moved to `(1 - clip) / sqrt(c)` of the origin first, where
    the distance and its derivatives are finite in float32.

    Args:
      x: points of the ball [rows, features].
      y: points of the ball [columns, features].
      curvature: minus the curvature, the `c` of the formula; the ball has radius `1 / sqrt(c)`.
      clip: how far inside the boundary, relative to the radius, a point is kept.

    Returns:
      Distances [rows, columns].

    Raises:
      ValueError: if the shapes do not fit, an argument is not floating point or a hyper-parameter
        is not positive.

    Source: Poincare Embeddings for Learning Hierarchical Representations, arXiv 1705.08039, Eq. 1,
    with a curvature.

    >>> d = pairwise_poincare(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 0.5]]))
    >>> print(f"{d[0, 0]:.4f}")
    1.0986
    """
    check_positive(curvature=curvature, clip=clip)
    a, b = _pair(x, y)
    root = jnp.sqrt(jnp.asarray(curvature, a.dtype))
    (a, a_gap), (b, b_gap) = into_ball(root * a, clip), into_ball(root * b, clip)
    ratio = 2 * _squared(a, b) / (a_gap[:, None] * b_gap[None])
    return restore(arccosh_one_plus(ratio) / root, x, y)


def pairwise_lorentz(
    x: Float[Array, "rows features"],
    y: Float[Array, "columns features"],
    *,
    curvature: float = 1.0,
) -> Matrix:
    """Distances of all pairs of rows on the hyperboloid, given by their space components.

    `d = arccosh(c (x_0 y_0 - <x, y>)) / sqrt(c)` with the time component
    `x_0 = sqrt(1 / c + |x|^2)`. The argument is formed as one plus
    `c (|x - y|^2 - (x_0 - y_0)^2) / 2`, which does not cancel for close points.

    Args:
      x: space components [rows, features].
      y: space components [columns, features].
      curvature: minus the curvature, the `c` of the formula.

    Returns:
      Distances [rows, columns].

    Raises:
      ValueError: if the shapes do not fit, an argument is not floating point or `curvature` is not
        positive.

    Source: Hyperbolic Image-Text Representations, arXiv 2304.09172, Eq. 4 and 5 (MERU's
    parametrisation by space components).

    >>> d = pairwise_lorentz(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, np.sinh(2.0)]]))
    >>> print(f"{d[0, 0]:.4f}")
    2.0000
    """
    check_positive(curvature=curvature)
    a, b = _pair(x, y)
    c = jnp.asarray(curvature, a.dtype)
    a_time, b_time = (jnp.sqrt(1 / c + jnp.sum(z * z, -1)) for z in (a, b))
    squared = _squared(a, b)
    gap = squared - jnp.square(a_time[:, None] - b_time[None])
    # Both terms are large and nearly equal for far points in one direction: rounding again.
    u = jnp.where(gap <= 16 * jnp.finfo(a.dtype).eps * squared, 0, c * gap / 2)
    return restore(arccosh_one_plus(u) / jnp.sqrt(c), x, y)


SIMILARITIES: dict[str, Similarity] = {"cosine": pairwise_cosine, "dot": pairwise_dot}
DISTANCES: dict[str, Similarity] = {
    "euclidean": pairwise_euclidean,
    "normalized_euclidean": lambda x, y: pairwise_euclidean(x, y, normalize=True),
    "squared_euclidean": pairwise_squared_euclidean,
    "snr": pairwise_snr,
    "poincare": pairwise_poincare,
    "lorentz": pairwise_lorentz,
}


def named(argument: str, choice: Any, table: dict[str, Similarity]) -> Similarity:
    """The function that `choice` names or is."""
    if callable(choice):
        return choice
    known = ", ".join(map(repr, table))
    check(choice in table, argument, f"got {choice!r}, takes {known} or a function of two arrays")
    return table[choice]
