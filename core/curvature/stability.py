"""At which minima gradient descent and SGD can stay: linear stability, and SGD's noise there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import (
    check_count,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    safe_divide,
    upcast,
)
from .spectra import matmul, tridiagonalize


class SgdStability(NamedTuple):
    """Measures of sharpness, each to be compared with 2 over the learning rate.

    Attributes:
      largest: the largest eigenvalue of H []; gradient descent is stable iff it is at most 2 / eta.
      critical: of SGD []; SGD is stable in mean square iff it is at most 2 / eta.
      trace: tr H / batch_size [], a lower bound of `critical`.
      frobenius: the Frobenius norm of H [].
    """

    largest: Float[Array, ""]
    critical: Float[Array, ""]
    trace: Float[Array, ""]
    frobenius: Float[Array, ""]


def _reduced(gradients: Any) -> tuple[Float[Array, "examples rank"], Float[Array, "rank"], Array]:
    """Gradients over their largest entry, in the eigenbasis of H; its eigenvalues; the entry.

    The basis spans the gradients alone, so that what follows costs min(examples, dim)^2 however
    many parameters there are.
    """
    check_floating(gradients=gradients)
    check_rank("gradients", gradients, 2)
    wide = upcast(gradients)
    largest = jnp.max(jnp.abs(wide), initial=0)
    left, scale, _ = jnp.linalg.svd(safe_divide(wide, largest), full_matrices=False)
    # What is left of directions that the gradients do not span is rounding.
    rounding = max(wide.shape) * jnp.finfo(wide.dtype).eps * jnp.max(scale, initial=0)
    scale = jnp.where(scale > rounding, scale, 0)
    return left * scale, jnp.square(scale) / wide.shape[0], largest


def _noise(
    rows: Float[Array, "examples rank"], values: Float[Array, "rank"], batch_size: int
) -> Callable[[Array], Array]:
    """X -> E[A X A], A the mean of a a' over a batch drawn with replacement."""

    def apply(x: Float[Array, "rank rank"]) -> Float[Array, "rank rank"]:
        forms = jnp.sum(matmul(rows, x) * rows, axis=1)
        single = matmul(rows.T * forms, rows) / len(rows)
        return single / batch_size + (1 - 1 / batch_size) * values[:, None] * x * values

    return apply


def _top(apply: Callable[[Array], Array], values: Array, order: int) -> Float[Array, ""]:
    """The largest eigenvalue of a symmetric map that keeps matrices positive semi-definite.

    Its eigenvector is positive semi-definite, so the identity of the span, where Lanczos starts,
    has a part of it and nothing need be drawn.
    """
    rank = len(values)

    def flat(x: Array) -> Array:
        return apply(x.reshape(rank, rank)).reshape(-1)

    start = jnp.diag((values > 0).astype(values.dtype)).reshape(-1)
    tridiagonal, _ = tridiagonalize(flat, start, min(order, rank * rank))
    return jnp.linalg.eigvalsh(tridiagonal)[-1]


def sgd_stability(gradients: Any, *, batch_size: int = 1, order: int = 32) -> SgdStability:
    """How sharp a minimum is to gradient descent and to SGD.

        H = 1/n sum_i a_i a_i',   D(X) = E[A X A],   A = 1/B sum_{i in batch} a_i a_i'
        SGD stable iff eta <X, D(X)> <= <X, H X + X H> for every symmetric X
        critical = max_X 2 <X, D(X)> / <X, H X + X H> >= tr H / B,   GD: critical = lambda_max(H)

    Near a minimum where a model fits every example, the loss (f_i - y_i)^2 / 2 has the Hessian H of
    the gradients a_i of the outputs, and SGD multiplies the distance by I - eta A. Its second
    moment stays bounded iff `critical` <= 2 / eta. So tr H <= 2 / eta at every minimum where SGD
    with one example a step stays, while gradient descent asks for the largest eigenvalue alone.

    Args:
      gradients: a_i, of the model's output for each example [examples, dim].
      batch_size: B, drawn with replacement.
      order: steps of Lanczos' process; its error falls as those of eigenvalues do.

    Returns:
      Four scalars [], an `SgdStability`.

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape.

    Source: The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent,
    arXiv 2305.17490 (trace and Frobenius norm); Exact Mean Square Linear Stability Analysis for
    SGD, arXiv 2306.07850 (the exact threshold, here by a matrix-free process).

    >>> s = sgd_stability(jnp.array([[3.0, 0.0], [0.0, 1.0]]))  # H = diag(4.5, 0.5)
    >>> [round(float(x), 3) for x in s]
    [4.5, 9.0, 5.0, 4.528]
    """
    check_count(batch_size=batch_size, order=order)
    rows, values, unit = _reduced(gradients)
    # In the eigenbasis X -> (H X + X H) / 2 is a product of entries, and so is its root.
    root = jnp.sqrt((values[:, None] + values) / 2)
    noise = _noise(rows, values, batch_size)

    def apply(x: Array) -> Array:
        return safe_divide(noise(safe_divide(x, root)), root)

    square = jnp.square(unit)
    return SgdStability(
        jnp.max(values, initial=0) * square,
        _top(apply, values, order) * square,
        jnp.sum(values) / batch_size * square,
        jnp.linalg.norm(values) * square,
    )


