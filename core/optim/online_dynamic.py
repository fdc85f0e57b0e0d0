"""Optimistic online mirror descent against a moving comparator: many steps at once, and a vote."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..numerics import accumulation_dtype, check, check_count, check_positive, check_range
from .online import MirrorMap, euclidean_mirror, wide


class DynamicOmdState(NamedTuple):
    """State of `optimistic_omd_dynamic`.

    Attributes:
      duals: every expert's point that no hint has moved, in the coordinates of the mirror map
        [experts, ...].
      points: the point that each expert plays this round [experts, ...].
      moved: its squared distance from the point it played before [experts].
      log_weights: of the experts, before this round's hint [experts].
      expected: the loss of each expert that the hint foretold [experts].
      variation: one and the sum of squared largest differences of losses and foretold ones [].
    """

    duals: Any
    points: Any
    moved: Float[Array, "experts"]
    log_weights: Float[Array, "experts"]
    expected: Float[Array, "experts"]
    variation: Float[Array, ""]


def _sum(tree: Any) -> Float[Array, "experts"]:
    """The sum of all entries of every expert."""
    parts = [jnp.sum(x.reshape(x.shape[0], -1), -1) for x in jax.tree.leaves(tree)]
    return sum(parts[1:], parts[0])


def _doubling(low: float, high: float) -> tuple[float, ...]:
    """`low` times powers of two, up to the first above `high`."""
    sizes = [low]
    while sizes[-1] <= high:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def optimistic_omd_dynamic(
    diameter: float,
    gradient_bound: float,
    smoothness: float,
    rounds: int,
    *,
    step_sizes: tuple[float, ...] | None = None,
    switching_penalty: Any = None,
    meta_scale: Any = 1.0,
    meta_bound: Any = None,
    mirror: MirrorMap | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Optimistic online mirror descent for dynamic regret: experts of many step sizes, weighed.

        expert i plays x_i = step(z_i, M, r_i),   z_i <- step(z_i, g, r_i),   M the last gradient
        play x = sum_i p_i x_i,   p_i ~ q_i exp(-e m_i),   q_i <- q_i exp(-e l_i)
        l_i = <g, x_i> + c |x_i - x_i before|^2,   m_i the same with M in place of g
        e = min(meta_bound, meta_scale / sqrt(1 + sum_{s<t} max_i |l_i - m_i|^2))

    A comparator that moves fast asks for a large step, one that moves slowly for a small one, and
    how it will move is not known. Regret is bounded as if the best step size of the pool had been
    chosen. A round asks for one gradient, at x; memory is that of the parameters for each of about
    `log2(G sqrt(T) / (8 D L))` experts.

    Args:
      diameter: D, the largest distance of two points of the domain.
      gradient_bound: G, of the norm of gradients.
      smoothness: L, of the gradients of the expected losses, above zero.
      rounds: T, how many there will be.
      step_sizes: r_i; by default `D / (G sqrt(T))` times powers of two, up to the first above
        `1 / (8 L)`.
      switching_penalty: c, the price of an expert's moves; `2 L` by default.
      meta_scale: the learning rate of the weights, before it falls with their surprise.
      meta_bound: its largest value; `1 / (8 D^2 L)` by default.
      mirror: the geometry of the experts, `euclidean_mirror()` by default.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params` and take `hint=`, a tree of
      gradients [...] expected next, in place of the last.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, the extension to dynamic regret, whose method is Sword++ of
    Adaptivity and Non-stationarity, arXiv 2112.14368. The former's constants were not at hand:
    these are those of `SwordPP` in li-lf/PyNOL, code of the latter's group, which plays the same
    points.

    >>> tx = optimistic_omd_dynamic(2.0, 1.0, 1.0, 100, step_sizes=(0.1, 0.2))
    >>> params, grads = jnp.zeros(1), jnp.ones(1)
    >>> updates, state = tx.update(grads, tx.init(params), params)
    >>> np.asarray(updates, float).round(3)  # about -(0.1 + 0.1) / 2 - (0.2 + 0.2) / 2
    array([-0.3])
    """
    check_positive(
        diameter=diameter,
        gradient_bound=gradient_bound,
        smoothness=smoothness,
        meta_scale=meta_scale,
        meta_bound=1 if meta_bound is None else meta_bound,
    )
    check_count(rounds=rounds)
    check_range("switching_penalty", 0 if switching_penalty is None else switching_penalty, 0)
    if step_sizes is None:
        low = float(diameter / (gradient_bound * np.sqrt(rounds)))
        step_sizes = _doubling(low, float(1 / (8 * smoothness)))
    good = len(step_sizes) > 0 and all(r > 0 for r in step_sizes)
    check(good, "step_sizes", f"got {step_sizes!r}, takes one or more positive numbers")
    penalty = 2 * smoothness if switching_penalty is None else switching_penalty
    bound = 1 / (8 * diameter**2 * smoothness) if meta_bound is None else meta_bound
    geometry = euclidean_mirror() if mirror is None else mirror
    check(isinstance(geometry, MirrorMap), "mirror", f"got {geometry!r}, takes a MirrorMap or None")
    experts = len(step_sizes)

    def step(duals: Any, direction: Any) -> Any:
        dtype = accumulation_dtype(*jax.tree.leaves(direction))
        move = jax.vmap(lambda z, r: geometry.step(z, direction, r))
        return move(duals, jnp.asarray(step_sizes, dtype))

    def losses(points: Any, gradients: Any, moved: Array) -> Array:
        return _sum(jax.tree.map(jnp.multiply, points, gradients)) + penalty * moved

    def init(params: Any) -> DynamicOmdState:
        dual = geometry.to_dual(params)
        duals = jax.tree.map(lambda x: jnp.broadcast_to(x, (experts, *jnp.shape(x))), dual)
        zeros = jnp.zeros(experts, accumulation_dtype(*jax.tree.leaves(dual)))
        points = jax.vmap(geometry.to_primal)(duals) if jax.tree.leaves(duals) else duals
        even = zeros - float(np.log(experts))
        state = DynamicOmdState(duals, points, zeros, even, zeros, jnp.ones((), zeros.dtype))
        return jax.tree.map(jnp.copy, state)  # no buffer is shared: all may be donated

    def update(
        updates: Any,
        state: DynamicOmdState,
        params: Any = None,
        *,
        hint: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, DynamicOmdState]:
        del extra_args  # they are for other transformations
        check(params is not None, "params", "got None, takes the parameters of this round")
        if not jax.tree.leaves(updates):
            return updates, state

        def rate(variation: Array) -> Array:
            return jnp.minimum(bound, meta_scale / jnp.sqrt(variation)).astype(variation.dtype)

        gradients = wide(updates)
        loss = losses(state.points, gradients, state.moved)
        log_weights = jax.nn.log_softmax(state.log_weights - rate(state.variation) * loss)
        surprise = jnp.max(jnp.abs(loss - state.expected))
        variation = (state.variation + jnp.square(surprise)).astype(state.variation.dtype)
        duals = step(state.duals, gradients)

        ahead = gradients if hint is None else wide(hint)
        points = jax.vmap(geometry.to_primal)(step(duals, ahead))
        gaps = jax.tree.map(lambda a, b: jnp.square(a - b), points, state.points)
        moved = _sum(gaps).astype(state.moved.dtype)
        expected = losses(points, ahead, moved).astype(state.expected.dtype)
        shares = jax.nn.softmax(log_weights - rate(variation) * expected)

        def play(point: Array, param: Array, gradient: Array) -> Array:
            together = jnp.tensordot(shares.astype(point.dtype), point, 1)
            return (together - param.astype(point.dtype)).astype(gradient.dtype)

        moves = jax.tree.map(play, points, params, updates)
        new = DynamicOmdState(
            duals, points, moved, log_weights.astype(state.log_weights.dtype), expected, variation
        )
        return moves, new

    return optax.GradientTransformationExtraArgs(init, update)
