"""Block coordinate descent: which block to move, and how far."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_integer,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_sqrt,
    upcast,
)

Rule = Literal["hessian", "lipschitz"]


def psd_solve(values: Array, vectors: Array, target: Array) -> Array:
    """M^+ target from the eigenvalues and vectors of a positive semi-definite M [size, size]."""
    rounding = len(values) * jnp.finfo(values.dtype).eps * jnp.max(values, initial=0)
    inverse = safe_divide(jnp.ones_like(values), jnp.where(values > rounding, values, 0))
    return vectors @ (inverse * (vectors.T @ target))


def check_size(size: Any, dim: int) -> None:
    """A block has from one to all coordinates."""
    whole = isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= dim
    check(whole, "size", f"got {size!r}, takes an integer from 1 to {dim}")


def check_quadratic(gradient: Any, hessian: Any) -> int:
    """The dimension that a gradient [dim] and a Hessian [dim, dim] share."""
    check_floating(gradient=gradient, hessian=hessian)
    check_rank("gradient", gradient, 1)
    dim = jnp.shape(gradient)[0]
    check_shape("hessian", hessian, (dim, dim), "[dim, dim], dim as of gradient")
    return dim


def check_block(block: Any) -> None:
    """Indices [size]."""
    check_integer(block=block)
    check_rank("block", block, 1)


def select_block(gradient: Any, curvature: Any = None, *, size: int) -> Int[Array, "size"]:
    """The coordinates that promise the largest decrease: greedy block selection.

        argmax_b sum_{i in b} g_i^2 / D_i,   the `size` coordinates of largest |g_i| / sqrt(D_i)

    With D_i = 1 the Gauss-Southwell rule (GS); with the curvature of each coordinate, D_i = H_ii, a
    Gauss-Southwell-Lipschitz rule; with D_i = sum_j |H_ij|, for which the diagonal bounds the
    Hessian, a Gauss-Southwell-diagonal rule. For a diagonal Hessian the last two are the same.

    Args:
      gradient: g [dim].
      curvature: D, positive [dim]; None for ones.
      size: of the block.

    Returns:
      Indices [size], the best first.

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, section 3 (block
    rules GS, GSL and GSD); IssamLaradji/BlockCoordinateDescent
    src/selection_rules/VB_selection_rules.py, which calls the second rule GSD and the third GSDHb.

    >>> select_block(jnp.array([1.0, -3.0, 2.0]), size=2).tolist()
    [1, 2]
    >>> select_block(jnp.array([1.0, -3.0, 2.0]), jnp.array([1.0, 100.0, 1.0]), size=2).tolist()
    [2, 0]
    """
    check_floating(gradient=gradient)
    check_rank("gradient", gradient, 1)
    dim = jnp.shape(gradient)[0]
    check_size(size, dim)
    scores = jnp.abs(upcast(gradient))
    if curvature is not None:
        check_floating(curvature=curvature)
        check_shape("curvature", curvature, (dim,), "[dim], as gradient")
        # Where there is no curvature there is no gradient in a convex problem.
        scores = safe_divide(scores, safe_sqrt(upcast(curvature)))
    return jax.lax.top_k(scores, size)[1]


def block_step(
    gradient: Any, hessian: Any, block: Any, *, rule: Rule = "hessian"
) -> Float[Array, "dim"]:
    """The step of one block, zero elsewhere.

        "hessian":   d_b = -H_bb^+ g_b            "lipschitz":   d_b = -g_b / lambda_max(H_bb)

    On a quadratic the first minimizes over the block; for an upper bound H of the Hessian either
    lowers the function.

    Args:
      gradient: g [dim].
      hessian: H, symmetric positive semi-definite [dim, dim], of which the block's part is used.
      block: indices without repetition [size].
      rule: which step.

    Returns:
      d [dim], in the gradient's dtype; add it to the parameters.

    Raises:
      ValueError: naming the argument of the wrong shape or dtype, or an unknown `rule`.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, section 2
    (gradient and matrix updates); IssamLaradji/BlockCoordinateDescent
    src/update_rules/update_rules.py, rules Hb and Lb.

    >>> step = block_step(jnp.array([2.0, 4.0]), jnp.diag(jnp.array([1.0, 8.0])), jnp.array([1]))
    >>> step.tolist()
    [0.0, -0.5]
    """
    check_quadratic(gradient, hessian)
    check_block(block)
    check(rule in ("hessian", "lipschitz"), "rule", f"got {rule!r}, takes 'hessian' or 'lipschitz'")
    g, h = upcast(gradient, hessian)
    index = jnp.asarray(block)
    part = g[index]
    values, vectors = jnp.linalg.eigh(h[index[:, None], index])
    if rule == "lipschitz":
        step = -safe_divide(part, jnp.max(values, initial=0))
    else:
        step = -psd_solve(values, vectors, part)
    return restore(jnp.zeros_like(g).at[index].set(step), jnp.asarray(gradient))


def select_block_quadratic(
    gradient: Any,
    hessian: Any,
    initial: Any = None,
    *,
    size: int,
    iterations: int = 10,
    largest_eigenvalue: Any = None,
) -> Int[Array, "size"]:
    """The block whose matrix update promises most, sought by iterative hard thresholding (GSQ).

        argmax_b g_b' H_bb^+ g_b,   that is   argmin_d <g, d> + d'Hd / 2   over `size` coordinates
        d <- the `size` largest of |d - (g + H d) / lambda_max(H)|, the others zero

    The exact rule is a search over all blocks, thresholding ends in a local optimum. Hence what it
    finds is compared with the blocks of `select_block` with and without H_ii (GSL and GS), and of
    the three that which promises most is taken.

    Args:
      gradient: g [dim].
      hessian: H, symmetric positive semi-definite [dim, dim].
      initial: the first d [dim]; None for -g_i / sqrt(H_ii).
      size: of the block.
      iterations: steps of thresholding.
      largest_eigenvalue: of H, or an upper bound of it; None to compute it, which costs dim^3.

    Returns:
      Indices [size].

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, block rule GSQ
    for variable blocks; IssamLaradji/BlockCoordinateDescent
    src/selection_rules/VB_selection_rules.py, rule GSQ-IHT, starts at +g_i / sqrt(H_ii), uphill,
    and compares with nothing.

    >>> hessian = jnp.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> sorted(select_block_quadratic(jnp.array([1.0, 1.0, 0.9]), hessian, size=2).tolist())
    [0, 2]
    """
    dim = check_quadratic(gradient, hessian)
    check_size(size, dim)
    check_count(iterations=iterations)
    g, h = upcast(gradient, hessian)
    curvature = jnp.diag(h)
    if initial is None:
        d = -safe_divide(g, safe_sqrt(curvature))
    else:
        check_floating(initial=initial)
        check_shape("initial", initial, (dim,), "[dim], as gradient")
        d = upcast(initial).astype(g.dtype)
    if largest_eigenvalue is None:
        top = jnp.linalg.eigvalsh(h)[-1]
    else:
        check_positive(largest_eigenvalue=largest_eigenvalue)
        top = jnp.asarray(largest_eigenvalue, g.dtype)

    def threshold(_: Any, d: Array) -> Array:
        moved = d - safe_divide(g + h @ d, top)
        kept = jax.lax.top_k(jnp.abs(moved), size)[1]
        return jnp.zeros_like(d).at[kept].set(moved[kept])

    found = select_block(jax.lax.fori_loop(0, iterations, threshold, d), size=size)
    plain, scaled = select_block(g, size=size), select_block(g, curvature, size=size)
    blocks = jnp.stack([found, scaled, plain])
    values, vectors = jnp.linalg.eigh(h[blocks[:, :, None], blocks[:, None, :]])
    promises = jnp.sum(g[blocks] * jax.vmap(psd_solve)(values, vectors, g[blocks]), axis=1)
    return blocks[jnp.argmax(promises)]
