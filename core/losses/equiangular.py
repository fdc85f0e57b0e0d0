"""Class vectors that are fixed before training: simplex frames and equiangular bases."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..numerics import (
    check,
    check_count,
    check_key,
    check_positive,
    check_range,
    restore,
    safe_normalize,
)
from .proxies import check_proxies, cosines
from .standard import label_smoothing_cross_entropy


def _check_sizes(classes: int, features: int) -> None:
    check_count(classes=classes, features=features)
    check(classes > 1, "classes", f"got {classes}, takes 2 or more")


def simplex_etf(
    key: Key[Array, ""], *, classes: int, features: int, dtype: Any = jnp.float32
) -> Float[Array, "classes features"]:
    """The corners of a regular simplex around zero, turned at random: a simplex equiangular frame.

    Unit rows with `<m_j, m_k> = -1 / (classes - 1)` for `j != k`, the smallest largest cosine that
    so many vectors can have. `sqrt(K / (K - 1)) (I - 1 1'/K) U'` with orthonormal columns `U`
    [features, classes]; the factor in front has rank `K - 1`, so that many features are enough.

    Args:
      key: a typed key [] for the rotation.
      classes: `K`, two or more.
      features: `K - 1` or more.
      dtype: floating-point dtype of the result.

    Returns:
      One unit vector a class [classes, features].

    Raises:
      ValueError: if there are too few classes or features.

    Source: Prevalence of Neural Collapse during the terminal phase of deep learning training, arXiv
    2008.08186, definition of the simplex ETF; fixed as a classifier in Inducing Neural Collapse in
    Imbalanced Learning, arXiv 2203.09081, Eq. 1.

    >>> frame = simplex_etf(jax.random.key(0), classes=3, features=2)
    >>> np.asarray(frame @ frame.T, float).round(3).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    check_key(key=key)
    _check_sizes(classes, features)
    check(features >= classes - 1, "features", f"got {features}, takes classes - 1 or more")
    # Columns of Helmert's matrix are an orthonormal basis of the vectors that sum to zero.
    corners = np.zeros((classes, classes - 1))
    for j in range(1, classes):
        corners[:j, j - 1], corners[j, j - 1] = 1, -j
    corners /= np.linalg.norm(corners, axis=0)
    turn, _ = jnp.linalg.qr(
        jax.random.normal(key, (features, classes - 1), jnp.promote_types(jnp.float32, dtype))
    )
    frame = jnp.matmul(
        jnp.asarray(corners, turn.dtype), turn.T, precision=jax.lax.Precision.HIGHEST
    )
    return (np.sqrt(classes / (classes - 1)) * frame).astype(dtype)


class EquiangularBasis(NamedTuple):
    """What `equiangular_basis_vectors` finds.

    Attributes:
      vectors: one unit vector a class [classes, features].
      max_cosine: the largest absolute cosine of two of them [].
      steps: descent steps taken [].
    """

    vectors: Float[Array, "classes features"]
    max_cosine: Float[Array, ""]
    steps: Int[Array, ""]


def equiangular_basis_vectors(
    key: Key[Array, ""],
    *,
    classes: int,
    features: int,
    threshold: float = 0.002,
    learning_rate: float = 1e-3,
    steps: int = 100_000,
    tolerance: float = 1e-4,
    dtype: Any = jnp.float32,
) -> EquiangularBasis:
    """Unit vectors that are almost orthogonal, more of them than dimensions where wished.

    From normal vectors, gradient descent on `sum_{j != k} relu(|<b_j, b_k>| - threshold)`, each row
    brought back to length one before every step, until the largest cosine is at most `threshold +
    tolerance`. No `K` vectors in `d < K` dimensions stay below the bound of Welch
    `sqrt((K - d) / (d (K - 1)))`; near it the descent does not end, so look at `max_cosine`.

    Args:
      key: a typed key [] for the start.
      classes: how many vectors, `K`.
      features: their dimensions, `d`.
      threshold: the largest absolute cosine that costs nothing.
      learning_rate: step size. Ten times the default makes rows fall together.
      steps: the most descent steps.
      tolerance: how far above the threshold is near enough.
      dtype: floating-point dtype of the descent.

    Returns:
      An `EquiangularBasis`: vectors [classes, features], their largest cosine and the steps taken.

    Raises:
      ValueError: if a hyper-parameter is out of range.

    Source: Equiangular Basis Vectors, arXiv 2303.11637, section 3; from one start it takes as many
    steps to the same vectors as `Generate_EBV/Generate_EBV.py` of
    aassxun/Equiangular-Basis-Vectors, which takes the matrix of cosines in slices.

    >>> basis = equiangular_basis_vectors(
    ...     jax.random.key(0), classes=20, features=10, threshold=0.35, learning_rate=1e-2
    ... )
    >>> bool(basis.max_cosine <= 0.3502)
    True
    """
    check_key(key=key)
    _check_sizes(classes, features)
    check_range("threshold", threshold, 0, 1, open_high=True)
    check_positive(learning_rate=learning_rate)
    check(isinstance(steps, int) and steps >= 0, "steps", f"got {steps}, takes 0 or more")
    check_range("tolerance", tolerance, 0)
    return _spread(key, classes, features, threshold, learning_rate, steps, tolerance, dtype)


