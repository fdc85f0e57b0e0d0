"""Blocks of coordinates that depend on each other as a forest, and their exact updates."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)


def _check_matrix(name: str, matrix: Any) -> int:
    check_floating(**{name: matrix})
    check_rank(name, matrix, 2)
    dim = jnp.shape(matrix)[0]
    check_shape(name, matrix, (dim, dim), "[dim, dim]")
    check(dim > 0, name, "got no coordinates, takes one or more")
    return dim


def _nodes(where: Any, dim: int) -> Bool[Array, "dim"]:
    if where is None:
        return jnp.ones(dim, bool)
    check_shape("where", where, (dim,), "[dim]")
    dtype = jnp.result_type(where)
    check(jnp.issubdtype(dtype, jnp.bool_), "where", f"got dtype {dtype}, takes booleans")
    return jnp.asarray(where)


def _edges(matrix: Any, nodes: Array) -> Bool[Array, "dim dim"]:
    a = jnp.asarray(matrix) != 0
    return (a | a.T) & nodes[:, None] & nodes & ~jnp.eye(len(nodes), dtype=bool)


def is_forest(matrix: Any, where: Any = None) -> Bool[Array, ""]:
    """Whether the graph of the entries that are not zero has no cycle.

    Nodes with one neighbour or none are taken away until there is none; a cycle is left.

    Args:
      matrix: symmetric [dim, dim]; its diagonal does not matter.
      where: the nodes that count [dim]; None for all.

    Returns:
      A boolean [].

    Raises:
      ValueError: naming the argument of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859,
    forest-structured blocks.

    >>> path = jnp.eye(3, k=1) + jnp.eye(3, k=-1)
    >>> bool(is_forest(path)), bool(is_forest(jnp.ones((3, 3))))
    (True, False)
    """
    dim = _check_matrix("matrix", matrix)
    start = _nodes(where, dim)
    edges = _edges(matrix, start)

    def strip(state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, _ = state
        kept = left & (jnp.sum(edges & left, axis=1) > 1)
        return kept, jnp.any(kept != left)

    left, _ = jax.lax.while_loop(lambda state: state[1], strip, (start, jnp.any(start)))
    return ~jnp.any(left)


def forest_block(scores: Any, hessian: Any, where: Any = None) -> Bool[Array, "dim"]:
    """A large block without cycles, taken greedily: the best coordinate first.

    From the largest score down, a coordinate joins unless it has two neighbours in one tree of the
    block, where H_ij != 0 makes neighbours. The block is variable: with |g_i| or |g_i| / sqrt(D_i)
    as `select_block` has them, it is the greedy choice of a step. With what is left as `where`,
    again and again until nothing is, it is a fixed partition into forests.

    Args:
      scores: of the coordinates [dim].
      hessian: H, symmetric [dim, dim]; which entries are zero is used.
      where: the coordinates to choose from [dim]; None for all.

    Returns:
      Whether each coordinate is in the block [dim]; no other could be added to it.

    Raises:
      ValueError: naming the argument of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, greedy forest
    blocks; IssamLaradji/BlockCoordinateDescent src/selection_rules/tree_algorithms.py.

    >>> triangle = jnp.ones((3, 3))
    >>> forest_block(jnp.array([1.0, 3.0, 2.0]), triangle).tolist()
    [False, True, True]
    """
    dim = _check_matrix("hessian", hessian)
    check_floating(scores=scores)
    check_shape("scores", scores, (dim,), "[dim], as hessian")
    edges = _edges(hessian, _nodes(where, dim))
    order = jnp.argsort(-upcast(scores))
    allowed = _nodes(where, dim)

    def visit(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        block, tree = state
        i = order[k]
        near = edges[i] & block
        # How many neighbours the coordinate has in each tree.
        count = jax.ops.segment_sum(near.astype(jnp.int32), tree, dim)
        joins = allowed[i] & jnp.all(count <= 1)
        # It makes one tree of itself and of those it touches.
        merged = jnp.where((count[tree] > 0) & block, i, tree)
        return block.at[i].set(joins), jnp.where(joins, merged, tree)

    start = (jnp.zeros(dim, bool), jnp.arange(dim))
    return jax.lax.fori_loop(0, dim, visit, start)[0]


def gaussian_belief_propagation(
    matrix: Any, target: Any, where: Any = None, *, sweeps: int | None = None
) -> Float[Array, "dim"]:
    """Solve A x = b by messages along the edges of a forest: exact, in linear time a sweep.

        from i to j:  P_ij = -A_ij^2 / P_i\\j,            m_ij = -A_ij h_i\\j / P_i\\j
                      P_i\\j = A_ii + sum_{k != j} P_ki,  h_i\\j = b_i + sum_{k != j} m_ki
        x_i = (b_i + sum_k m_ki) / (A_ii + sum_k P_ki)

    All messages are sent at once. After as many sweeps as the forest's diameter they stay as they
    are, and that ends the loop. The matrix update of a block of coordinates that is a forest is
    `gaussian_belief_propagation(hessian, -gradient, forest_block(scores, hessian))`.

    Args:
      matrix: A, symmetric and positive definite on the nodes that count, where it must be a forest
        (`is_forest`): a graph with cycles has more edges than are kept, and x is not the solution.
      target: b [dim].
      where: the nodes that count [dim]; None for all. x is zero elsewhere.
      sweeps: at most; None for dim - 1, enough for any forest.

    Returns:
      x [dim].

    Raises:
      ValueError: naming the argument of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, message
    passing by Gaussian belief propagation; IssamLaradji/BlockCoordinateDescent
    src/update_rules/update_rules.py, rule bpGabp, sends one message after the other and keeps means
    U_ij = m_ij / P_ij.

    >>> a = jnp.array([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    >>> gaussian_belief_propagation(a, jnp.array([3.0, 4.0, 3.0])).round(5).tolist()
    [1.0, 1.0, 1.0]
    """
    dim = _check_matrix("matrix", matrix)
    check_floating(target=target)
    check_shape("target", target, (dim,), "[dim], as matrix")
    if sweeps is not None:
        check_count(sweeps=sweeps)
    a, b = upcast(matrix, target)
    nodes = _nodes(where, dim)
    # A forest has fewer edges than nodes; what is missing is filled up with edges of weight zero.
    upper = jnp.triu(_edges(a, nodes))
    one, other = jnp.nonzero(upper, size=max(dim - 1, 1), fill_value=0)
    weight = jnp.where(upper[one, other], a[one, other], 0)
    sender, receiver = jnp.concatenate([one, other]), jnp.concatenate([other, one])
    weight = jnp.concatenate([weight, weight])
    own = jnp.stack([jnp.where(nodes, jnp.diag(a), 0), jnp.where(nodes, b, 0)], axis=1)

    edges = len(one)

    def gather(messages: Array) -> Array:
        """Precision and potential of each node [dim, 2], given those sent on each edge."""
        return own + jax.ops.segment_sum(messages, receiver, dim)

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        messages, _, count = state
        # What a node tells another leaves out what it heard from it, on the edge's other direction.
        told = gather(messages)[sender] - jnp.roll(messages, edges, axis=0)
        gain = -safe_divide(weight, told[:, 0])
        sent = jnp.stack([gain * weight, gain * told[:, 1]], axis=1)
        return sent, jnp.any(sent != messages), count + 1

    limit = dim - 1 if sweeps is None else sweeps
    start = (jnp.zeros((2 * edges, 2), a.dtype), jnp.array(True), jnp.array(0))
    messages, _, _ = jax.lax.while_loop(lambda s: s[1] & (s[2] < limit), sweep, start)
    precision, potential = gather(messages).T
    return restore(safe_divide(potential, precision), jnp.asarray(matrix), jnp.asarray(target))
