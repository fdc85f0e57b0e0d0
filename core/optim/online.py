"""Optimistic online mirror descent: geometries as mirror maps, steps from changes of gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..numerics import (
    accumulation_dtype,
    check,
    check_positive,
    check_range,
    safe_divide,
    safe_log,
    safe_norm,
)


class MirrorMap(NamedTuple):
    """A geometry: points of the domain by coordinates in which a mirror step is easy.

        step(z, g, r) = argmin_x <r g, x> + D(x, z),   D the Bregman divergence of the map

    Attributes:
      to_dual: from a tree of points [...] in the domain to its coordinates.
      step: `step(dual, direction, rate) -> dual`, whose point lies in the domain.
      to_primal: from coordinates to points.
      dual_norm: norm [] of a tree of gradients, in which changes are measured.
    """

    to_dual: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], Any]
    to_primal: Callable[[Any], Any]
    dual_norm: Callable[[Any], Float[Array, ""]]


def wide(tree: Any) -> Any:
    """The tree in the dtypes to compute in."""
    return jax.tree.map(lambda x: jnp.asarray(x, accumulation_dtype(x)), tree)


def tree_norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm of all entries; the inner norms keep it in range."""
    norms = [safe_norm(x, axis=None) for x in jax.tree.leaves(wide(tree))]
    return safe_norm(jnp.stack(norms)) if norms else jnp.zeros(())


def euclidean_mirror(radius: Any = None) -> MirrorMap:
    """Euclidean geometry: gradient steps, projected onto a ball about the origin.

        step(z, g, r) = y min(1, radius / |y|),   y = z - r g

    Args:
      radius: of the ball of all parameters together; None for the whole space.

    Returns:
      A `MirrorMap`.

    Raises:
      ValueError: if `radius` is not positive.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, algorithm 1 with psi = |x|^2 / 2.

    >>> mirror = euclidean_mirror(1.0)
    >>> np.asarray(mirror.step(jnp.zeros(2), jnp.array([-6.0, -8.0]), 1.0), float).round(3).tolist()
    [0.6, 0.8]
    """
    check_positive(radius=1 if radius is None else radius)

    def project(point: Any) -> Any:
        if radius is None:
            return point
        norm = tree_norm(point)
        factor = jnp.where(norm > radius, safe_divide(jnp.asarray(radius, norm.dtype), norm), 1)
        return jax.tree.map(lambda x: (factor * x).astype(x.dtype), point)

    def step(point: Any, direction: Any, rate: Any) -> Any:
        return project(jax.tree.map(lambda x, g: (x - rate * g).astype(x.dtype), point, direction))

    return MirrorMap(lambda params: project(wide(params)), step, lambda dual: dual, tree_norm)


def entropic_mirror() -> MirrorMap:
    """Negative entropy on the simplex of the last axis: multiplicative weights.

        step(z, g, r)_i = z_i exp(-r g_i) / sum_j z_j exp(-r g_j)

    Coordinates are log-probabilities, so that a weight of 1e-100 is still there to come back. Every
    tensor is one or several distributions over its last axis. Changes of gradients are measured in
    the largest entry, the dual norm of the simplex; over several distributions, of all of them.

    Returns:
      A `MirrorMap`.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, algorithm 1 with psi = sum_i x_i log x_i.

    >>> mirror = entropic_mirror()
    >>> start = mirror.to_dual(jnp.array([0.5, 0.5]))
    >>> moved = mirror.to_primal(mirror.step(start, jnp.array([jnp.log(3.0), 0.0]), 1.0))
    >>> np.asarray(moved, float).round(3).tolist()
    [0.25, 0.75]
    """

    def norm(tree: Any) -> Float[Array, ""]:
        largest = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(wide(tree))]
        return jnp.max(jnp.stack(largest)) if largest else jnp.zeros(())

    def step(dual: Any, direction: Any, rate: Any) -> Any:
        def move(z: Array, g: Array) -> Array:
            return jax.nn.log_softmax((z - rate * g).astype(z.dtype), axis=-1)

        return jax.tree.map(move, dual, direction)

    def to_dual(params: Any) -> Any:
        return jax.tree.map(lambda x: jax.nn.log_softmax(safe_log(x), axis=-1), wide(params))

    def to_primal(dual: Any) -> Any:
        return jax.tree.map(lambda z: jax.nn.softmax(z, axis=-1), dual)

    return MirrorMap(to_dual, step, to_primal, norm)


class OptimisticOmdState(NamedTuple):
    """State of optimistic online mirror descent.

    Attributes:
      dual: the point that no hint has moved, in the coordinates of the mirror map [...].
      hint: the gradient that the next round is expected to bring [...].
      variation: the sum of squared norms of gradients less their hints [].
      rounds: rounds that are over [].
    """

    dual: Any
    hint: Any
    variation: Float[Array, ""]
    rounds: Array


