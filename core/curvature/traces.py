"""Estimates of the trace of a symmetric matrix of which only products with vectors are known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check, check_key, safe_sqrt
from .probes import PROBES, Distribution, check_distribution
from .products import quadratic_form
from .trees import Split, dot


class TraceEstimate(NamedTuple):
    """An estimate of a trace.

    Attributes:
      value: the estimate [].
      standard_error: its estimated standard deviation [], from the spread of the probes.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]


def check_samples(n_samples: int, least: int) -> None:
    """Raise unless it is an integer of `least` or more."""
    whole = isinstance(n_samples, int) and not isinstance(n_samples, bool)
    message = f"got {n_samples!r}, takes an integer of {least} or more"
    check(whole and n_samples >= least, "n_samples", message)


def mean_and_error(samples: jax.Array) -> TraceEstimate:
    """The mean of independent estimates [n] and its standard error."""
    # One sample is all that a dimension of one admits, and then it is exact.
    variance = jnp.var(samples, ddof=min(1, samples.size - 1)) / samples.size
    return TraceEstimate(jnp.mean(samples), safe_sqrt(variance))


def hutchinson_trace(
    matvec: Callable[[Any], Any],
    like: Any,
    *,
    key: jax.Array,
    n_samples: int = 16,
    distribution: Distribution = "rademacher",
) -> TraceEstimate:
    """Hutchinson's estimate of a trace.

        tr A ~ 1/n sum_s z_s' A z_s,   E[z z'] = I

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key.
      n_samples: n, at least 2.
      distribution: "rademacher" or "normal".

    Returns:
      The estimate and its standard error, two scalars [].

    Raises:
      ValueError: if `n_samples` is below 2 or `distribution` unknown.

    Source: A Stochastic Estimator of the Trace of the Influence Matrix, Hutchinson 1990; no arXiv
    number.

    >>> scale = jnp.array([1.0, 2.0, 3.0])
    >>> float(hutchinson_trace(lambda v: scale * v, scale, key=jax.random.key(0)).value)
    6.0
    """
    check_samples(n_samples, 2)
    check_distribution(distribution)
    check_key(key=key)
    split = Split.of(like, "like")

    def sample(key: jax.Array) -> jax.Array:
        z = PROBES[distribution](key, split.floats)
        return dot(z, split.match("matvec", matvec(split.fill(z))))

    return mean_and_error(jax.lax.map(sample, jax.random.split(key, n_samples)))


def hessian_trace(
    fun: Callable[..., Any], *, n_samples: int = 16, distribution: Distribution = "rademacher"
) -> Callable[..., Any]:
    """Hutchinson's estimate of the trace of the Hessian of a loss, without any backward pass.

        tr H ~ 1/n sum_s z_s' H z_s

    Each z'Hz is one forward-over-forward pass (see `quadratic_form`), about half the operations of
    a Hessian-vector product and a fifth of its memory.

    Args:
      fun: `fun(params, *args) -> loss []`.
      n_samples: n, at least 2.
      distribution: "rademacher" or "normal".

    Returns:
      A function `(params, *args, key) -> TraceEstimate` of two scalars [].

    Raises:
      ValueError: if `n_samples` is below 2 or `distribution` unknown.

    Source: PyHessian: Neural Networks Through the Lens of the Hessian, arXiv 1912.07145, section 3.

    >>> trace = hessian_trace(lambda p: jnp.sum(p**2))
    >>> [float(x) for x in trace(jnp.ones(5), key=jax.random.key(0))]
    [10.0, 0.0]
    """
    check_samples(n_samples, 2)
    check_distribution(distribution)

    def trace(params: Any, *args: Any, key: jax.Array) -> TraceEstimate:
        check_key(key=key)

        def sample(key: jax.Array) -> jax.Array:
            z = PROBES[distribution](key, params)
            return quadratic_form(fun)(params, z, *args).curvature

        return mean_and_error(jax.lax.map(sample, jax.random.split(key, n_samples)))

    return trace


def hutch_plus_plus_trace(
    matvec: Callable[[Any], Any], like: Any, *, key: jax.Array, n_samples: int = 16
) -> TraceEstimate:
    """Hutch++: the trace of a low-rank part exactly, and Hutchinson's estimate for the rest.

        Q = orth(A S),  tr A = tr(Q'AQ) + tr(P A P) ~ tr(Q'AQ) + 1/n sum_s (P g_s)' A (P g_s)

    with P = I - Q Q'. Takes 3n products; for a positive semi-definite matrix the relative error
    falls as 1/n, where Hutchinson's falls as 1/sqrt(n). Keeps n vectors of the size of `like`.

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key.
      n_samples: n, the rank of the exact part and the number of probes for the rest; at least 2.

    Returns:
      The estimate and its standard error (from the probes of the rest), two scalars [].

    Raises:
      ValueError: if `n_samples` is below 2.

    Source: Hutch++: Optimal Stochastic Trace Estimation, arXiv 2010.09649, algorithm 1.

    >>> v = jnp.arange(1.0, 5.0)
    >>> rank_one = lambda x: v * (v @ x)
    >>> trace = hutch_plus_plus_trace(rank_one, v, key=jax.random.key(0), n_samples=2)
    >>> round(float(trace.value), 3)
    30.0
    """
    check_samples(n_samples, 2)
    check_key(key=key)
    apply, dim, dtype = flat_matvec(matvec, like)
    n = min(n_samples, dim)
    sketch_key, probe_key = jax.random.split(key)
    shape = jnp.zeros((n_samples, dim), dtype)
    sketch = PROBES["rademacher"](sketch_key, shape)[:n]
    q, _ = jnp.linalg.qr(jax.lax.map(apply, sketch).T)
    rows = q.T
    exact = jnp.sum(rows * jax.lax.map(apply, rows))
    probes = PROBES["rademacher"](probe_key, shape)
    # Twice, since one projection leaves a rounding error along Q.
    probes = probes - (probes @ q) @ rows
    probes = probes - (probes @ q) @ rows
    rest = mean_and_error(jnp.sum(probes * jax.lax.map(apply, probes), axis=1))
    return TraceEstimate(exact + rest.value, rest.standard_error)


def flat_matvec(
    matvec: Callable[[Any], Any], like: Any
) -> tuple[Callable[[jax.Array], jax.Array], int, Any]:
    """`matvec` on flat vectors [dim], its dim and the dtype to compute in (float32 or wider)."""
    split = Split.of(like, "like")
    check(bool(split.floats), "like", "got no floating-point leaves, takes one or more")
    dtype = jnp.result_type(jnp.float32, *split.floats)
    shapes = [x.shape for x in split.floats]
    stops = [0]
    for x in split.floats:
        stops.append(stops[-1] + x.size)

    def apply(v: jax.Array) -> jax.Array:
        parts = [v[a:b].reshape(s) for a, b, s in zip(stops, stops[1:], shapes)]
        cast = [x.astype(like.dtype) for x, like in zip(parts, split.floats)]
        product = split.match("matvec", matvec(split.fill(cast)))
        return jnp.concatenate([x.reshape(-1).astype(dtype) for x in product])

    return apply, stops[-1], dtype
