"""Projected gradient descent on matrices of low rank."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..numerics import (
    check_count,
    check_floating,
    check_range,
    check_rank,
    restore,
    upcast,
)
from .after_step import after_step


def low_rank_projection(
    x: Float[Array, "... rows columns"], rank: int
) -> Float[Array, "... rows columns"]:
    """The nearest matrix of at most this rank, in the Frobenius norm: the truncated SVD.

        U_r S_r V_r'   of x = U S V'

    Args:
      x: [..., rows, columns].
      rank: r; one that is no smaller than a side changes nothing but rounding.

    Returns:
      [..., rows, columns].

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Supervised Dictionary Learning with Auxiliary Covariates, arXiv 2206.06774;
    ljw9510/SDL src/SDL_SVP.py, `rank_r_projection`.

    >>> low_rank_projection(jnp.diag(jnp.array([3.0, 2.0, 1.0])), 2).diagonal().tolist()
    [3.0, 2.0, 0.0]
    """
    check_floating(x=x)
    check_rank("x", x, 2, at_least=True)
    check_count(rank=rank)
    left, scale, right = jnp.linalg.svd(upcast(x), full_matrices=False)
    kept = left[..., :rank] * scale[..., None, :rank]
    return restore(kept @ right[..., :rank, :], x)


def low_rank_factors(
    x: Float[Array, "... rows columns"], rank: int
) -> tuple[Float[Array, "... rows rank"], Float[Array, "... rank columns"]]:
    """Two factors of equal weight, whose product is the nearest matrix of at most this rank.

        U_r S_r^(1/2) and S_r^(1/2) V_r'   of x = U S V'

    What a convex loss of the matrix found is given back as a loss of factors would have it:
    dictionary and codes, or the two sides of an adapter. Of all factors of that product these have
    the least sum of squares.

    Args:
      x: [..., rows, columns].
      rank: r; if a side is smaller, that side.

    Returns:
      The left factor [..., rows, rank] and the right one [..., rank, columns]. The signs of their
      columns and rows are those of the SVD.

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Supervised Dictionary Learning with Auxiliary Covariates, arXiv 2206.06774;
    ljw9510/SDL src/SDL_SVP.py, where the left factor is then divided by its norm and the right
    one multiplied.

    >>> left, right = low_rank_factors(jnp.diag(jnp.array([4.0, 1.0])), 1)
    >>> jnp.abs(left).tolist(), jnp.abs(right).tolist()
    ([[2.0], [0.0]], [[2.0, 0.0]])
    """
    check_floating(x=x)
    check_rank("x", x, 2, at_least=True)
    check_count(rank=rank)
    left, scale, right = jnp.linalg.svd(upcast(x), full_matrices=False)
    root = jnp.sqrt(scale[..., :rank])
    left, right = left[..., :rank] * root[..., None, :], root[..., None] * right[..., :rank, :]
    return restore(left, x), restore(right, x)


def project_low_rank(rank: int) -> optax.GradientTransformationExtraArgs:
    """After an optimizer's step, the nearest matrix of at most this rank; last in a chain."""
    check_count(rank=rank)

    def project(w: Array) -> Array:
        flat = w.reshape(-1, w.shape[-1])
        return low_rank_projection(flat, rank).reshape(w.shape)

    return after_step(project)


def lpgd(learning_rate: optax.ScalarOrSchedule, rank: int) -> optax.GradientTransformationExtraArgs:
    """Low-rank projected gradient descent.

        W <- P_r(W - tau grad f(W)),   P_r the truncated SVD

    If the loss is mu-strongly convex and L-smooth with L < 3 mu, and its minimum is of this rank,
    steps of tau = 2 / (mu + L) contract to it by 2 (L - mu) / (L + mu) or better from any start. A
    tensor of more than two axes is the matrix of its last axis by the others; one of fewer has
    plain gradient steps.

    Args:
      learning_rate: tau, a number or a schedule.
      rank: r.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params`.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Supervised Dictionary Learning with Auxiliary Covariates, arXiv 2206.06774, low-rank
    projected gradient descent; ljw9510/SDL src/SDL_SVP.py, `step_SVP`, whose trajectory is that
    here.

    >>> tx, w = lpgd(0.5, 1), jnp.diag(jnp.array([3.0, 1.0]))
    >>> (w + tx.update(jnp.zeros((2, 2)), tx.init(w), w)[0]).tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    return optax.with_extra_args_support(
        optax.chain(optax.scale_by_learning_rate(learning_rate), project_low_rank(rank))
    )
