"""Sub-gradient method for low-rank matrices from measurements of which many may be wrong."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..curvature.trees import is_floating
from ..numerics import (
    check,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)
from .online import tree_norm


def _mean_of_signs(residuals: Array, sensing: Array) -> Array:
    mean = jnp.einsum("m,mij->ij", jnp.sign(residuals), sensing) / sensing.shape[0]
    return (mean + mean.T) / 2


def _check_measurements(sensing: Any, targets: Any) -> None:
    check_floating(sensing=sensing, targets=targets)
    check_rank("sensing", sensing, 3)
    count, dim = sensing.shape[0], sensing.shape[-1]
    check_shape("sensing", sensing, (count, dim, dim), "[measurements, dim, dim]")
    check_shape("targets", targets, (count,), "[measurements]")


def recovery_subgradient(
    factor: Float[Array, "dim rank"],
    sensing: Float[Array, "measurements dim dim"],
    targets: Float[Array, " measurements"],
) -> Float[Array, "dim dim"]:
    """Sub-gradient of the mean absolute residual, by the matrix that is recovered.

        f(X) = 1/m sum_i |<A_i, X> - y_i|,   X = U U'
        Q = 1/m sum_i sign(<A_i, U U'> - y_i) (A_i + A_i') / 2

    That by the factor U is `2 Q U`. Residuals enter by their signs alone, so a wrong measurement
    counts no more than any other, however wrong it is.

    Args:
      factor: U [dim, rank].
      sensing: A [measurements, dim, dim].
      targets: y [measurements].

    Returns:
      Q [dim, dim], symmetric.

    Raises:
      ValueError: naming the argument of a wrong shape or dtype.

    Source: Global Convergence of Sub-gradient Method for Robust Matrix Recovery, arXiv 2202.08788,
    equation of the sub-differential and algorithm 1.

    >>> sensing = jnp.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])
    >>> recovery_subgradient(jnp.ones((2, 1)), sensing, jnp.array([0.0, 9.0])).tolist()
    [[0.5, -0.5], [-0.5, 0.0]]
    """
    _check_measurements(sensing, targets)
    check_floating(factor=factor)
    check_rank("factor", factor, 2)
    check_shape("factor", factor, (sensing.shape[-1], None), "[dim, rank]")
    u, a, y = upcast(factor, sensing, targets)
    residuals = jnp.einsum("mij,ij->m", a, u @ u.T) - y
    return restore(_mean_of_signs(residuals, a), factor, sensing, targets)


def subdifferential_init(
    sensing: Float[Array, "measurements dim dim"],
    targets: Float[Array, " measurements"],
    rank: int,
    *,
    alpha: Any = 1e-6,
) -> Float[Array, "dim rank"]:
    """A small start in the directions of the sub-gradient at zero.

        C = 1/m sum_i sign(y_i) (A_i + A_i') / 2 = E L E',   U_0 = alpha E_{1:rank} max(L, 0)^(1/2)

    with the eigenvalues in L from large to small. C is near a multiple of the matrix that was
    measured, whatever was added to few of its measurements.

    Args:
      sensing: A [measurements, dim, dim].
      targets: y [measurements].
      rank: columns of the factor, at most dim; it may exceed the rank of the matrix by far.
      alpha: how small the start is.

    Returns:
      U_0 [dim, rank].

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Global Convergence of Sub-gradient Method for Robust Matrix Recovery, arXiv 2202.08788,
    algorithm 1.

    >>> sensing = jnp.eye(2)[:, :, None] * jnp.eye(2)[:, None, :]
    >>> start = subdifferential_init(sensing, jnp.array([-1.0, 9.0]), 2, alpha=0.5)
    >>> np.abs(np.asarray(start, float)).round(3).tolist()  # sqrt(1 / 2) / 2
    [[0.0, 0.0], [0.354, 0.0]]
    """
    _check_measurements(sensing, targets)
    dim = sensing.shape[-1]
    check(1 <= rank <= dim, "rank", f"got {rank}, takes 1 to {dim}, the rows of a measurement")
    check_positive(alpha=alpha)
    a, y = upcast(sensing, targets)
    values, vectors = jnp.linalg.eigh(_mean_of_signs(y, a))
    # eigh sorts upwards.
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    return restore(alpha * vectors * jnp.sqrt(jnp.maximum(values, 0)), sensing, targets)


class SubgmState(NamedTuple):
    """State of `subgm`.

    Attributes:
      count: number of updates so far [].
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name


def subgm(eta0: Any = 0.3, rho: Any = 0.99) -> optax.GradientTransformationExtraArgs:
    """Sub-gradient method whose steps shrink geometrically, by the norm of another sub-gradient.

        U <- U - eta0 rho^t / |Q|_F D,   D = 2 Q U

    `D` is the sub-gradient by the parameters, and `Q` that by the matrix which they factorize. The
    norm of Q stays near a constant where D vanishes with U, so that from a small start the
    directions of Q grow at rates of their own: those of the true matrix first.

        updates, state = tx.update(2 * q @ u, state, u, subgradient=q)

    Args:
      eta0: the first step.
      rho: what each step multiplies it with, in (0, 1].

    Returns:
      A `GradientTransformationExtraArgs` whose updates need `subgradient=`, an array or a tree of
      them [...] whose norm over all entries divides the step; zero gives no step.

    Raises:
      ValueError: naming the argument that is out of range, or `subgradient` if it is missing.

    Source: Global Convergence of Sub-gradient Method for Robust Matrix Recovery, arXiv 2202.08788,
    algorithm 1 with the step of exponential decay.

    >>> tx, u, q = subgm(0.5, 0.5), jnp.array([[1.0]]), jnp.array([[4.0]])
    >>> updates, state = tx.update(2 * q @ u, tx.init(u), u, subgradient=q)
    >>> updates.tolist(), tx.update(2 * q @ u, state, u, subgradient=q)[0].tolist()
    ([[-1.0]], [[-0.5]])
    """
    check_positive(eta0=eta0)
    check_range("rho", rho, 0, 1, open_low=True)

    def init(params: Any) -> SubgmState:
        del params
        return SubgmState(jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: SubgmState,
        params: Any = None,
        *,
        subgradient: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, SubgmState]:
        del params, extra_args  # they are for other transformations
        takes = "takes the sub-gradient by the matrix that is factorized"
        check(subgradient is not None, "subgradient", f"got None, {takes}")
        norm = tree_norm(subgradient)
        rate = eta0 * jnp.power(jnp.asarray(rho, norm.dtype), state.count)

        def move(d: Any) -> Array:
            if not is_floating(d):
                return d
            return (-rate * safe_divide(upcast(d), norm)).astype(d.dtype)

        return jax.tree.map(move, updates), SubgmState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
