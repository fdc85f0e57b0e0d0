"""Sparse training from scratch: the smallest weights shrink a little at every step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from ..numerics import check, check_range
from .after_step import after_step
from .clipping import order_statistic

Pattern = tuple[int, int]


def _pruned(size: int, sparsity: Any) -> Any:
    """How many of the weights are the small ones: never all, as in the authors' code."""
    most = int(0.995 * size)
    if isinstance(sparsity, int | float):
        return min(math.ceil(sparsity * size), most)
    return jnp.minimum(jnp.ceil(sparsity * size), most).astype(jnp.uint32)


def _kept(weights: Array, sparsity: Any, pattern: Pattern | None) -> Bool[Array, "..."]:
    """Where the large weights are [...], of all or of every M consecutive inputs."""
    if pattern is None:
        largest = jnp.asarray(weights.size - 1 - _pruned(weights.size, sparsity), jnp.uint32)
        return jnp.abs(weights) >= order_statistic([weights], largest)
    small, of = pattern
    inputs = weights.shape[-2]
    check(inputs % of == 0, "pattern", f"got {pattern}, takes M that divides {inputs}, the inputs")
    sizes = jnp.moveaxis(jnp.abs(weights), -2, -1)
    ranks = jnp.argsort(jnp.argsort(sizes.reshape(*sizes.shape[:-1], -1, of)))
    return jnp.moveaxis((ranks >= small).reshape(sizes.shape), -1, -2)


def _check(sparsity: Any, pattern: Any) -> None:
    check_range("sparsity", sparsity, 0, 1)
    if pattern is not None:
        known = len(pattern) == 2 and all(isinstance(n, int) for n in pattern)
        known = known and 0 <= pattern[0] < pattern[1]
        check(known, "pattern", f"got {pattern!r}, takes (N, M) with 0 <= N < M")


def magnitude_masks(params: Any, sparsity: Any = 0.95, *, pattern: Pattern | None = None) -> Any:
    """Which weights of each tensor are kept when the smallest are pruned.

    Args:
      params: a tree of arrays; those of fewer than two axes, such as biases, are kept.
      sparsity: the share of each tensor to prune, at most 0.995 of it.
      pattern: (N, M) to prune the N smallest of every M consecutive inputs, whatever `sparsity`;
        inputs are on the last axis but one, as in [inputs, units] and [height, width, inputs,
        outputs].

    Returns:
      The tree with masks [...]. Weights of one magnitude are kept or pruned together.

    Raises:
      ValueError: naming the argument that is out of range, or a pattern that does not divide.

    Source: Iterative Soft Shrinkage Learning for Efficient Image Super-Resolution,
    arXiv 2303.09650; Jiamian-Wang/Iterative-Soft-Shrinkage-SR basicsr/pruner/utils.py, which makes
    N and M larger by one until M divides, and counts a kernel's positions among its inputs.

    >>> magnitude_masks(jnp.array([[3.0, -1.0], [0.5, -2.0]]), 0.5).tolist()
    [[True, False], [False, True]]
    """
    _check(sparsity, pattern)

    def one(x: Any) -> Any:
        x = jnp.asarray(x)
        return _kept(x, sparsity, pattern) if x.ndim >= 2 else jnp.ones(x.shape, bool)

    return jax.tree.map(one, params)


def iterative_soft_shrinkage(
    sparsity: Any = 0.95, ratio: Any = 0.95, *, pattern: Pattern | None = None
) -> optax.GradientTransformationExtraArgs:
    """ISS-P: after an optimizer's step, the smallest weights of each tensor shrink by a percentage.

        w <- w + update,   w_j <- ratio w_j for the ceil(sparsity n) smallest |w_j|

    A weight that shrinks still has its gradient, so that it may grow back: which weights are small
    is settled by training. It goes last in a chain, `optax.chain(optax.adam(1e-3),
    iterative_soft_shrinkage(0.95))`. Then `magnitude_masks` prunes for good, and training goes on
    with those that are kept. Tensors of fewer than two axes are left alone. The threshold is
    found by counting, without a sort; only counts are exchanged where tensors are sharded.

    Args:
      sparsity: the share of each tensor that shrinks, at most 0.995 of it.
      ratio: what it is multiplied by; 0 is iterative hard thresholding, 1 does nothing.
      pattern: (N, M), as for `magnitude_masks`.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params`.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Iterative Soft Shrinkage Learning for Efficient Image Super-Resolution,
    arXiv 2303.09650; Jiamian-Wang/Iterative-Soft-Shrinkage-SR basicsr/pruner/ist_pruner.py, whose
    trajectory is that here, with the ratio of its commands. Its learning rate is constant in this
    phase.

    >>> tx, w = iterative_soft_shrinkage(0.5, 0.5), jnp.array([[4.0, -2.0], [1.0, 3.0]])
    >>> (w + tx.update(jnp.zeros((2, 2)), tx.init(w), w)[0]).tolist()
    [[4.0, -1.0], [0.5, 3.0]]
    """
    _check(sparsity, pattern)
    check_range("ratio", ratio, 0, 1)

    return after_step(lambda w: jnp.where(_kept(w, sparsity, pattern), w, ratio * w))
