"""Products of a vector with the Hessian, the Gauss-Newton and the Fisher matrix of a loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .likelihoods import Likelihood, check_likelihood, mean_log_partition, row_weights
from .trees import Split


def value_grad_and_hvp(fun: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """Value, gradient and Hessian-vector product of a loss in one fused pass.

        (f, g, Hv) = jvp(value_and_grad(f))(p; v)

    Forward over reverse: the product shares the forward and backward pass with the gradient, and
    the three together cost at most three gradients in operations and about two in memory.

    Args:
      fun: `fun(params, *args, **kwargs) -> loss []`, or `(loss [], aux)` with `has_aux`.
      has_aux: whether `fun` returns an auxiliary output too.

    Returns:
      A function `(params, vector, *args, **kwargs) -> (value [], gradient, product)`, where the
      value is `(value, aux)` with `has_aux`, and `vector`, `gradient` and `product` have the
      structure and shapes [...] of `params`. Integer leaves are constants: zero gradient.

    Raises:
      ValueError: if `vector` does not fit `params`.

    Source: Fast Exact Multiplication by the Hessian, Pearlmutter 1994; no arXiv number.

    >>> f = value_grad_and_hvp(lambda p, x: jnp.sum(x * p**3))
    >>> [y.tolist() for y in f(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), 2.0)]
    [18.0, [6.0, 24.0], [12.0, 0.0]]
    """

    def product(params: Any, vector: Any, *args: Any, **kwargs: Any) -> Any:
        split = Split.of(params)
        tangent = split.match("vector", vector)
        bound = split.bind(fun, has_aux, args, kwargs)

        def value_and_grad(floats: Any) -> Any:
            (value, aux), grad = jax.value_and_grad(bound, has_aux=True)(floats)
            return (value, grad), aux

        (value, grad), (_, hv), aux = jax.jvp(
            value_and_grad, (split.floats,), (tangent,), has_aux=True
        )
        return (value, aux) if has_aux else value, split.fill(grad), split.fill(hv)

    return product


def hvp(fun: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """Hessian-vector product of a loss.

        Hv = d/dt grad f(p + t v) at t = 0

    Args:
      fun: `fun(params, *args, **kwargs) -> loss []`, or `(loss [], aux)` with `has_aux`.
      has_aux: whether `fun` returns an auxiliary output, which is dropped.

    Returns:
      A function `(params, vector, *args, **kwargs) -> product` of trees with the shapes [...] of
      `params`. Where the gradient is needed too, `value_grad_and_hvp` gives it in the same pass.

    Raises:
      ValueError: if `vector` does not fit `params`.

    Source: Fast Exact Multiplication by the Hessian, Pearlmutter 1994; no arXiv number.

    >>> hvp(lambda p: jnp.prod(p))(jnp.array([2.0, 3.0]), jnp.array([1.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    fused = value_grad_and_hvp(fun, has_aux=has_aux)
    return lambda params, vector, *args, **kwargs: fused(params, vector, *args, **kwargs)[2]


class QuadraticForm(NamedTuple):
    """Value, slope and curvature of a function along a direction.

    Attributes:
      value: f(p) [].
      slope: v' grad f(p) [].
      curvature: v' H v [].
    """

    value: Float[Array, ""]
    slope: Float[Array, ""]
    curvature: Float[Array, ""]


def quadratic_form(fun: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """The second-order Taylor coefficients of a loss along a direction, without any gradient.

        f(p + t v) = f(p) + t v'g + t^2/2 v'Hv + ...

    Forward over forward: no backward pass and nothing stored for one, so that it costs about five
    forward passes in operations and the memory of one. The cheap way to traces and sharpness.

    Args:
      fun: `fun(params, *args, **kwargs) -> loss []`, or `(loss [], aux)` with `has_aux`.
      has_aux: whether `fun` returns an auxiliary output, which is dropped.

    Returns:
      A function `(params, vector, *args, **kwargs) -> QuadraticForm` of three scalars [].

    Raises:
      ValueError: if `vector` does not fit `params`.

    Source: Fast Exact Multiplication by the Hessian, Pearlmutter 1994; no arXiv number.

    >>> q = quadratic_form(lambda p: jnp.sum(p**3))(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]))
    >>> [float(x) for x in q]
    [9.0, 12.0, 12.0]
    """

    def form(params: Any, vector: Any, *args: Any, **kwargs: Any) -> QuadraticForm:
        split = Split.of(params)
        v = (split.match("vector", vector),)
        bound = split.bind(fun, has_aux, args, kwargs)

        def value_and_slope(floats: Any) -> Any:
            return jax.jvp(lambda x: bound(x)[0], (floats,), v)

        (value, slope), (_, curvature) = jax.jvp(value_and_slope, (split.floats,), v)
        return QuadraticForm(value, slope, curvature)

    return form


def ggn_vp(fun: Callable[..., Any], loss: Callable[..., Any]) -> Callable[..., Any]:
    """Product of a vector with the generalized Gauss-Newton matrix.

        G v = J' (d2 loss / d f2) J v,   J = d f / d p

    The Hessian of `loss(fun(p))` without the curvature of `fun`; positive semi-definite for a loss
    that is convex in the outputs.

    Args:
      fun: `fun(params, *args) -> outputs`, any tree of arrays [...].
      loss: `loss(outputs, *args) -> loss []`, with the same `args`.

    Returns:
      A function `(params, vector, *args) -> product` of trees with the shapes [...] of `params`.

    Raises:
      ValueError: if `vector` does not fit `params`.

    Source: Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent, Schraudolph
    2002; no arXiv number.

    >>> square = lambda f, x: jnp.sum(f**2) / 2
    >>> gv = ggn_vp(lambda p, x: x @ p, square)
    >>> gv(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [10.0, 14.0]
    """

    def product(params: Any, vector: Any, *args: Any) -> Any:
        split = Split.of(params)
        tangent = split.match("vector", vector)
        # Linearized once: the forward pass is shared by J and its transpose.
        outputs, forward = jax.linearize(lambda x: fun(split.join(x), *args), split.floats)
        hessian_j = jax.jvp(jax.grad(lambda f: loss(f, *args)), (outputs,), (forward(tangent),))[1]
        (gv,) = jax.linear_transpose(forward, split.floats)(hessian_j)
        return split.fill(gv)

    return product


def fisher_vp(
    fun: Callable[..., Any],
    *,
    likelihood: Likelihood = "categorical",
    where: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Product of a vector with the (true) Fisher matrix of a model, without sampling labels.

        F v = 1/N sum_i J_i' Cov(y | f_i) J_i v

    The outputs f are the natural parameters of an exponential family with log-partition A, whose
    Fisher matrix is the Hessian of A; F is then the Gauss-Newton matrix of the mean of A.

    Args:
      fun: `fun(params, *args) -> outputs [..., outputs]`; each row is one example (or token).
      likelihood: "categorical" (logits), "bernoulli" (independent logits) or "gaussian" (means of
        unit variance).
      where: `where(*args) -> mask [...]` of the rows that count; all by default.

    Returns:
      A function `(params, vector, *args) -> product` of trees with the shapes [...] of `params`.

    Raises:
      ValueError: if `vector` does not fit `params`, or `likelihood` is unknown.

    Source: New Insights and Perspectives on the Natural Gradient Method, arXiv 1412.1193,
    sections 5 and 8.

    >>> fv = fisher_vp(lambda p, x: x * p)
    >>> fv(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.ones((3, 1))).tolist()
    [0.25, -0.25]
    """
    check_likelihood(likelihood)

    def loss(outputs: Any, *args: Any) -> Any:
        weights = row_weights(outputs, where(*args) if where else None)
        return mean_log_partition(likelihood, outputs, weights)

    return ggn_vp(fun, loss)


def empirical_fisher_vp(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Product of a vector with the empirical Fisher matrix, without per-example gradients.

        F v = 1/N sum_i g_i (g_i' v) = 1/N J' (J v),   J = rows g_i'

    Args:
      fun: `fun(params, *args) -> losses [...]`, one value per example.

    Returns:
      A function `(params, vector, *args) -> product` of trees with the shapes [...] of `params`.

    Raises:
      ValueError: if `vector` does not fit `params`.

    Source: Limitations of the Empirical Fisher Approximation for Natural Gradient Descent,
    arXiv 1905.12558, equation 3 (there a sum; here the mean over examples).

    >>> losses = lambda p, x: x @ p
    >>> fv = empirical_fisher_vp(losses)
    >>> fv(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [5.0, 7.0]
    """
    # The Gauss-Newton matrix of half the mean square has the identity over N in the middle.
    return ggn_vp(fun, lambda losses, *args: 0.5 * jnp.mean(jnp.square(losses)))
