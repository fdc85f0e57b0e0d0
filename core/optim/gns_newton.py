"""Newton's method with approximate Hessians, regularized by the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..curvature import hvp
from ..curvature.spectra import tridiagonalize, unflatten_like
from ..curvature.traces import flat_matvec
from ..curvature.trees import Split, is_floating
from ..numerics import check, check_count, check_positive, check_range, safe_divide


class LocalOracle(NamedTuple):
    """A loss around the current parameters, as `local_oracle` returns it.

    Attributes:
      value_and_grad: from a step to the loss [] and the gradient after it.
      product: from a vector to its product with the curvature before it.
    """

    value_and_grad: Callable[[Any], tuple[Array, Any]]
    product: Callable[[Any], Any]


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def local_oracle(
    fun: Callable[..., Any],
    params: Any,
    *args: Any,
    product: Callable[..., Any] | None = None,
) -> LocalOracle:
    """What a Newton method asks of a loss: values and gradients near by, and curvature here.

        value_and_grad(h) = f(p + h), grad f(p + h);   product(v) = H v

    It holds all the parameters, so that a transformation inside `optax.masked` or
    `optax.partition`, which sees some of them, moves those and holds the others still.

    Args:
      fun: `fun(params, *args) -> loss []`.
      params: the parameters p, a tree of arrays [...].
      *args: further arguments of `fun`, such as the batch.
      product: `product(params, vector, *args)`, the curvature: `papyrax.curvature.hvp(fun)` by
        default, or `ggn_vp(...)`, `fisher_vp(...)`, `empirical_fisher_vp(...)` or one's own.

    Returns:
      A `LocalOracle`: two functions of trees with the shapes [...] of `params`.

    Raises:
      ValueError: if `fun` or `product` is not callable.

    Source: Gradient-Normalized Smoothness for Optimization with Approximate Hessians,
    arXiv 2506.13710, the oracle of algorithm 1.

    >>> oracle = local_oracle(lambda p: jnp.sum(p**3), jnp.array([1.0, 2.0]))
    >>> oracle.product(jnp.ones(2)).tolist()
    [6.0, 12.0]
    >>> value, grad = oracle.value_and_grad(jnp.array([0.0, 1.0]))
    >>> float(value), grad.tolist()
    (28.0, [3.0, 27.0])
    """
    check(callable(fun), "fun", f"got {type(fun).__name__}, takes a function of the parameters")
    fits = product is None or callable(product)
    check(fits, "product", f"got {type(product).__name__}, takes None or a function")
    multiply = hvp(fun) if product is None else product
    whole = Split.of(params)

    def everywhere(step: Any) -> Any:
        """A step of all the parameters: none where it is masked."""
        zeros = lambda s, p: jax.tree.map(jnp.zeros_like, p) if _is_masked(s) else s  # noqa: E731
        return jax.tree.map(zeros, step, params, is_leaf=_is_masked)

    def seen(like: Any, tree: Any) -> Any:
        keep = lambda s, x: s if _is_masked(s) else x  # noqa: E731
        return jax.tree.map(keep, like, tree, is_leaf=_is_masked)

    def value_and_grad(step: Any) -> tuple[Array, Any]:
        steps = whole.match("step", everywhere(step))
        moved = [p + s for p, s in zip(whole.floats, steps)]
        value, grads = jax.value_and_grad(lambda x: fun(whole.join(x), *args))(moved)
        return value, seen(step, whole.fill(grads))

    def curve(vector: Any) -> Any:
        return seen(vector, multiply(params, everywhere(vector), *args))

    return LocalOracle(value_and_grad, curve)


def resolve_oracle(
    oracle: LocalOracle | None, obj_fn: Callable[[Any], Any] | None, params: Any
) -> LocalOracle:
    """The loss around the parameters, whichever way it came."""
    if oracle is not None:
        return oracle
    leaves = jax.tree.leaves(params, is_leaf=_is_masked)
    fits = obj_fn is not None and bool(leaves) and not any(map(_is_masked, leaves))
    takes = "takes a local_oracle(loss, params, ...), or obj_fn= and all parameters"
    check(fits, "oracle", f"got None, {takes}")
    assert obj_fn is not None
    return local_oracle(obj_fn, params)


class GnsNewtonState(NamedTuple):
    """State of `scale_by_gns_newton`.

    Attributes:
      count: number of updates so far [].
      gamma: the estimate of the gradient-normalized smoothness, a length [].
      trials: how many steps the last update tried, and how many gradients it took [].
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # tuples have a method of that name
    gamma: Float[Array, ""]
    trials: Int[Array, ""]


