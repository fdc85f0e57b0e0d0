"""Bilevel optimization: an upper loss of the minimizer of a lower one.

    min_x f(x, y*(x)),   y*(x) = argmin_y g(x, y)

Its gradient in `x`, the hypergradient, needs the solution z of one linear system in the Hessian of
the lower loss, and only products with that Hessian.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ..curvature import hvp
from ..curvature.trees import Split, dot
from ..numerics import (
    check,
    check_count,
    check_positive,
    check_range,
    safe_divide,
)
from .online import tree_norm

Solver = Literal["cg", "neumann"]
Loss = Callable[..., Any]


def _along(step: Any, tree: Any, direction: Any) -> Any:
    """`tree + step * direction`, in the dtypes of `tree`."""
    return jax.tree.map(lambda p, d: (p + step * d).astype(p.dtype), tree, direction)


def adjoint_hypergradient(
    upper: Loss, lower: Loss, x: Any, y: Any, adjoint: Any, *args: Any
) -> Any:
    """The hypergradient for a given solution of the linear system, exact or not.

        grad_x f(x, y) - (d/dx grad_y g(x, y))' z

    One gradient of `f` and one product with the cross derivative. It is the hypergradient where
    `y = y*(x)` and `z = (d2g / dy2)^-1 grad_y f`, and its error is proportional to theirs.

    Args:
      upper: f, `upper(x, y, *args) -> loss []`.
      lower: g, `lower(x, y, *args) -> loss []`.
      x: the upper variable, a tree of arrays [...].
      y: the lower variable, a tree of arrays [...].
      adjoint: z, of the structure of `y`.
      *args: further arguments of both losses.

    Returns:
      The hypergradient, of the structure of `x`.

    Raises:
      ValueError: if `adjoint` does not fit `y`.

    Source: Bilevel Optimization under Unbounded Smoothness, arXiv 2401.09587, section 3 (the
    hypergradient and its estimator); Approximation Methods for Bilevel Programming,
    arXiv 1802.02246.

    >>> upper = lambda x, y: jnp.sum(y)
    >>> lower = lambda x, y: jnp.sum((y - x**2) ** 2) / 2
    >>> x = jnp.array([3.0])
    >>> adjoint_hypergradient(upper, lower, x, x**2, jnp.ones(1)).tolist()
    [6.0]
    """
    split = Split.of(y, "y")
    z = jax.lax.stop_gradient(split.match("adjoint", adjoint))

    def gap(x: Any) -> Array:
        slope = jax.grad(lambda leaves: lower(x, split.join(leaves), *args))(split.floats)
        return upper(x, y, *args) - dot(slope, z)

    parts = Split.of(x, "x")
    return parts.fill(jax.grad(lambda leaves: gap(parts.join(leaves)))(parts.floats))


def hypergradient(
    upper: Loss,
    lower: Loss,
    x: Any,
    y: Any,
    *args: Any,
    solver: Solver = "cg",
    iterations: int = 20,
    step_size: Any = 0.1,
    damping: Any = 0.0,
) -> Any:
    """The gradient of `f(x, y*(x))` by implicit differentiation, at an approximate minimizer `y`.

        grad_x f - (d/dx grad_y g)' z,   (d2g / dy2 + damping I) z = grad_y f

        "cg":       conjugate gradients
        "neumann":  z = s sum_{k < K} (I - s d2g/dy2)^k grad_y f,   s below 2 / largest eigenvalue

    Neither forms a matrix. An iteration is a Hessian-vector product of the lower loss. A constant
    to derivatives.

    Args:
      upper: f, `upper(x, y, *args) -> loss []`.
      lower: g, `lower(x, y, *args) -> loss []`, strongly convex in `y`.
      x: the upper variable, a tree of arrays [...].
      y: the lower variable, near the minimizer, a tree of arrays [...].
      *args: further arguments of both losses.
      solver: how the linear system is solved.
      iterations: at most so many for "cg", the K of "neumann".
      step_size: s of "neumann".
      damping: added to the Hessian's diagonal.

    Returns:
      The hypergradient, of the structure of `x`.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: Optimizing Millions of Hyperparameters by Implicit Differentiation, arXiv 1911.02590,
    sections 2 and 3 (implicit function theorem, Neumann series); Hyperparameter optimization with
    approximate gradient, arXiv 1602.02355 (conjugate gradients).

    >>> upper = lambda x, y: jnp.sum(y)
    >>> lower = lambda x, y: jnp.sum(2 * (y - x**2) ** 2)
    >>> x = jnp.array([3.0])
    >>> hypergradient(upper, lower, x, x**2).tolist()
    [6.0]
    """
    check(solver in ("cg", "neumann"), "solver", f"got {solver!r}, takes 'cg' or 'neumann'")
    check_count(iterations=iterations)
    check_positive(step_size=step_size)
    check_range("damping", damping, 0)
    x, y = jax.lax.stop_gradient((x, y))
    split = Split.of(y, "y")
    slope = jax.grad(lambda leaves: upper(x, split.join(leaves), *args))(split.floats)
    curve = hvp(lambda leaves: lower(x, split.join(leaves), *args))

    def product(v: Any) -> Any:
        return _along(damping, curve(split.floats, v), v)

    if solver == "cg":
        eps = float(jnp.finfo(jnp.result_type(*slope)).eps)
        z, _ = jax.scipy.sparse.linalg.cg(product, slope, tol=eps, maxiter=iterations)
        # Conjugate gradients answer a right-hand side that is not finite by zeros: hand it on.
        z = jax.tree.map(lambda v, b: v + 0 * b, z, slope)
    else:

        def term(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            power, total = carry
            power = _along(-step_size, power, product(power))
            return (power, _along(1, total, power)), None

        carry = (slope, slope)
        (_, total), _ = jax.lax.scan(term, carry, None, length=iterations - 1)
        z = jax.tree.map(lambda v: (step_size * v).astype(v.dtype), total)
    found = adjoint_hypergradient(upper, lower, x, y, split.fill(z), *args)
    return jax.lax.stop_gradient(found)


class BoRepState(NamedTuple):
    """Where BO-REP stands.

    Attributes:
      x: the upper variable.
      y: the lower variable.
      adjoint: z, the running solution of the linear system, as `y`.
      momentum: m, the running mean of hypergradients, as `x`.
      count: steps taken [].
    """

    x: Any
    y: Any
    adjoint: Any
    momentum: Any
    count: Int[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name


class BoRep(NamedTuple):
    """The functions of `bo_rep`.

    Attributes:
      init: `(x, y) -> BoRepState`.
      refine: `(state, key, epochs=3, steps=25) -> BoRepState`, a better `y` for the first `x`.
      step: `(state, key) -> BoRepState`.
    """

    init: Callable[..., BoRepState]
    refine: Callable[..., BoRepState]
    step: Callable[..., BoRepState]


def bo_rep(
    upper: Loss,
    lower: Loss,
    *,
    learning_rate: Any,
    lower_learning_rate: Any,
    adjoint_learning_rate: Any = 1e-2,
    momentum: Any = 0.9,
    interval: int = 2,
    lower_steps: int = 10,
    radius: Any = None,
    normalize: bool = True,
) -> BoRep:
    """BO-REP: bilevel optimization where the upper loss may be arbitrarily steep.

        once:             y <- epochs of SGD on g(x_0, .)                  (refinement)
        every I steps:    y <- some steps of SGD on g(x, .)                (periodic updates)
        z <- z - nu (d2g/dy2 z - grad_y f)
        m <- beta m + (1 - beta) (grad_x f - (d/dx grad_y g)' z)
        x <- x - eta m / |m|

    A step of x has length eta however large the gradient is; that the lower variable is right from
    the start, and moves seldom, keeps the bias of m under control. One step costs a Hessian-vector
    product, two gradients and a cross product beside the lower steps, each on a batch of its own.

    Args:
      upper: f, `upper(x, y, key) -> loss []`, on the batch that it draws by the key.
      lower: g, `lower(x, y, key) -> loss []`, the same, strongly convex in `y`.
      learning_rate: eta, a number or a schedule of the count of steps; x comes no nearer to a
        stationary point than about that.
      lower_learning_rate: of SGD on `y`.
      adjoint_learning_rate: nu, below 2 over the lower loss's largest curvature.
      momentum: beta.
      interval: I.
      lower_steps: steps of SGD each time.
      radius: keep each update of `y` in the ball of this radius around where it began, as the
        theory does; None for no bound, as the released code.
      normalize: divide by |m|; where not, x moves by eta m.

    Returns:
      A `BoRep` of the functions `init`, `refine` and `step`. `refine` takes `steps` steps in its
      first epoch, and in each further one twice as many at half the rate, from the last one's mean.

    Raises:
      ValueError: naming the argument that is out of range.

    Source: Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence
    Analysis, arXiv 2401.09587, Algorithm 1; MingruiLiu-ML-Lab/
    Bilevel-Optimization-under-Unbounded-Smoothness data_cleaning/bo_rep.py, whose defaults these
    are. The code takes the Hessian at the old y, and its lower gradients add up within a loop;
    here both are as in the paper. Where y rests, x and z are the code's.

    >>> upper = lambda x, y, key: jnp.sum(jnp.cosh(y - 1))
    >>> lower = lambda x, y, key: jnp.sum((y - 2 * x) ** 2)
    >>> rates = {"learning_rate": 0.05, "lower_learning_rate": 0.2, "adjoint_learning_rate": 0.2}
    >>> solver = bo_rep(upper, lower, **rates)
    >>> state = solver.refine(solver.init(jnp.array(4.0), jnp.array(0.0)), jax.random.key(0))
    >>> step = jax.jit(solver.step)
    >>> for key in jax.random.split(jax.random.key(1), 120):
    ...     state = step(state, key)
    >>> abs(float(state.x) - 0.5) < 0.1
    True
    """
    if not callable(learning_rate):
        check_positive(learning_rate=learning_rate)
    check_positive(
        lower_learning_rate=lower_learning_rate, adjoint_learning_rate=adjoint_learning_rate
    )
    check_range("momentum", momentum, 0, 1, open_high=True)
    check_count(interval=interval, lower_steps=lower_steps)
    check_range("radius", radius, 0)

    def descend(x: Any, start: Any, key: Array, rate: Any, steps: Any) -> tuple[Any, Any]:
        """The last and the mean iterate of SGD on g(x, .), within a ball around the start."""

        def one(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            y, mean = carry
            grads = jax.grad(lower, 1)(x, y, jax.random.fold_in(key, i))
            y = _along(-rate, y, grads)
            if radius is not None:
                moved = jax.tree.map(jnp.subtract, y, start)
                length = tree_norm(moved)
                shrink = jnp.minimum(1, safe_divide(jnp.asarray(radius, length.dtype), length, 1))
                y = _along(shrink, start, moved)
            return y, jax.tree.map(lambda m, v: m + (v - m) / (i + 1), mean, y)

        return jax.lax.fori_loop(0, steps, one, (start, start))

    def init(x: Any, y: Any) -> BoRepState:
        x, y = jax.tree.map(jnp.asarray, (x, y))
        adjoint, mean = jax.tree.map(jnp.zeros_like, (y, x))
        return BoRepState(x, y, adjoint, mean, jnp.zeros((), jnp.int32))

    def refine(state: BoRepState, key: Array, epochs: int = 3, steps: int = 25) -> BoRepState:
        check_count(epochs=epochs, steps=steps)

        def epoch(i: Array, y: Any) -> Any:
            rate = lower_learning_rate * 0.5**i
            return descend(state.x, y, jax.random.fold_in(key, i), rate, steps * 2**i)[1]

        return state._replace(y=jax.lax.fori_loop(0, epochs, epoch, state.y))

    def step(state: BoRepState, key: Array) -> BoRepState:
        inner, first, second, third = jax.random.split(key, 4)
        x = state.x
        y = jax.lax.cond(
            state.count % interval == 0,
            lambda y: descend(x, y, inner, lower_learning_rate, lower_steps)[0],
            lambda y: y,
            state.y,
        )
        slope = jax.grad(lambda y: upper(x, y, first))(y)
        product = hvp(lambda y: lower(x, y, second))(y, state.adjoint)
        residual = jax.tree.map(jnp.subtract, product, slope)
        z = _along(-adjoint_learning_rate, state.adjoint, residual)
        grads = adjoint_hypergradient(
            lambda x, y: upper(x, y, first), lambda x, y: lower(x, y, third), x, y, z
        )
        mean = jax.tree.map(
            lambda m, g: (momentum * m + (1 - momentum) * g).astype(m.dtype), state.momentum, grads
        )
        eta = learning_rate(state.count) if callable(learning_rate) else learning_rate
        if normalize:
            eta = eta * safe_divide(jnp.ones(()), tree_norm(mean))
        return BoRepState(_along(-eta, x, mean), y, z, mean, state.count + 1)

    return BoRep(init, refine, step)
