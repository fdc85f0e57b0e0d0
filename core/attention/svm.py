"""The hard-margin support vector machine that a trained attention layer converges to.

It lives with the attention operators, and not in `curvature`, because nothing in it is a derivative
of a loss: it says which weights `x_t^T W z` of a softmax select a token by the widest margin.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_integer,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_norm,
    upcast,
)

Norm = Literal["frobenius", "nuclear"]


def _check(tokens: Array, queries: Array, optimal: Array, mask: Array | None) -> None:
    check_floating(tokens=tokens)
    check_floating(queries=queries)
    check_integer(optimal=optimal)
    check_rank("tokens", tokens, 3)
    examples, count, _ = np.shape(tokens)
    check_shape("queries", queries, (examples, None), "[examples, query_dim]")
    check_shape("optimal", optimal, (examples,), "[examples], as tokens")
    if mask is not None:
        check_boolean(mask=mask)
        check_shape("mask", mask, (examples, count), "[examples, tokens], as tokens")


def _differences(tokens: Float[Array, "n T d"], optimal: Int[Array, "n"]) -> Float[Array, "n T d"]:
    """x_opt - x_t for every token."""
    return jnp.take_along_axis(tokens, optimal[:, None, None], axis=1) - tokens


def _in_units(
    differences: Float[Array, "m d"], queries: Float[Array, "m e"]
) -> tuple[Float[Array, "m d"], Float[Array, "m e"], Float[Array, ""]]:
    """Both factors of the constraints over their longest row, and the product of those lengths."""
    units = [
        jax.lax.stop_gradient(jnp.max(safe_norm(x), initial=0)) for x in (differences, queries)
    ]
    d, z = (x / jnp.where(u > 0, u, 1) for x, u in zip((differences, queries), units))
    return d, z, units[0] * units[1]


def _step_length(x: Float[Array, "m"], change: Float[Array, "m"]) -> Float[Array, ""]:
    """The longest step, at most one, that keeps every entry of x at or above zero."""
    return jnp.min(jnp.where(change < 0, -x / jnp.where(change < 0, change, -1), 1), initial=1.0)


def _multipliers(
    gram: Float[Array, "m m"], bound: Float[Array, "m"], iterations: int
) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
    """min_{a >= 0} a^T gram a / 2 - bound^T a: the multipliers a and slacks gram a - bound.

    Mehrotra's predictor and corrector on a (gram a - bound) = 0.
    """
    floor = jnp.finfo(gram.dtype).eps ** 2

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        a, s = carry
        factor = jax.scipy.linalg.cho_factor(gram + jnp.diag(s / a))
        infeasible = bound + s - gram @ a

        def newton(target: Array) -> tuple[Array, Array]:  # until a s = target
            change = jax.scipy.linalg.cho_solve(factor, infeasible + target / a - s)
            return change, target / a - s - s / a * change

        da, ds = newton(jnp.zeros_like(a))
        gap = jnp.mean(a * s)
        ahead = jnp.mean((a + _step_length(a, da) * da) * (s + _step_length(s, ds) * ds))
        da, ds = newton((ahead / gap) ** 3 * gap - da * ds)
        length = 0.99 * jnp.minimum(_step_length(a, da), _step_length(s, ds))
        return (jnp.maximum(a + length * da, floor), jnp.maximum(s + length * ds, floor)), None

    start = jnp.ones_like(bound)
    return jax.lax.scan(step, (start, start), None, length=iterations)[0]


def _frobenius(
    differences: Float[Array, "m d"],
    queries: Float[Array, "m e"],
    exists: Bool[Array, "m"],
    iterations: int,
) -> Float[Array, "d e"]:
    """The W of least Frobenius norm with difference^T W query >= 1 for all that exist."""
    d, z, unit = _in_units(differences, queries)
    gram = (d @ d.T) * (z @ z.T)
    # The softest of soft margins, so that the dual has a solution where no W separates.
    gram = gram + 100 * jnp.finfo(gram.dtype).eps * jnp.eye(len(gram), dtype=gram.dtype)
    # A constraint that does not exist asks for 0 >= -1.
    bound = jnp.where(exists, 1.0, -1.0).astype(gram.dtype)
    a, s = jax.lax.stop_gradient(_multipliers(jax.lax.stop_gradient(gram), bound, iterations))
    # One more Newton step from constants, which carries the derivatives: in the limit it is
    # gram_AA^{-1} 1 on the support A, as a function of gram.
    factor = jax.scipy.linalg.cho_factor(gram + jnp.diag(s / a))
    a = a + jax.scipy.linalg.cho_solve(factor, bound - gram @ a)
    a = jnp.where(exists, a, 0)
    return safe_divide(jnp.einsum("m,md,me->de", a, d, z), unit)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _nuclear(
    differences: Float[Array, "m d"],
    queries: Float[Array, "m e"],
    exists: Bool[Array, "m"],
    iterations: int,
) -> Float[Array, "d e"]:
    """As `_frobenius`, of least nuclear norm: a barrier method on the dual problem.

    max sum a over a >= 0 with |A| <= 1 in spectral norm, A = sum_k a_k d_k z_k^T. With barriers
    mu log a and mu log det(1 - A A^T), the gradient vanishes where W = 2 mu (1 - A A^T)^{-1} A has
    the margins 1 + mu / a.
    """
    d, z, unit = _in_units(jnp.where(exists[:, None], differences, 0), queries)
    eps = jnp.finfo(d.dtype).eps
    soft = eps**0.75  # as in `_frobenius`: keeps a finite where nothing separates
    last = float(eps**0.6)  # below it, 1 - A A^T loses the digits that W is made of
    identity = jnp.eye(d.shape[1], dtype=d.dtype)
    shorter = jnp.asarray([0, *(0.5**k for k in range(10))], d.dtype)

    def parts(a: Array) -> tuple[Array, Array]:
        matrix = jnp.einsum("m,md,me->de", a, d, z)
        return matrix, jnp.linalg.cholesky(identity - matrix @ matrix.T)

    def left_of(root: Array) -> Array:  # (1 - A A^T)^{-1}
        return jax.scipy.linalg.cho_solve((root, True), identity)

    def step(carry: tuple[Array, Array], _: None) -> tuple[Any, None]:
        a, mu = carry
        matrix, root = parts(a)
        left = left_of(root)
        middle = left @ matrix
        right = jnp.eye(z.shape[1], dtype=d.dtype) + matrix.T @ middle  # (1 - A^T A)^{-1}
        cross = d @ middle @ z.T
        # Of the barrier problem over mu, with a as the unit of its entries: they differ by orders.
        slope = a * jnp.where(exists, 2 * jnp.diag(cross) - 1 / a - (1 - soft * a) / mu, 0)
        hessian = 2 * ((d @ left @ d.T) * (z @ right @ z.T) + cross * cross.T)
        hessian = a[:, None] * hessian * a + jnp.diag(1 + soft / mu * a**2)
        change = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), slope)
        change = jnp.where(jnp.isfinite(change), change, 0)

        def barrier(length: Array) -> Array:
            new = a * (1 + length * change)
            pays = jnp.where(exists, (new - soft / 2 * new**2) / mu + jnp.log(new), 0)
            value = -jnp.sum(pays) - 2 * jnp.sum(jnp.log(jnp.diag(parts(new)[1])))
            return jnp.where(jnp.isfinite(value), value, jnp.inf)

        best = shorter[jnp.argmin(jax.vmap(barrier)(shorter))]
        # The barrier is lowered where Newton's method has converged, or cannot improve.
        centred = (-jnp.sum(slope * change) < 0.25) | (best == 0)
        new_mu = jnp.where(centred, jnp.maximum(0.3 * mu, last), mu)
        return (a * (1 + best * change), new_mu), None

    start = jnp.full(len(d), 0.5 / len(d), d.dtype)
    mu = jnp.asarray(0.5 / len(d), d.dtype)
    (a, mu), _ = jax.lax.scan(step, (start, mu), None, length=iterations)
    matrix, root = parts(a)
    weights = 2 * mu * left_of(root) @ matrix
    margins = jnp.where(exists, jnp.einsum("md,de,me->m", d, weights, z), jnp.inf)
    smallest = jnp.min(margins, initial=jnp.inf)
    separates = (smallest > 0.5) & jnp.isfinite(smallest)
    return safe_divide(weights / jnp.where(separates, smallest, 1), unit)


@_nuclear.defjvp
def _nuclear_jvp(*_: object) -> tuple[Array, Array]:
    raise NotImplementedError('attention_svm: norm="nuclear" has no derivative, "frobenius" has')


def attention_svm(
    tokens: Float[Array, "n T d"],
    queries: Float[Array, "n e"],
    optimal: Int[Array, "n"],
    mask: Bool[Array, "n T"] | None = None,
    *,
    norm: Norm = "frobenius",
    iterations: int | None = None,
) -> Float[Array, "d e"]:
    """The smallest attention weights that select one token of each example by a margin of one.

        min |W|   such that   (x_{i, opt_i} - x_{i, t})^T W z_i >= 1   for all i and t != opt_i

    Trained by gradient descent, the weights of a softmax over `x_{i,t}^T W z_i` grow without bound
    in the direction of this W: of least Frobenius norm where W is the parameter, of least nuclear
    norm where its factors K and Q with W = K Q^T are.

    Both are solved in their duals, of one variable a constraint: the first by a predictor-corrector
    method, the second by a barrier method. Where no W separates the tokens, the result is that of a
    very soft margin; `attention_margins` of it are then below one.

    Args:
      tokens: x [examples, tokens, dim].
      queries: z [examples, query_dim]; the first token of each example in self-attention.
      optimal: the token to be selected [examples].
      mask: False for a token that does not exist [examples, tokens].
      norm: "frobenius", or "nuclear", which has no derivative and raises where one is asked for.
      iterations: Newton steps; None for 40 (Frobenius) or 120 (nuclear).

    Returns:
      W [dim, query_dim]. The Frobenius solution's derivatives are those of the exact solution.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Transformers as Support Vector Machines, arXiv 2308.16898, problems (W-SVM) and
    (KQ-SVM); compared with umich-sota/TF-as-SVM `base.py` (`W_svm_solver`), which states the same
    two problems and hands them to a convex solver, with the same solutions.

    >>> x = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
    >>> attention_svm(x, jnp.array([[0.0, 1.0]]), jnp.array([0])).round(4).tolist()
    [[0.0, 0.5], [0.0, 0.0]]
    """
    _check(tokens, queries, optimal, mask)
    check(norm in ("frobenius", "nuclear"), "norm", f'got {norm!r}, takes "frobenius" or "nuclear"')
    steps = (40 if norm == "frobenius" else 120) if iterations is None else iterations
    check(
        isinstance(steps, int | np.integer) and steps > 0,
        "iterations",
        f"got {iterations!r}, takes an integer above 0",
    )
    x, z = upcast(tokens, queries)
    examples, count, dim = x.shape
    exists = jnp.arange(count) != jnp.asarray(optimal)[:, None]
    if mask is not None:
        exists &= jnp.asarray(mask)
    differences = jnp.where(exists[..., None], _differences(x, jnp.asarray(optimal)), 0)
    d = differences.reshape(examples * count, dim)
    z = jnp.repeat(z, count, axis=0)
    solve = _frobenius if norm == "frobenius" else _nuclear
    weights = solve(d, z, exists.reshape(-1), int(steps))
    return restore(weights, tokens, queries)


def attention_margins(
    weights: Float[Array, "d e"],
    tokens: Float[Array, "n T d"],
    queries: Float[Array, "n e"],
    optimal: Int[Array, "n"],
) -> Float[Array, "n T"]:
    """By how much each example's optimal token outscores its others.

        (x_{i, opt_i} - x_{i, t})^T W z_i

    The smallest over t != opt_i is one for `attention_svm`, and the share of softmax that the
    optimal token lacks falls as exp(-margin).

    Args:
      weights: W [dim, query_dim].
      tokens: x [examples, tokens, dim].
      queries: z [examples, query_dim].
      optimal: the token that is to be selected [examples].

    Returns:
      The margins [examples, tokens], zero for the optimal token itself.

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Transformers as Support Vector Machines, arXiv 2308.16898, the constraints of (W-SVM).

    >>> x = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
    >>> attention_margins(jnp.eye(2), x, jnp.array([[3.0, 1.0]]), jnp.array([0])).tolist()
    [[0.0, 6.0]]
    """
    _check(tokens, queries, optimal, None)
    check_floating(weights=weights)
    check_shape("weights", weights, (tokens.shape[2], queries.shape[1]), "[dim, query_dim]")
    w, x, z = upcast(weights, tokens, queries)
    margins = jnp.einsum("ntd,de,ne->nt", _differences(x, jnp.asarray(optimal)), w, z)
    return restore(margins, weights, tokens, queries)


def matrix_correlation(a: Float[Array, "*B d e"], b: Float[Array, "*B d e"]) -> Float[Array, "*B"]:
    """How far two matrices point in one direction: the measure of directional convergence.

        <A, B> / (|A|_F |B|_F)

    Args:
      a: matrices [..., rows, columns].
      b: matrices [..., rows, columns].

    Returns:
      The correlations [...] in [-1, 1]; zero where a matrix is zero.

    Raises:
      ValueError: for shapes that differ or a wrong dtype.

    Source: Transformers as Support Vector Machines, arXiv 2308.16898, section on experiments, as
    in umich-sota/TF-as-SVM `README.md`.

    >>> float(matrix_correlation(jnp.eye(2), 3 * jnp.eye(2)))
    1.0
    """
    check_floating(a=a)
    check_floating(b=b)
    check_rank("a", a, 2, at_least=True)
    check_shape("b", b, np.shape(a), "as a")

    def unit(x: Array) -> Array:
        return safe_divide(x, safe_norm(x, axis=(-2, -1), keepdims=True))

    return restore(jnp.sum(unit(upcast(a)) * unit(upcast(b)), axis=(-2, -1)), a, b)
