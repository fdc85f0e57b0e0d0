"""Block coordinate descent under bounds and l1 penalties: active sets and projected steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check_count,
    check_floating,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)
from .block_coordinate import check_block, check_quadratic, check_size, psd_solve


def _prox(x: Array, threshold: Array, nonnegative: bool) -> Array:
    """argmin_z (z - x)^2 / 2 + threshold |z|, over z >= 0 if so wished."""
    soft = jnp.maximum(jnp.abs(x) - threshold, 0) * jnp.sign(x)
    return jnp.maximum(x - threshold, 0) if nonnegative else soft


def _check_point(params: Any, gradient: Any) -> int:
    check_floating(params=params, gradient=gradient)
    check_rank("gradient", gradient, 1)
    dim = jnp.shape(gradient)[0]
    check_shape("params", params, (dim,), "[dim], as gradient")
    return dim


def active_set(
    params: Any,
    gradient: Any,
    *,
    l1: Any = 0.0,
    nonnegative: bool = False,
    tolerance: float = 1e-4,
) -> Bool[Array, "dim"]:
    """The coordinates that are at zero and that the gradient keeps there.

        x_i <= tolerance and g_i + l1 > 0 with x >= 0,   |x_i| <= tolerance and |g_i| < l1 without

    A proximal method, of blocks as of all coordinates, finds the active set of a nondegenerate
    solution in finitely many steps; what is left is a smooth problem in the other coordinates.

    Args:
      params: x [dim].
      gradient: g, of the function without the penalty [dim].
      l1: the weight of sum_i |x_i|, zero or more.
      nonnegative: whether x >= 0 is demanded.
      tolerance: how near to zero counts, zero or more.

    Returns:
      Whether each coordinate is active [dim].

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, active-set
    identification; IssamLaradji/BlockCoordinateDescent src/update_rules/update_rules.py, rule
    TMP-NN, with tolerance 1e-4.

    >>> x, g = jnp.array([0.0, 0.0, 2.0]), jnp.array([1.0, -1.0, 1.0])
    >>> active_set(x, g, nonnegative=True).tolist()
    [True, False, False]
    """
    _check_point(params, gradient)
    check_range("l1", l1, 0)
    check_range("tolerance", tolerance, 0)
    x, g = upcast(params, gradient)
    if nonnegative:
        return (x <= tolerance) & (g + l1 > 0)
    return (jnp.abs(x) <= tolerance) & (jnp.abs(g) < l1)


def select_proximal_block(
    params: Any,
    gradient: Any,
    curvature: Any,
    *,
    size: int,
    l1: Any = 0.0,
    nonnegative: bool = False,
) -> Int[Array, "size"]:
    """The coordinates whose proximal steps promise the largest decrease.

        d_i = prox(x_i - g_i / L_i) - x_i,   prox(z) = sign(z) max(|z| - l1 / L_i, 0),
              or max(z - l1 / L_i, 0) with x >= 0
        argmin_b sum_{i in b} g_i d_i + L_i d_i^2 / 2 + l1 (|x_i + d_i| - |x_i|)

    Without penalty and bound it is `select_block` with L.

    Args:
      params: x [dim].
      gradient: g, of the function without the penalty [dim].
      curvature: L, positive [dim], as for `select_block`.
      size: of the block.
      l1: the weight of sum_i |x_i|, zero or more.
      nonnegative: whether x >= 0 is demanded.

    Returns:
      Indices [size], the best first.

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, proximal
    greedy rules;
    IssamLaradji/BlockCoordinateDescent src/selection_rules/VB_selection_rules.py, rule gsq-nn, has
    the bound alone.

    >>> x, g = jnp.array([0.0, 1.0, 1.0]), jnp.array([9.0, 1.0, -2.0])
    >>> select_proximal_block(x, g, jnp.ones(3), size=2, nonnegative=True).tolist()
    [2, 1]
    """
    dim = _check_point(params, gradient)
    check_floating(curvature=curvature)
    check_shape("curvature", curvature, (dim,), "[dim], as gradient")
    check_size(size, dim)
    check_range("l1", l1, 0)
    x, g, bound = upcast(params, gradient, curvature)
    d = _prox(x - safe_divide(g, bound), safe_divide(l1, bound), nonnegative) - x
    change = g * d + bound * d**2 / 2 + l1 * (jnp.abs(x + d) - jnp.abs(x))
    return jax.lax.top_k(-change, size)[1]


def proximal_block_step(
    params: Any,
    gradient: Any,
    hessian: Any,
    block: Any,
    *,
    l1: Any = 0.0,
    nonnegative: bool = False,
) -> Float[Array, "dim"]:
    """The proximal gradient step of one block, zero elsewhere.

        d_b = prox(x_b - g_b / L) - x_b,   L = lambda_max(H_bb),   prox as `select_proximal_block`

    Args:
      params: x [dim].
      gradient: g, of the function without the penalty [dim].
      hessian: H, symmetric positive semi-definite [dim, dim], of which the block's part is used.
      block: indices without repetition [size].
      l1: the weight of sum_i |x_i|, zero or more.
      nonnegative: whether x >= 0 is demanded.

    Returns:
      d [dim], in the gradient's dtype; add it to the parameters.

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, proximal
    updates; IssamLaradji/BlockCoordinateDescent src/update_rules/update_rules.py, rule
    Lb-NN, has the bound alone.

    >>> x, g = jnp.array([1.0, 1.0]), jnp.array([4.0, -1.0])
    >>> proximal_block_step(x, g, jnp.eye(2), jnp.arange(2), nonnegative=True).tolist()
    [-1.0, 1.0]
    """
    check_quadratic(gradient, hessian)
    _check_point(params, gradient)
    check_block(block)
    check_range("l1", l1, 0)
    x, g, h = upcast(params, gradient, hessian)
    index = jnp.asarray(block)
    top = jnp.max(jnp.linalg.eigvalsh(h[index[:, None], index]), initial=0)
    moved = x[index] - safe_divide(g[index], top)
    step = _prox(moved, safe_divide(l1, top), nonnegative) - x[index]
    return restore(jnp.zeros_like(g).at[index].set(step), jnp.asarray(gradient))


def two_metric_step(
    params: Any,
    gradient: Any,
    hessian: Any,
    block: Any,
    *,
    objective: Callable[[Array], Array] | None = None,
    tolerance: float = 1e-4,
    decrease: float = 1e-4,
    halvings: int = 30,
) -> Float[Array, "dim"]:
    """Two-metric projection of one block under x >= 0: a projected step that uses the Hessian.

        A = {i in b: x_i <= tolerance, g_i > 0},   W = b without A
        p_A = g_A / sum_{i in A} H_ii,   p_W = H_WW^+ g_W,   d_b = max(x_b - a p_b, 0) - x_b

    with the first a of 1, 1/2, 1/4, ... that lowers the function by

        decrease * (a <g_W, p_W> - <g_A, d_A>)

    Projecting a Newton step of all coordinates may go up; with the active set A set apart it does
    not. Where A is that of the solution and W has all that is positive there, a quadratic is solved
    in one step.

    Args:
      params: x, zero or more [dim].
      gradient: g [dim].
      hessian: H, symmetric positive semi-definite [dim, dim], of which the block's part is used.
      block: indices without repetition [size].
      objective: the function, from [dim] to []; None to search on the quadratic <g, d> + d'Hd / 2.
      tolerance: how near to zero counts, zero or more.
      decrease: the share of the promised decrease to demand, from 0 to 1.
      halvings: how often at most the step is halved; past that it is zero.

    Returns:
      d [dim], in the gradient's dtype; add it to the parameters.

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, two-metric
    projection, after Bertsekas, SIAM J. Control Optim. 20(2), 1982, whose condition of
    descent is used; IssamLaradji/BlockCoordinateDescent src/update_rules/update_rules.py, rule
    TMP-NN, interpolates in the line search and demands a share of 1e-10.

    >>> x, g = jnp.array([0.0, 1.0]), jnp.array([3.0, 4.0])
    >>> two_metric_step(x, g, jnp.diag(jnp.array([1.0, 8.0])), jnp.arange(2)).tolist()
    [0.0, -0.5]
    """
    check_quadratic(gradient, hessian)
    _check_point(params, gradient)
    check_block(block)
    check_range("decrease", decrease, 0, 1)
    check_count(halvings=halvings)
    everywhere, g_all, h_all = upcast(params, gradient, hessian)
    index = jnp.asarray(block)
    x, g, h = everywhere[index], g_all[index], h_all[index[:, None], index]
    active = active_set(x, g, nonnegative=True, tolerance=tolerance)
    work = ~active
    values, vectors = jnp.linalg.eigh(jnp.where(work[:, None] & work, h, 0))
    newton = psd_solve(values, vectors, jnp.where(work, g, 0))
    steepness = jnp.sum(jnp.where(active, jnp.diag(h), 0))
    direction = jnp.where(active, safe_divide(g, steepness), newton)

    sizes = 0.5 ** jnp.arange(halvings + 1, dtype=g.dtype)
    steps = jnp.maximum(x - sizes[:, None] * direction, 0) - x
    if objective is None:
        change = steps @ g + jnp.einsum("ki,ij,kj->k", steps, h, steps) / 2
    else:
        trials = jax.vmap(lambda step: everywhere.at[index].add(step))(steps)
        change = jax.vmap(objective)(trials) - objective(everywhere)
    promised = sizes * jnp.sum(jnp.where(work, g * direction, 0))
    promised -= jnp.sum(jnp.where(active, g * steps, 0), axis=1)
    good = change <= -decrease * promised
    step = jnp.where(jnp.any(good), steps[jnp.argmax(good)], 0)
    return restore(jnp.zeros_like(g_all).at[index].set(step), jnp.asarray(gradient))