def sgd_moment_growth(
    gradients: Any, learning_rate: Any, *, batch_size: int = 1, order: int = 32
) -> Float[Array, ""]:
    """By how much a step of SGD near a minimum multiplies the second moment of the distance.

        X -> X - eta (H X + X H) + eta^2 D(X),   D(X) = E[A X A] as in `sgd_stability`

    The spectral radius of this map on the span of the gradients, outside of which nothing moves:
    below 1 the distance falls by it at every step in the long run, above 1 it grows.

    Args:
      gradients: a_i, of the model's output for each example [examples, dim].
      learning_rate: eta.
      batch_size: B, drawn with replacement.
      order: steps of Lanczos' process.

    Returns:
      A scalar [].

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape.

    Source: The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent,
    arXiv 2305.17490, linear stability.

    >>> round(float(sgd_moment_growth(jnp.array([[2.0]]), 0.4)), 3)  # (1 - 0.4 * 4)^2
    0.36
    """
    check_count(batch_size=batch_size, order=order)
    check_positive(learning_rate=learning_rate)
    rows, values, unit = _reduced(gradients)
    rate = learning_rate * jnp.square(unit)
    noise = _noise(rows, values, batch_size)

    def apply(x: Array) -> Array:
        return x - rate * (values[:, None] + values) * x + rate**2 * noise(x)

    return _top(apply, values, order)


class NoiseAlignment(NamedTuple):
    """How the noise of SGD's gradients lies to the Hessian.

    Attributes:
      factor: mu [], the noise along H over what isotropic errors would make it.
      cosine: of the noise's covariance and H as matrices [].
    """

    factor: Float[Array, ""]
    cosine: Float[Array, ""]


def noise_alignment(gradients: Any, residuals: Any) -> NoiseAlignment:
    """How far SGD's noise prefers the directions in which the loss is curved.

        S = 1/n sum_i e_i^2 a_i a_i',   L = 1/2n sum_i e_i^2
        mu = <S, H> / (2 L |H|_F^2),   cosine = <S, H> / (|S|_F |H|_F)

    For the loss e_i^2 / 2, e_i = f_i - y_i. Where mu stays above a constant, the loss stays bounded
    under SGD only if |H|_F <= sqrt(B / mu) / eta.

    Args:
      gradients: a_i, of the model's output for each example [examples, dim].
      residuals: e_i [examples].

    Returns:
      Two scalars [], a `NoiseAlignment`; zero where there are no residuals or gradients.

    Raises:
      ValueError: naming the argument of the wrong dtype or shape.

    Source: The Alignment Property of SGD Noise and How It Helps Select Flat Minima, arXiv
    2207.02628, its alignment factor, on which arXiv 2305.17490 builds; the mean gradient's
    square, which vanishes faster at a minimum, is not taken off S.

    >>> alignment = noise_alignment(jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 1.0]))
    >>> [round(float(x), 3) for x in alignment]  # errors of one size: S = 2 L H
    [1.0, 1.0]
    """
    check_floating(gradients=gradients, residuals=residuals)
    check_rank("gradients", gradients, 2)
    check_shape("residuals", residuals, (jnp.shape(gradients)[0],), "[examples], as gradients")
    a, e = upcast(gradients, residuals)
    a = safe_divide(a, jnp.max(jnp.abs(a), initial=0))
    e = jnp.square(safe_divide(e, jnp.max(jnp.abs(e), initial=0)))
    e = safe_divide(e, jnp.mean(e))
    gram = jnp.square(matmul(a, a.T))  # <a_i a_i', a_j a_j'>
    both, hessian, noise = (
        jnp.mean(e[:, None] * gram),
        jnp.mean(gram),
        jnp.mean(e[:, None] * gram * e),
    )
    cosine = safe_divide(both, jnp.sqrt(hessian) * jnp.sqrt(noise))
    return NoiseAlignment(safe_divide(both, hessian), cosine)