def _optimistic(
    rate: Callable[[Array, Array], Array], mirror: MirrorMap | None
) -> optax.GradientTransformationExtraArgs:
    """The algorithm, with `rate(rounds, variation)` the step size of the next round."""
    geometry = euclidean_mirror() if mirror is None else mirror
    check(isinstance(geometry, MirrorMap), "mirror", f"got {geometry!r}, takes a MirrorMap or None")

    def init(params: Any) -> OptimisticOmdState:
        dual = geometry.to_dual(params)
        hint = jax.tree.map(jnp.zeros_like, wide(params))
        variation = jnp.zeros((), accumulation_dtype(*jax.tree.leaves(hint)))
        state = OptimisticOmdState(dual, hint, variation, jnp.zeros((), jnp.int32))
        return jax.tree.map(jnp.copy, state)  # no buffer is shared: all may be donated

    def update(
        updates: Any,
        state: OptimisticOmdState,
        params: Any = None,
        *,
        hint: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, OptimisticOmdState]:
        del extra_args  # they are for other transformations
        check(params is not None, "params", "got None, takes the parameters of this round")
        gradients = wide(updates)
        dual = geometry.step(state.dual, gradients, rate(state.rounds, state.variation))
        change = jax.tree.map(jnp.subtract, gradients, state.hint)
        variation = state.variation + jnp.square(geometry.dual_norm(change))
        expected = gradients if hint is None else wide(hint)
        new = OptimisticOmdState(
            dual, expected, variation.astype(state.variation.dtype), state.rounds + 1
        )
        ahead = geometry.to_primal(geometry.step(dual, expected, rate(new.rounds, new.variation)))
        moves = jax.tree.map(
            lambda x, p, g: (x - p.astype(x.dtype)).astype(g.dtype), ahead, params, updates
        )
        return moves, new

    return optax.GradientTransformationExtraArgs(init, update)


def optimistic_omd(
    diameter: Any,
    gradient_bound: Any,
    smoothness: Any = 1.0,
    *,
    mirror: MirrorMap | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Optimistic online mirror descent for convex losses, with steps from changes of gradients.

        play x_t = step(z_t, M_t, r_t), see g_t = grad f_t(x_t),   z_{t+1} = step(z_t, g_t, r_t)
        M_t = g_{t-1},   r_t = D / sqrt(10 D^2 L^2 + 4 G^2 + sum_{s<t} |g_s - M_s|^2)

    Regret is bounded by D times the root of the gradients' variation, whether noise or an adversary
    causes it, and by a constant where there is none. Applying the updates of round t gives the
    point x_{t+1} that the next round plays; the parameters at the start must lie in the domain.

    Args:
      diameter: D, the largest distance of two points of the domain.
      gradient_bound: G, of the norm of gradients; it needs not hold exactly.
      smoothness: L, of the gradients of the expected losses.
      mirror: the geometry, `euclidean_mirror()` by default. In others D^2 is twice the largest
        divergence, and norms of gradients are the dual ones.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params` and take `hint=`, a tree of
      gradients [...] expected next, in place of the last.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, theorem 1. The sum has its first term, |g_1|^2, as M_1 = 0.

    >>> tx = optimistic_omd(2.0, 1.0, 0.0)
    >>> params, grads = jnp.zeros(1), jnp.ones(1)
    >>> updates, state = tx.update(grads, tx.init(params), params)
    >>> np.asarray(updates, float).round(3)  # -(2 / sqrt(4)) - (2 / sqrt(4 + 1))
    array([-1.894])
    """
    check_positive(diameter=diameter, gradient_bound=gradient_bound)
    check_range("smoothness", smoothness, 0)

    def rate(rounds: Array, variation: Array) -> Array:
        del rounds
        floor = 10 * (diameter * smoothness) ** 2 + 4 * gradient_bound**2
        return diameter / jnp.sqrt(floor + variation)

    return _optimistic(rate, mirror)


def optimistic_omd_strongly_convex(
    strong_convexity: Any, *, mirror: MirrorMap | None = None
) -> optax.GradientTransformationExtraArgs:
    """Optimistic online mirror descent for strongly convex losses.

        x_t, z_{t+1} as in `optimistic_omd`,   r_t = 2 / (lambda t)

    Regret grows as the logarithm of the gradients' variation.

    Args:
      strong_convexity: lambda, of the expected losses.
      mirror: the geometry, `euclidean_mirror()` by default.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params` and take `hint=`.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, the theorem on strongly convex losses.

    >>> tx = optimistic_omd_strongly_convex(4.0)
    >>> params, grads = jnp.zeros(1), jnp.ones(1)
    >>> tx.update(grads, tx.init(params), params)[0].tolist()  # -2/4 - 2/8
    [-0.75]
    """
    check_positive(strong_convexity=strong_convexity)

    def rate(rounds: Array, variation: Array) -> Array:
        return 2 / (strong_convexity * (rounds + 1).astype(variation.dtype))

    return _optimistic(rate, mirror)
