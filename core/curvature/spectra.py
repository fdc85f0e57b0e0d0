"""Lanczos and LOBPCG: extreme eigenpairs and the density of the spectrum of a symmetric matrix."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.sparse.linalg import lobpcg_standard
from jaxtyping import Array, Float

from ..numerics import check, check_count, check_key, check_positive, safe_divide, safe_norm
from .products import quadratic_form
from .traces import flat_matvec
from .trees import Split, dot

# On accelerators products of float32 are rounded to less unless they are told not to be, and the
# basis would lose its orthogonality.
matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class SpectralDensity(NamedTuple):
    """A discrete estimate of the density of a spectrum.

    Attributes:
      nodes: Ritz values, a row for each probe [probes, order].
      weights: their weights [probes, order]; each row adds up to one.
    """

    nodes: Float[Array, "probes order"]
    weights: Float[Array, "probes order"]

    def smooth(self, points: Any, width: Any) -> Float[Array, "points"]:
        """The density at `points` [points], each node spread as a normal of deviation `width`."""
        check_positive(width=width)
        z = (jnp.asarray(points)[:, None] - self.nodes.reshape(-1)) / width
        normal = jnp.exp(-0.5 * jnp.square(z)) / (width * jnp.sqrt(2 * jnp.pi))
        return normal @ self.weights.reshape(-1) / self.nodes.shape[0]


def tridiagonalize(
    apply: Callable[[Array], Array],
    start: Float[Array, "dim"],
    order: int,
    key: jax.Array | None = None,
) -> tuple[Float[Array, "order order"], Float[Array, "order dim"]]:
    """The matrix in an orthonormal basis of the Krylov space of `start`, and that basis.

    One scan, whose program does not grow with the order, and full reorthogonalization, twice. Where
    the space ends early, the basis goes on with a random vector outside of it, or without a `key`
    with zero vectors; either decouples.
    """
    scale = jnp.finfo(start.dtype).eps * start.size**0.5

    def step(carry: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        basis, v = carry
        basis = basis.at[i].set(v)
        w = apply(v)
        alpha = matmul(v, w)
        size = safe_norm(w)
        w = outside(basis, w)
        beta = safe_norm(w)
        beta = jnp.where(beta > 10 * scale * size, beta, 0)  # the rest is rounding
        following = safe_divide(w, beta)
        if key is not None:
            here = jax.random.fold_in(key, i)
            following = jax.lax.cond(beta > 0, lambda: following, lambda: fresh(basis, here))
        return (basis, following), (alpha, beta)

    def outside(basis: Array, w: Array) -> Array:
        for _ in range(2):
            w = w - matmul(matmul(basis, w), basis)
        return w

    def fresh(basis: Array, key: jax.Array) -> Array:
        drawn = jax.random.normal(key, start.shape, jnp.float32)
        w = outside(basis, drawn.astype(start.dtype))
        return safe_divide(w, safe_norm(w))

    empty = jnp.zeros((order, start.size), start.dtype)
    first = safe_divide(start, safe_norm(start))
    (basis, _), (alpha, beta) = jax.lax.scan(step, (empty, first), jnp.arange(order))
    off = jnp.diag(beta[:-1], 1)
    return jnp.diag(alpha) + off + off.T, basis


def spectral_density(
    matvec: Callable[[Any], Any],
    like: Any,
    *,
    key: jax.Array,
    order: int = 64,
    n_samples: int = 4,
) -> SpectralDensity:
    """The density of the eigenvalues of a symmetric matrix by stochastic Lanczos quadrature.

        T = Q' A Q from a random unit start,  T = U diag(nodes) U',  weights = U[0, :]^2

    Each probe gives a quadrature that is exact for the first 2 `order` - 1 moments z' A^k z. The
    mean over probes of sum(weights * f(nodes)) estimates tr f(A) / dim.

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key.
      order: the number of Lanczos steps; at most the dimension is used. Keeps that many vectors.
      n_samples: the number of random starts.

    Returns:
      Nodes and weights [probes, order]; `.smooth(points, width)` gives a curve to draw.

    Raises:
      ValueError: if `order` or `n_samples` is not positive, or `like` has no leaves.

    Source: An Investigation into Neural Net Optimization via Hessian Eigenvalue Density,
    arXiv 1901.10159, algorithms 1 and 2 (here reorthogonalized in a scan).

    >>> scale = jnp.array([1.0, 1.0, 5.0])
    >>> density = spectral_density(lambda v: scale * v, scale, key=jax.random.key(0), order=2)
    >>> np.asarray(density.nodes[0], float).round(3)
    array([1., 5.])
    """
    check_count(order=order, n_samples=n_samples)
    check_key(key=key)
    apply, dim, dtype = flat_matvec(matvec, like)

    def sample(key: Array) -> tuple[Array, Array]:
        start = jax.random.normal(key, (dim,), jnp.float32).astype(dtype)
        nodes, vectors = jnp.linalg.eigh(tridiagonalize(apply, start, min(order, dim))[0])
        return nodes, jnp.square(vectors[0])

    return SpectralDensity(*jax.lax.map(sample, jax.random.split(key, n_samples)))


def extreme_eigenpairs(
    matvec: Callable[[Any], Any],
    like: Any,
    *,
    key: jax.Array,
    k: int = 1,
    which: str = "largest",
    order: int = 32,
    method: str = "lanczos",
) -> tuple[Float[Array, "k"], Any]:
    """The largest or smallest eigenvalues of a symmetric matrix, with their vectors.

        A v_i = lambda_i v_i

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key, of the start.
      k: how many.
      which: "largest" or "smallest", in the order of the numbers and not of their magnitudes.
      order: the number of Lanczos steps, at least k; at most the dimension is used. For LOBPCG, the
        largest number of iterations, of k products each.
      method: "lanczos" keeps `order` vectors, converges fastest a product, and finds an eigenvalue
        of several dimensions once, since it has a single start; what that start does not reach
        comes when the order goes beyond it. "lobpcg" keeps about 6k vectors whatever the number of
        iterations, finds every copy, and takes a dimension above 5k.

    Returns:
      Eigenvalues [k], the most extreme first, and a tree of unit vectors [k, ...].

    Raises:
      ValueError: if `k` is not between 1 and the dimension and the order, or `which` or `method` is
        unknown.

    Source: An Investigation into Neural Net Optimization via Hessian Eigenvalue Density,
    arXiv 1901.10159, algorithm 2 (the Lanczos process); LOBPCG by
    `jax.experimental.sparse.linalg.lobpcg_standard`.

    >>> scale = jnp.array([1.0, -2.0, 5.0])
    >>> values, vectors = extreme_eigenpairs(lambda v: scale * v, scale, key=jax.random.key(0))
    >>> round(float(values[0]), 3), np.abs(np.asarray(vectors[0], float)).round(3)
    (5.0, array([0., 0., 1.]))
    """
    check_count(order=order, k=k)
    check(
        which in ("largest", "smallest"), "which", f"got {which!r}, takes 'largest' or 'smallest'"
    )
    known = method in ("lanczos", "lobpcg")
    check(known, "method", f"got {method!r}, takes 'lanczos' or 'lobpcg'")
    check_key(key=key)
    apply, dim, dtype = flat_matvec(matvec, like)
    if method == "lobpcg":
        check(5 * k < dim, "k", f"got {k}, takes less than a fifth of the dimension {dim}")
        return _lobpcg(apply, like, jax.random.normal(key, (dim, k), dtype), which, order)
    steps = min(order, dim)
    check(k <= steps, "k", f"got {k}, takes at most the order and the dimension, here {steps}")
    start = jax.random.normal(key, (dim,), jnp.float32).astype(dtype)
    sign = 1 if which == "smallest" else -1
    tridiagonal, basis = tridiagonalize(
        lambda v: sign * apply(v), start, steps, jax.random.fold_in(key, steps)
    )
    values, vectors = jnp.linalg.eigh(tridiagonal)
    flat = matmul(vectors[:, :k].T, basis)
    return sign * values[:k], jax.vmap(unflatten_like(like))(flat)


def _lobpcg(
    apply: Callable[[Array], Array],
    like: Any,
    start: Float[Array, "dim k"],
    which: str,
    iterations: int,
) -> tuple[Float[Array, "k"], Any]:
    """`extreme_eigenpairs` by locally optimal block preconditioned conjugate gradients."""
    sign = 1 if which == "largest" else -1

    def product(x: Float[Array, "dim k"]) -> Float[Array, "dim k"]:
        return sign * jax.lax.map(apply, x.T).T

    values, vectors, _ = lobpcg_standard(product, start, m=iterations)
    return sign * values, jax.vmap(unflatten_like(like))(vectors.T)


def unflatten_like(like: Any) -> Callable[[Array], Any]:
    """From a flat vector [dim] to a tree like `like`."""
    split = Split.of(like, "like")

    def unflatten(v: Array) -> Any:
        parts, start = [], 0
        for x in split.floats:
            parts.append(v[start : start + x.size].reshape(x.shape).astype(x.dtype))
            start += x.size
        return split.fill(parts)

    return unflatten


def directional_sharpness(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The curvature of a loss along a direction, such as that of an update.

        u' H u / (u' u)

    One forward-over-forward pass, without a Hessian-vector product (see `quadratic_form`).

    Args:
      fun: `fun(params, *args) -> loss []`.

    Returns:
      A function `(params, direction, *args) -> sharpness []`; `direction` is a tree of the shapes
      [...] of `params`, and a zero direction has sharpness zero.

    Raises:
      ValueError: if `direction` does not fit `params`.

    Source: Toward Understanding Why Adam Converges Faster Than SGD for Transformers,
    arXiv 2306.00204, the definition of directional sharpness.

    >>> sharpness = directional_sharpness(lambda p: p[0] ** 2 + 5 * p[1] ** 2)
    >>> float(sharpness(jnp.ones(2), jnp.array([0.0, 3.0])))
    10.0
    """

    def sharpness(params: Any, direction: Any, *args: Any) -> Float[Array, ""]:
        u = Split.of(params).match("direction", direction)
        form = quadratic_form(fun)(params, direction, *args)
        return safe_divide(form.curvature, dot(u, u).astype(form.curvature.dtype))

    return sharpness