def scale_by_gns_newton(
    gamma: Any = 1.0,
    gamma_min: Any = 1e-9,
    eps: Any = 1e-8,
    *,
    order: int = 32,
    max_search: int = 40,
) -> optax.GradientTransformationExtraArgs:
    """Solve for a Newton step whose regularization is the gradient's norm over a learned length.

        update = (H + lambda I)^-1 g,   lambda = |g| / (gamma + eps)
        accepted if f(p) - f(p - update) >= |grad f(p - update)|^2 / (8 lambda)
        gamma <- max(2 gamma, gamma_min) when accepted, gamma / 2 and another trial otherwise

    so that the update is never longer than gamma. H is any approximation of the Hessian; gamma is
    found by the search and needs no tuning. H = 0 is normalized gradient descent.

    The loss comes as `update(..., oracle=papyrax.optim.local_oracle(loss, params, batch,
    product=...))`, with the curvature in it, or as `update(..., obj_fn=)` with its exact Hessian
    (not inside `optax.masked`).

    Systems are solved in the Krylov space of the gradient, by `order` Lanczos steps with full
    reorthogonalization: what as many steps of conjugate gradients give, but all trials share the
    products with H, and with an order of at least the number of parameters the solution is exact.
    Memory: `order` vectors. Negative curvature there is taken for zero. Every trial is one value
    and gradient, in a `lax.while_loop`. The decrease is granted the rounding of the loss, without
    which gamma would collapse near a minimum.

    Args:
      gamma: the first length.
      gamma_min: least length after an accepted step.
      eps: added to gamma in lambda.
      order: number of Lanczos steps; no more than the parameters are used.
      max_search: most trials of an update. If none is accepted the last one is used where it lowers
        the loss (the authors' code uses it always), and there is no step where it does not, nor
        where loss or gradient is not finite; gamma then stays.

    Returns:
      A `GradientTransformationExtraArgs`; its updates are to be subtracted.

    Raises:
      ValueError: naming the argument that is out of range, or `oracle` where there is no loss.

    Source: Gradient-Normalized Smoothness for Optimization with Approximate Hessians,
    arXiv 2506.13710, algorithm 1; epfml/grad-norm-smooth src/methods.py (dense Cholesky factors;
    there an indefinite matrix ends the search).

    >>> loss = lambda p: jnp.sum(jnp.array([1.0, 100.0]) * p**2)
    >>> tx, params = scale_by_gns_newton(gamma=1e6), jnp.array([3.0, -2.0])
    >>> updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, obj_fn=loss)
    >>> np.abs(np.asarray(params - updates, float)).round(2).tolist()
    [0.0, 0.0]
    """
    check_positive(gamma=gamma)
    check_positive(gamma_min=gamma_min)
    check_range("eps", eps, 0)
    check_count(order=order, max_search=max_search)

    def init(params: Any) -> GnsNewtonState:
        floats = [p for p in jax.tree.leaves(params) if is_floating(p)]
        dtype = jnp.result_type(jnp.float32, *floats)
        zero = jnp.zeros((), jnp.int32)
        state = GnsNewtonState(zero, jnp.asarray(gamma, dtype), zero)
        return jax.tree.map(jnp.copy, state)  # no buffer is shared: all may be donated

    def update(
        updates: Any,
        state: GnsNewtonState,
        params: Any = None,
        *,
        oracle: LocalOracle | None = None,
        obj_fn: Callable[[Any], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[Any, GnsNewtonState]:
        del extra_args  # they are for other transformations
        if not any(is_floating(g) and g.size for g in jax.tree.leaves(updates)):
            return updates, state._replace(count=optax.safe_increment(state.count))
        local = resolve_oracle(oracle, obj_fn, params)
        apply, dim, dtype = flat_matvec(local.product, updates)
        unflatten = unflatten_like(updates)

        def ravel(tree: Any) -> Float[Array, "dim"]:
            floats = Split.of(tree, "updates").floats
            return jnp.concatenate([x.reshape(-1).astype(dtype) for x in floats])

        gradient = ravel(updates)
        norm = jnp.linalg.norm(gradient)
        tridiagonal, basis = tridiagonalize(apply, gradient, min(order, dim))
        values, vectors = jnp.linalg.eigh(tridiagonal)
        # H is meant to be positive semi-definite; its nearest such matrix in the Krylov space.
        values = jnp.maximum(values, 0)
        weights = norm * vectors[0]
        start, _ = local.value_and_grad(jax.tree.map(jnp.zeros_like, updates))

        def solve(gamma: Array) -> tuple[Array, Float[Array, "dim"]]:
            ridge = norm / (gamma + eps)
            inner = vectors @ safe_divide(weights, values + ridge)
            return ridge, jnp.matmul(inner, basis, precision=jax.lax.Precision.HIGHEST)

        def searching(carry: Any) -> Array:
            _, trials, accepted, _ = carry
            return ~accepted & (trials < max_search)

        def search(carry: Any) -> Any:
            length, trials, _, _ = carry
            ridge, step = solve(length)
            value, grad = local.value_and_grad(unflatten(-step))
            # Near a minimum a loss changes by less than its rounding, which must not end the search
            # with a length of nothing.
            rounding = 4 * jnp.finfo(value.dtype).eps * jnp.abs(start)
            gain = (start - value + rounding).astype(dtype)
            accepted = 8 * ridge * gain >= jnp.sum(jnp.square(ravel(grad)))
            # Not beyond the root of the largest number, so that products of lengths are finite.
            longest = jnp.sqrt(jnp.finfo(dtype).max)
            longer = jnp.clip(2 * length, gamma_min, longest)
            usable = accepted | (value <= start)
            step = jnp.where(usable, step, 0)
            return jnp.where(accepted, longer, length / 2), trials + 1, accepted, step

        # A loss or a gradient that is not finite says nothing about the length.
        lost = ~jnp.isfinite(norm) | ~jnp.isfinite(start)
        none = jnp.zeros((), jnp.int32)
        first = (state.gamma.astype(dtype), none, lost, jnp.zeros_like(gradient))
        length, trials, _, step = jax.lax.while_loop(searching, search, first)
        count = optax.safe_increment(state.count)
        return unflatten(step), GnsNewtonState(count, length.astype(state.gamma.dtype), trials)

    return optax.GradientTransformationExtraArgs(init, update)


def gns_newton(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    gamma: Any = 1.0,
    gamma_min: Any = 1e-9,
    eps: Any = 1e-8,
    *,
    order: int = 32,
    max_search: int = 40,
) -> optax.GradientTransformationExtraArgs:
    """Gradient-regularized Newton with an approximate Hessian: no rate to tune, global convergence.

        p <- p - learning_rate * (H + |g| / gamma I)^-1 g

    with the H, the gamma and the search of `scale_by_gns_newton`:

        oracle = local_oracle(loss, params, batch, product=papyrax.curvature.fisher_vp(logits))
        updates, state = tx.update(grads, state, params, oracle=oracle)

    Full batches, or batches large enough that a decrease means something. On convex problems the
    rate adapts to the smoothness there is: linear for logistic and softmax regression.

    Args:
      learning_rate: share of the step that is taken, 1 in the paper; less voids the decrease that
        the search has checked.
      gamma: the first length.
      gamma_min: least length after an accepted step.
      eps: added to gamma in the regularization.
      order: number of Lanczos steps of a solution.
      max_search: most trials of an update.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `oracle=` or `obj_fn=`.

    Raises:
      ValueError: naming the argument that is out of range, or `oracle` where there is no loss.

    Source: Gradient-Normalized Smoothness for Optimization with Approximate Hessians,
    arXiv 2506.13710, algorithm 1; epfml/grad-norm-smooth src/methods.py (`grad_norm_smooth`), whose
    trajectory is that here.

    >>> loss = lambda p: jnp.sum(jnp.array([1.0, 100.0]) * p**2)
    >>> tx, params = gns_newton(), jnp.array([3.0, -2.0])
    >>> state = tx.init(params)
    >>> for _ in range(6):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
    ...     params = optax.apply_updates(params, updates)
    >>> bool(loss(params) < 1e-3)
    True
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    rule = scale_by_gns_newton(gamma, gamma_min, eps, order=order, max_search=max_search)
    return optax.with_extra_args_support(
        optax.chain(rule, optax.scale_by_learning_rate(learning_rate))
    )
