"""Gradient descent on manifolds: subspaces that stay orthonormal while they learn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check, check_range

Mask = Any | Callable[[Any], Any] | None
Basis = Float[Array, "... features rank"]


class GrassmannState(NamedTuple):
    """State of `grassmann_sgd`.

    Attributes:
      count: number of updates so far [].
      momentum: one array a parameter, in its shape; tangents at the last bases for subspaces.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name
    momentum: Any


def _orthonormalize(basis: Basis) -> Basis:
    """Q of the QR decomposition, with the signs that make the diagonal of R positive.

    LAPACK's own signs may flip a column of a basis that hardly moved, but not its momentum.
    """
    q, r = jnp.linalg.qr(basis)
    signs = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1)
    return q * signs[..., None, :]


def _tangent(basis: Basis, direction: Basis) -> Basis:
    return direction - basis @ (jnp.swapaxes(basis, -1, -2) @ direction)


def _geodesic(basis: Basis, tangent: Basis) -> Basis:
    """`(S V cos s + U sin s) V'` with the tangent `U s V'`, by the eigenvalues of its Gram matrix.

    Equal to `S cos(sqrt M) + D sinc(sqrt M)` with `M = D' D`: two smooth functions of a small
    matrix, where the singular vectors `U` of a vanishing tangent would be arbitrary.
    """
    squares, v = jnp.linalg.eigh(jnp.swapaxes(tangent, -1, -2) @ tangent)
    angles = jnp.sqrt(jnp.maximum(squares, 0))[..., None, :]
    sinc = jnp.sinc(angles / jnp.pi)
    turned = (basis @ v) * jnp.cos(angles) + (tangent @ v) * sinc
    return turned @ jnp.swapaxes(v, -1, -2)


def _tall(params: Any) -> Any:
    return jax.tree.map(
        lambda p: is_floating(p) and jnp.ndim(p) > 1 and p.shape[-1] <= p.shape[-2], params
    )


def grassmann_sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    *,
    retraction: str = "geodesic",
    transport: bool = True,
    subspaces: Mask = None,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Riemannian SGD with momentum for subspaces, and plain SGD for the other parameters.

    For a basis `S` [features, rank] with `S' S = I` and gradient `G`

        M <- (I - S S') (momentum M + G)
        S <- QR((S V cos(e s) - U sin(e s)) V'),    U s V' = M,  e = learning_rate

    a step along the geodesic of the Grassmann manifold; the QR decomposition removes rounding. A
    loss of subspaces does not tell their bases apart, so what turns a basis in itself is projected
    out of the gradient. The other parameters follow `M <- momentum M + G + weight_decay W` and
    `W <- W - e M`. Start from orthonormal bases, as those of `papyrax.layers.GrassmannHead` are.

    Args:
      learning_rate: a number or a schedule.
      momentum: how much of the last direction stays.
      retraction: "geodesic", or "qr" for `S <- QR(S - e M)`, which agrees with it to second order.
      transport: carry the momentum to the tangent space of the new basis by projection (the
        paper); False sums Euclidean gradients and projects their sum (the authors' code).
      subspaces: which parameters [..., features, rank] are bases of subspaces: a tree of booleans
        or a function from parameters to one. By default those with two or more axes and no more
        columns than rows; name them where a network has other matrices.
      weight_decay: of the other parameters; lengths of bases do not change.

    Returns:
      The optimizer; its updates need `params`.

    Raises:
      ValueError: if a hyper-parameter is out of range, a parameter that is named a subspace has
        more columns than rows, or on an update without `params`.

    Source: Get the Best of Both Worlds: Improving Accuracy and Transferability by Grassmann Class
    Representation, arXiv 2308.01547, Algorithm 1; `gcr/rsgd.py` of innerlee/GCR, whose steps are
    those of `transport=False`, but that it re-orthonormalizes at every fifth with the signs of
    LAPACK, so that a column may flip and its momentum not.

    >>> tx, basis = grassmann_sgd(jnp.pi / 2, momentum=0.0), jnp.array([[1.0], [0.0]])
    >>> updates, _ = tx.update(jnp.array([[5.0], [-1.0]]), tx.init(basis), basis)
    >>> np.asarray(basis + updates, float).round(3).tolist()
    [[0.0], [1.0]]
    """
    if not callable(learning_rate):
        check_range("learning_rate", learning_rate, 0)
    check_range("momentum", momentum, 0, 1, open_high=True)
    check_range("weight_decay", weight_decay, 0)
    known = ("geodesic", "qr")
    check(retraction in known, "retraction", f"got {retraction!r}, takes one of {known}")

    def flags(params: Any) -> Any:
        chosen = _tall if subspaces is None else subspaces
        return chosen(params) if callable(chosen) else chosen

    def init(params: Any) -> GrassmannState:
        jax.tree.map(check_basis, params, flags(params))
        return GrassmannState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def check_basis(param: Any, is_basis: bool) -> None:
        shape = jnp.shape(param)
        fits = not is_basis or (len(shape) > 1 and shape[-1] <= shape[-2])
        takes = "takes [..., features, rank] with rank no more than features"
        check(fits, "subspaces", f"got one of shape {shape}, {takes}")

    def update(
        updates: Any, state: GrassmannState, params: Any = None, **extra: Any
    ) -> tuple[Any, GrassmannState]:
        del extra
        check(params is not None, "params", "got None, takes the bases to move")
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def one(grad: Any, old: Any, param: Any, is_basis: bool) -> tuple[Array, Array]:
            if not is_floating(param):
                return grad, old
            g, m, p = (jnp.asarray(a, accumulation_dtype(param, grad)) for a in (grad, old, param))
            if not is_basis:
                m = momentum * m + g + weight_decay * p
                step = -rate * m
            else:
                m = momentum * m + g
                tangent = _tangent(p, m)
                move = _geodesic if retraction == "geodesic" else jnp.add
                step = _orthonormalize(move(p, -rate * tangent)) - p
                m = tangent if transport else m
            return step.astype(jnp.result_type(grad)), m.astype(old.dtype)

        tree: Any = jax.tree.structure(updates)
        grads = jax.tree.leaves(updates)
        others = (tree.flatten_up_to(t) for t in (state.momentum, params, flags(params)))
        pairs = list(map(one, grads, *others))
        steps, moments = (tree.unflatten(pair[i] for pair in pairs) for i in (0, 1))
        return steps, GrassmannState(optax.safe_increment(state.count), moments)

    return optax.GradientTransformationExtraArgs(init, update)
