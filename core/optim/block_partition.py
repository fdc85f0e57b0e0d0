"""Fixed blocks of coordinates: how to form them, and which one to move."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check,
    check_floating,
    check_integer,
    check_key,
    check_rank,
    safe_divide,
    upcast,
)
from .block_coordinate import check_quadratic, check_size, psd_solve

Grouping = Literal["sorted", "averaged", "ordered", "random"]
FixedRule = Literal["gs", "gsl", "gsd", "gsq"]


def _check_partition(partition: Any) -> None:
    check_integer(partition=partition)
    check_rank("partition", partition, 2)
    check(jnp.size(partition) > 0, "partition", "got no blocks, takes [blocks, size]")


def _block_matrices(
    hessian: Float[Array, "dim dim"], partition: Int[Array, "blocks size"]
) -> Float[Array, "blocks size size"]:
    return hessian[partition[:, :, None], partition[:, None, :]]


def partition_coordinates(
    curvature: Any, *, size: int, rule: Grouping = "sorted", key: Any = None
) -> Int[Array, "blocks size"]:
    """Blocks of equal size that hold each coordinate once.

    "sorted" puts coordinates of like curvature together, so that the step of a block is not held
    back by its one steep coordinate; "averaged" takes the flattest and the steepest in turn, which
    makes blocks alike; "ordered" takes them as they come; "random" by chance.

    Args:
      curvature: of each coordinate, its Lipschitz constant H_ii or sum_j |H_ij| [dim].
      size: of a block; divides dim.
      rule: "sorted", "averaged", "ordered" or "random".
      key: for "random" alone.

    Returns:
      Indices [dim / size, size].

    Raises:
      ValueError: naming the argument that is out of range or of the wrong shape or dtype, an
        unknown `rule`, or a missing or needless `key`.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, partitions
    of fixed blocks; IssamLaradji/BlockCoordinateDescent src/partition_rules/partition_rules.py,
    rules Sort, Avg and Order.

    >>> partition_coordinates(jnp.array([3.0, 1.0, 4.0, 2.0]), size=2).tolist()
    [[1, 3], [0, 2]]
    """
    check_floating(curvature=curvature)
    check_rank("curvature", curvature, 1)
    dim = jnp.shape(curvature)[0]
    check_size(size, dim)
    check(dim % size == 0, "size", f"got {size}, takes a divisor of {dim}")
    rules = ("sorted", "averaged", "ordered", "random")
    check(rule in rules, "rule", f"got {rule!r}, takes one of {rules}")
    check((key is not None) == (rule == "random"), "key", f"got {key!r}, goes with 'random' alone")
    if rule == "random":
        check_key(key=key)
        order = jax.random.permutation(key, dim)
    elif rule == "ordered":
        order = jnp.arange(dim)
    else:
        order = jnp.argsort(upcast(curvature))
        if rule == "averaged":
            both = jnp.stack([order, order[::-1]], axis=1)
            order = both.reshape(-1)[:dim]
    return order.reshape(-1, size)


def select_from_partition(
    gradient: Any, partition: Any, hessian: Any = None, *, rule: FixedRule = "gsq"
) -> Int[Array, "size"]:
    """The block of a partition that promises the largest decrease.

        argmax_b g_b' M_b^+ g_b,   "gs": M_b = I            "gsl": M_b = lambda_max(H_bb) I
                                   "gsd": M_b = diag(sum_j |H_ij|, i in b)     "gsq": M_b = H_bb

    Args:
      gradient: g [dim].
      partition: indices [blocks, size], as `partition_coordinates` makes them.
      hessian: H, symmetric positive semi-definite [dim, dim]; "gs" does without.
      rule: what bounds the Hessian of a block.

    Returns:
      The block's indices [size].

    Raises:
      ValueError: naming the argument of the wrong shape or dtype, a missing `hessian`, or an
        unknown `rule`.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, block rules
    GS, GSL, GSD and GSQ for fixed blocks; IssamLaradji/BlockCoordinateDescent
    src/selection_rules/FB_selection_rules.py, whose choices by GSQ are those here, and which for
    the others adds |g_i| / sqrt(M_ii) and not their squares, with M = diag(H) for GSD.

    >>> blocks = jnp.array([[0, 1], [2, 3]])
    >>> select_from_partition(jnp.array([2.0, 0.0, 1.0, 1.0]), blocks, rule="gs").tolist()
    [0, 1]
    >>> hessian = jnp.diag(jnp.array([9.0, 1.0, 1.0, 1.0]))
    >>> select_from_partition(jnp.array([2.0, 0.0, 1.0, 1.0]), blocks, hessian).tolist()
    [2, 3]
    """
    check_floating(gradient=gradient)
    check_rank("gradient", gradient, 1)
    _check_partition(partition)
    rules = ("gs", "gsl", "gsd", "gsq")
    check(rule in rules, "rule", f"got {rule!r}, takes one of {rules}")
    blocks = jnp.asarray(partition)
    g = upcast(gradient)
    part = g[blocks]
    if rule == "gs":
        scores = jnp.sum(part**2, axis=1)
    else:
        check(hessian is not None, "hessian", f"got None, takes [dim, dim] with rule {rule!r}")
        check_quadratic(gradient, hessian)
        h = upcast(hessian)
        if rule == "gsd":
            scores = jnp.sum(safe_divide(part**2, jnp.sum(jnp.abs(h), axis=1)[blocks]), axis=1)
        else:
            values, vectors = jnp.linalg.eigh(_block_matrices(h, blocks))
            if rule == "gsl":
                scores = safe_divide(jnp.sum(part**2, axis=1), jnp.maximum(values[:, -1], 0))
            else:
                scores = jnp.sum(part * jax.vmap(psd_solve)(values, vectors, part), axis=1)
    return blocks[jnp.argmax(scores)]


def cyclic_block(partition: Any, step: Any, key: Any = None) -> Int[Array, "size"]:
    """The block whose turn it is.

    Args:
      partition: indices [blocks, size].
      step: the number of the step, from 0, an integer [].
      key: None to go through the blocks in order; a key for a new random order in every pass.

    Returns:
      The block's indices [size].

    Raises:
      ValueError: naming the argument of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, cyclic
    selection; IssamLaradji/BlockCoordinateDescent src/selection_rules/FB_selection_rules.py.

    >>> cyclic_block(jnp.array([[0, 1], [2, 3]]), 3).tolist()
    [2, 3]
    """
    _check_partition(partition)
    check_integer(step=step)
    check_rank("step", step, 0)
    blocks = jnp.asarray(partition)
    turn = jnp.asarray(step) % len(blocks)
    if key is not None:
        check_key(key=key)
        sweep = jnp.asarray(step) // len(blocks)
        turn = jax.random.permutation(jax.random.fold_in(key, sweep), len(blocks))[turn]
    return blocks[turn]


def sample_from_partition(key: Any, partition: Any, hessian: Any = None) -> Int[Array, "size"]:
    """A block by chance: uniformly, or in proportion to the steepness of the blocks.

        p_b proportional to lambda_max(H_bb)

    Args:
      key: a typed key [].
      partition: indices [blocks, size].
      hessian: H, symmetric positive semi-definite [dim, dim]; None for equal chances.

    Returns:
      The block's indices [size].

    Raises:
      ValueError: naming the argument of the wrong shape or dtype.

    Source: Let's Make Block Coordinate Descent Converge Faster, arXiv 1712.08859, random
    selection; IssamLaradji/BlockCoordinateDescent src/selection_rules/FB_selection_rules.py, rules
    Random and Lipschitz.

    >>> blocks, hessian = jnp.array([[0, 1], [2, 3]]), jnp.diag(jnp.array([0.0, 0.0, 1.0, 1.0]))
    >>> sample_from_partition(jax.random.key(0), blocks, hessian).tolist()
    [2, 3]
    """
    check_key(key=key)
    _check_partition(partition)
    blocks = jnp.asarray(partition)
    weights = jnp.ones(len(blocks))
    if hessian is not None:
        check_floating(hessian=hessian)
        check_rank("hessian", hessian, 2)
        dim = jnp.shape(hessian)[0]
        check(jnp.shape(hessian)[1] == dim, "hessian", f"got {jnp.shape(hessian)}, takes a square")
        tops = jnp.linalg.eigvalsh(_block_matrices(upcast(hessian), blocks))[:, -1]
        # Without any curvature the chances are equal.
        weights = jnp.where(jnp.any(tops > 0), jnp.maximum(tops, 0), 1)
    return blocks[jax.random.categorical(key, jnp.log(weights))]