@functools.partial(jax.jit, static_argnames=("classes", "features", "dtype"))
def _spread(
    key: Array,
    classes: int,
    features: int,
    threshold: Array,
    rate: Array,
    steps: int,
    near: Array,
    dtype: Any,
) -> EquiangularBasis:
    others = ~jnp.eye(classes, dtype=bool)

    def measured(b: Array, step: Array) -> tuple[Array, Array, EquiangularBasis]:
        b = safe_normalize(b)
        gram = jnp.matmul(b, b.T, precision=jax.lax.Precision.HIGHEST)
        size = jnp.where(others, jnp.abs(gram), 0)
        return gram, size, EquiangularBasis(b, jnp.max(size), step)

    def unfinished(state: tuple[Array, Array, EquiangularBasis]) -> Array:
        basis = state[2]
        return (basis.steps < steps) & (basis.max_cosine > threshold + near)

    def descend(
        state: tuple[Array, Array, EquiangularBasis],
    ) -> tuple[Array, Array, EquiangularBasis]:
        gram, size, basis = state
        # Every pair is counted twice, at its two places of the matrix.
        slope = 2 * jnp.where(size > threshold, jnp.sign(gram), 0)
        slope = jnp.matmul(slope, basis.vectors, precision=jax.lax.Precision.HIGHEST)
        return measured(basis.vectors - rate * slope, basis.steps + 1)

    start = jax.random.normal(key, (classes, features), dtype)
    return jax.lax.while_loop(unfinished, descend, measured(start, jnp.zeros((), jnp.int32)))[2]


def equiangular_basis_loss(
    embeddings: Float[Array, "batch features"],
    labels: Int[Array, "batch"],
    basis: Float[Array, "classes features"],
    *,
    temperature: float = 0.07,
    label_smoothing: float = 0.1,
) -> Float[Array, "batch"]:
    """Cross-entropy of the cosines with fixed class vectors.

    `CE(cos(x, b_k) / temperature, y)` with smoothed labels. The class vectors have no gradient; the
    class of an example is that of the nearest one, the largest cosine.

    Args:
      embeddings: the examples [batch, features]; their lengths do not matter.
      labels: the class of each [batch], from 0 on.
      basis: one vector a class [classes, features], of `equiangular_basis_vectors` or
        `simplex_etf`.
      temperature: what cosines are divided by.
      label_smoothing: the share of the target spread over all classes.

    Returns:
      One loss an example [batch].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Equiangular Basis Vectors, arXiv 2303.11637, section 3; value and gradient agree with
    `ImageNet_Validation_Experiment/EBV_ImageNet.py` of aassxun/Equiangular-Basis-Vectors, which has
    the temperature and the smoothing.

    >>> x, labels = jnp.eye(2), jnp.array([0, 1])
    >>> loss = equiangular_basis_loss(x, labels, jnp.eye(2), label_smoothing=0.0)
    >>> bool((loss < 1e-6).all())
    True
    """
    check_proxies(embeddings, labels, basis, "basis")
    check_positive(temperature=temperature)
    check_range("label_smoothing", label_smoothing, 0, 1)
    logits = cosines(embeddings, jax.lax.stop_gradient(basis)) / temperature
    loss = label_smoothing_cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return restore(loss, embeddings, basis)
