"""Optimistic online Newton steps: the geometry of exp-concave losses, learned from gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..numerics import accumulation_dtype, check, check_positive, safe_norm

BISECTIONS = 60  # halve the range of the multiplier below the rounding of float64


class OptimisticNewtonState(NamedTuple):
    """State of `optimistic_online_newton`.

    Attributes:
      point: the point that no hint has moved, all parameters in a row [dim].
      hint: the gradient that the next round is expected to bring [dim].
      gram: the sum of outer products of gradients [dim, dim].
      rounds: rounds that are over [].
    """

    point: Float[Array, "dim"]
    hint: Float[Array, "dim"]
    gram: Float[Array, "dim dim"]
    rounds: Array


def _flat(tree: Any) -> Array:
    vector, _ = ravel_pytree(tree)
    return vector.astype(accumulation_dtype(vector))


def _newton_step(
    values: Array, vectors: Array, point: Array, gradient: Array, radius: Any
) -> Array:
    """`argmin_{|x| <= R} <g, x> + (x - z)' H (x - z) / 2` for H given by its eigenpairs.

    Inside the ball it is `z - H^-1 g`; on its boundary `(H + mu I)^-1 (H z - g)` for the mu that
    brings it there, found by bisection, since its norm falls in mu.
    """
    target = values * (vectors.T @ point) - vectors.T @ gradient

    def at(mu: Any) -> Array:
        return target / (values + mu)

    if radius is None:
        return vectors @ at(0)
    high = safe_norm(target) / radius  # there the norm is at most the radius

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        outside = safe_norm(at(middle)) > radius
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    _, mu = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(high), high))
    return vectors @ at(jnp.where(safe_norm(at(0)) > radius, mu, 0))


def optimistic_online_newton(
    diameter: Any, gradient_bound: Any, exp_concavity: Any, *, radius: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Optimistic online mirror descent for exp-concave losses: steps in the metric of gradients.

        play x_t = step_t(z_t, M_t), see g_t = grad f_t(x_t),   z_{t+1} = step_t(z_t, g_t)
        step_t(z, g) = argmin_{|x| <= R} <g, x> + |x - z|^2_{H_t} / 2,   M_t = g_{t-1}
        H_t = (1 + b G^2 / 2) I + b / 2 sum_{s<t} g_s g_s',   b = min(1 / (4 G D), alpha) / 2

    Regret grows as the dimension times the logarithm of the gradients' variation. A loss is
    alpha-exp-concave if `exp(-alpha f)` is concave: squared and logistic losses over a bounded
    domain are, and the logarithm of a portfolio's return. A round takes the eigenpairs of a matrix
    of all parameters, so that there may be hundreds of them, not millions.

    Args:
      diameter: D, the largest distance of two points of the domain.
      gradient_bound: G, of the norm of gradients.
      exp_concavity: alpha.
      radius: R, of the ball about the origin that is the domain; None for the whole space.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `params` and take `hint=`, a tree of
      gradients [...] expected next, in place of the last.

    Raises:
      ValueError: naming the argument that is out of range, or `params` if they are missing.

    Source: Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
    Optimization, arXiv 2302.04552, the theorem on exp-concave losses.

    >>> tx = optimistic_online_newton(2.0, 1.0, 1.0)
    >>> params, grads = jnp.zeros(1), jnp.ones(1)
    >>> updates, state = tx.update(grads, tx.init(params), params)
    >>> np.asarray(updates, float).round(4)  # b = 1 / 16: -1 / (1 + b / 2) - 1 / (1 + b)
    array([-1.9109])
    """
    check_positive(
        diameter=diameter,
        gradient_bound=gradient_bound,
        exp_concavity=exp_concavity,
        radius=1 if radius is None else radius,
    )
    beta = jnp.minimum(1 / (4 * gradient_bound * diameter), exp_concavity) / 2

    def init(params: Any) -> OptimisticNewtonState:
        point = jnp.copy(_flat(params))  # a buffer of its own, which may be donated
        gram = jnp.zeros((point.size, point.size), point.dtype)
        return OptimisticNewtonState(point, jnp.zeros_like(point), gram, jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: OptimisticNewtonState,
        params: Any = None,
        *,
        hint: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, OptimisticNewtonState]:
        del extra_args  # they are for other transformations
        check(params is not None, "params", "got None, takes the parameters of this round")
        if not jax.tree.leaves(updates):
            return updates, state
        g = _flat(updates).astype(state.point.dtype)

        def step(gram: Array, point: Array, gradient: Array) -> Array:
            values, vectors = jnp.linalg.eigh(beta / 2 * gram)
            values = jnp.maximum(values, 0) + 1 + beta / 2 * gradient_bound**2
            return _newton_step(values, vectors, point, gradient, radius)

        point = step(state.gram, state.point, g)
        gram = state.gram + jnp.outer(g, g)
        expected = g if hint is None else _flat(hint).astype(g.dtype)
        moves = step(gram, point, expected) - _flat(params).astype(g.dtype)
        new = OptimisticNewtonState(point, expected, gram, state.rounds + 1)
        vector, unravel = ravel_pytree(updates)
        return unravel(moves.astype(vector.dtype)), new

    return optax.GradientTransformationExtraArgs(init, update)
