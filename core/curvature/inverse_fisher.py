"""Products with the inverse of an empirical Fisher matrix, and what pruning makes of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    accumulation_dtype,
    check,
    check_boolean,
    check_floating,
    check_positive,
    check_shape,
)

HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InverseFisher:
    """A factored inverse of an empirical Fisher matrix, as `inverse_fisher` returns it.

    Attributes:
      rows: R, with F^-1 = (I - R'R) / damping for each block [blocks, gradients, block_size].
      damping: lambda of each block [blocks].
      size: the number of weights, which the blocks may pad.
      dtype: the dtype of the gradients.
    """

    rows: Float[Array, "blocks gradients block_size"]
    damping: Float[Array, "blocks"]
    size: int = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(metadata={"static": True})


def ridge_cholesky(
    gram: Float[Array, "*blocks m m"], ridge: Any
) -> tuple[Float[Array, "*blocks m m"], Float[Array, "*blocks"]]:
    """Cholesky factor of `gram + ridge I`, and the ridge that was used.

    A ridge below the rounding of the Gram matrix itself could not keep the factor real, so it is
    raised to that: the factor is then that of a larger damping.
    """
    m = gram.shape[-1]
    largest = jnp.max(jnp.diagonal(gram, axis1=-2, axis2=-1), axis=-1)
    least = jax.lax.stop_gradient(2 * m * jnp.finfo(gram.dtype).eps * largest)
    ridge = jnp.maximum(jnp.asarray(ridge, gram.dtype), least)
    eye = jnp.eye(m, dtype=gram.dtype)
    return jnp.linalg.cholesky(gram + ridge[..., None, None] * eye), ridge


def inverse_fisher(
    gradients: Float[Array, "gradients size"],
    *,
    damping: Any = 1e-5,
    block_size: int | None = None,
) -> InverseFisher:
    """Factor the inverse of the empirical Fisher matrix of m gradients: the static M-FAC.

        F = damping I + 1/m sum_i g_i g_i'
        F^-1 = (I - R'R) / damping,   R = C^-1 G,   C C' = m damping I + G G'

    with the gradients as the rows of G. The Woodbury identity with a Cholesky factor in place of
    the authors' m rank-one updates: the same numbers from one matrix product and one triangular
    solve, O(m^2 size) operations, O(m size) memory, and no matrix of size x size. With `block_size`
    F is replaced by its blocks on the diagonal, which is what pruning large networks uses.

    Queries: `inverse_fisher_vp` in O(m size), `inverse_fisher_diagonal`, and `obs_update`.

    Args:
      gradients: flat gradients of single examples (or of small batches) [gradients, size];
        `jax.vmap(lambda g: jax.flatten_util.ravel_pytree(g)[0])` makes them of a tree.
      damping: lambda.
      block_size: length of the blocks, of consecutive weights; one block of all of them by default.
        The authors prune with blocks of 128 and more.

    Returns:
      An `InverseFisher`, whose rows [blocks, gradients, block_size] have the accumulation dtype.

    Raises:
      ValueError: if `gradients` is not a matrix of floats, or `damping` or `block_size` is not
        positive.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 3.1; IST-DASLab/M-FAC prun.py (`HInvFastBatch`, a recursion of m
    rank-one updates, equal up to rounding).

    >>> g = jnp.array([[2.0, 0.0], [0.0, 4.0]])
    >>> f = inverse_fisher(g, damping=1.0)  # F = diag(1 + 4 / 2, 1 + 16 / 2)
    >>> np.asarray(1 / inverse_fisher_diagonal(f), float).round(4).tolist()
    [3.0, 9.0]
    """
    fits = jnp.ndim(gradients) == 2 and 0 not in jnp.shape(gradients)
    got = f"got shape {jnp.shape(gradients)}"
    check(fits, "gradients", f"{got}, takes [gradients, size], one or more of both")
    check_floating(gradients=gradients)
    check_positive(damping=damping)
    m, size = gradients.shape
    length = size if block_size is None else block_size
    whole = isinstance(length, int) and not isinstance(length, bool) and length >= 1
    check(whole, "block_size", f"got {block_size!r}, takes None or an integer of 1 or more")
    dtype = accumulation_dtype(gradients)
    blocks = -(-size // length)
    padded = jnp.pad(gradients.astype(dtype), ((0, 0), (0, blocks * length - size)))
    g = jnp.moveaxis(padded.reshape(m, blocks, length), 1, 0)
    gram = jnp.matmul(g, jnp.swapaxes(g, -1, -2), precision=HIGHEST)
    factor, ridge = ridge_cholesky(gram, m * jnp.asarray(damping, dtype))
    rows = jax.scipy.linalg.solve_triangular(factor, g, lower=True)
    return InverseFisher(rows, ridge / m, size, jnp.dtype(gradients.dtype))


def _blocks(
    fisher: InverseFisher, name: str, vector: Float[Array, "size"]
) -> Float[Array, "blocks block_size"]:
    """A vector in the blocks of the factored matrix."""
    check_shape(name, vector, (fisher.size,), "[size], as the gradients")
    check_floating(**{name: vector})
    blocks, _, length = fisher.rows.shape
    v = jnp.asarray(vector, fisher.rows.dtype)
    return jnp.pad(v, (0, blocks * length - v.size)).reshape(blocks, length)


def inverse_fisher_vp(fisher: InverseFisher, vector: Float[Array, "size"]) -> Float[Array, "size"]:
    """Product of a vector with the inverse of the empirical Fisher matrix.

        F^-1 v = (v - R' (R v)) / damping

    Args:
      fisher: what `inverse_fisher` returned for gradients of this size.
      vector: v [size].

    Returns:
      The product [size], in the dtype of the vector.

    Raises:
      ValueError: if `vector` does not have the size of the gradients or is not floating point.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 3.1, equation 5; IST-DASLab/M-FAC prun.py.

    >>> f = inverse_fisher(jnp.array([[1.0, 1.0]]), damping=1.0)  # F = [[2, 1], [1, 2]]
    >>> np.asarray(inverse_fisher_vp(f, jnp.array([3.0, 3.0])), float).round(4).tolist()
    [1.0, 1.0]
    """
    v = _blocks(fisher, "vector", vector)
    inner = jnp.einsum("bms,bs->bm", fisher.rows, v, precision=HIGHEST)
    rest = v - jnp.einsum("bms,bm->bs", fisher.rows, inner, precision=HIGHEST)
    product = rest / fisher.damping[:, None]
    return product.reshape(-1)[: fisher.size].astype(jnp.result_type(vector))


def inverse_fisher_diagonal(fisher: InverseFisher) -> Float[Array, "size"]:
    """The diagonal of the inverse of the empirical Fisher matrix.

        [F^-1]_ii = (1 - sum_j R_ji^2) / damping

    It is positive; where rounding would make it less than one unit of the last place of
    1 / damping, it is that unit.

    Args:
      fisher: what `inverse_fisher` returned.

    Returns:
      The diagonal [size], in the dtype of the gradients.

    Raises:
      ValueError: if `fisher` is not an `InverseFisher`.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 3.1; IST-DASLab/M-FAC prun.py (`diag`).

    >>> f = inverse_fisher(jnp.array([[1.0, 1.0]]), damping=1.0)  # F = [[2, 1], [1, 2]]
    >>> np.asarray(inverse_fisher_diagonal(f), float).round(4).tolist()
    [0.6667, 0.6667]
    """
    got = type(fisher).__name__
    check(
        isinstance(fisher, InverseFisher), "fisher", f"got {got}, takes what inverse_fisher returns"
    )
    left = 1 - jnp.sum(jnp.square(fisher.rows), axis=1)
    diagonal = jnp.maximum(left, jnp.finfo(left.dtype).eps) / fisher.damping[:, None]
    return diagonal.reshape(-1)[: fisher.size].astype(fisher.dtype)


def obs_saliency(
    weights: Float[Array, "*shape"], inverse_diagonal: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """What removing each weight alone costs, by the optimal brain surgeon.

        rho_i = w_i^2 / (2 [F^-1]_ii)

    The increase of the loss's second-order model when weight i becomes zero and all others are
    moved to make up for it. With F the identity this orders weights as their magnitudes do.

    Args:
      weights: w [...].
      inverse_diagonal: the diagonal of the inverse of the curvature [...], positive, as from
        `inverse_fisher_diagonal`.

    Returns:
      The statistic [...]; the weights with the least of it are pruned.

    Raises:
      ValueError: if the arguments are not floats of one shape.

    Source: Second order derivatives for network pruning: Optimal Brain Surgeon, Hassibi and Stork
    1992, as used in M-FAC, arXiv 2107.03356, section 4.1; IST-DASLab/M-FAC main_prun.py.

    >>> obs_saliency(jnp.array([2.0, 2.0]), jnp.array([1.0, 4.0])).tolist()
    [2.0, 0.5]
    """
    check_floating(weights=weights, inverse_diagonal=inverse_diagonal)
    check_shape("inverse_diagonal", inverse_diagonal, jnp.shape(weights), "as weights")
    dtype = accumulation_dtype(weights, inverse_diagonal)
    w, diagonal = jnp.asarray(weights, dtype), jnp.asarray(inverse_diagonal, dtype)
    tiny = jnp.finfo(dtype).tiny
    saliency = jnp.square(w) / (2 * jnp.maximum(diagonal, tiny))
    return saliency.astype(jnp.result_type(weights))


def obs_update(
    fisher: InverseFisher, weights: Float[Array, "size"], pruned: Bool[Array, "size"]
) -> Float[Array, "size"]:
    """Remove weights and move the others to make up for it, by the optimal brain surgeon.

        w <- w - F^-1 (pruned * w / diag F^-1),  then 0 where pruned

    The sum of the updates that belong to removing each weight alone: exact for one weight, and the
    approximation that the authors make for many.

    Args:
      fisher: what `inverse_fisher` returned at these weights.
      weights: w [size].
      pruned: the weights to remove [size].

    Returns:
      The new weights [size], zero where `pruned`.

    Raises:
      ValueError: if `weights` or `pruned` does not have the size of the gradients, or `pruned` is
        not boolean.

    Source: M-FAC: Efficient Matrix-Free Approximations of Second-Order Information,
    arXiv 2107.03356, section 4.1; IST-DASLab/M-FAC main_prun.py.

    >>> f = inverse_fisher(jnp.array([[1.0, 1.0]]), damping=1.0)  # F = [[2, 1], [1, 2]]
    >>> w = obs_update(f, jnp.array([1.0, 1.0]), jnp.array([True, False]))
    >>> np.asarray(w, float).round(4).tolist()  # minimizes w'Fw over the second weight's change
    [0.0, 1.5]
    """
    size = fisher.size
    check_shape("weights", weights, (size,), "[size], as the gradients")
    check_shape("pruned", pruned, (size,), "[size], as weights")
    check_boolean(pruned=pruned)
    check_floating(weights=weights)
    wide = jnp.asarray(weights, fisher.rows.dtype)
    diagonal = inverse_fisher_diagonal(dataclasses.replace(fisher, dtype=wide.dtype))
    moved = wide - inverse_fisher_vp(fisher, jnp.where(pruned, wide / diagonal, 0))
    return jnp.where(pruned, 0, moved).astype(jnp.result_type(weights))
