"""XTrace and XDiag: every probe serves the low-rank part of the others and then its own rest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import check_key
from .probes import PROBES
from .spectra import matmul, unflatten_like
from .traces import TraceEstimate, check_samples, flat_matvec, mean_and_error


class _Basis(NamedTuple):
    """The basis of all probes, and how it falls short without one of them.

    Without probe i it spans Q (I - s_i s_i'), where the unit vector s_i is orthogonal to every
    column of R but r_i: it is column i of R^-T, scaled.

    Attributes:
      probes: W [dim, n].
      aw: A W = Q R [dim, n].
      q: orthonormal [dim, n].
      aq: A Q [dim, n].
      s: a unit vector for each probe in its columns [n, n].
      length: s_i' r_i of each probe [n].
    """

    probes: jax.Array
    aw: jax.Array
    q: jax.Array
    aq: jax.Array
    s: jax.Array
    length: jax.Array


def _leave_one_out(
    matvec: Callable[[Any], Any], like: Any, key: jax.Array, n_samples: int
) -> _Basis:
    """The basis of A W for random signs W, after a check of the arguments."""
    check_samples(n_samples, 2)
    check_key(key=key)
    apply, dim, dtype = flat_matvec(matvec, like)
    # Drawn in full, so that a probe does not depend on how many the dimension admits.
    probes = PROBES["rademacher"](key, jnp.zeros((n_samples, dim), dtype))[: min(n_samples, dim)]
    aw = jax.lax.map(apply, probes).T
    q, r = jnp.linalg.qr(aw)
    # A matrix of low rank leaves zeros on the diagonal of R. Tiny ones in their place turn s_i to
    # the columns of Q that stand for nothing, which can be left out at no loss.
    size = jnp.abs(jnp.diag(r))
    least = jnp.maximum(jnp.finfo(r.dtype).eps * jnp.max(size), jnp.finfo(r.dtype).tiny)
    r = r + jnp.diag(jnp.where(size < least, least, 0))
    s = jax.scipy.linalg.solve_triangular(r.T, jnp.eye(len(r), dtype=r.dtype), lower=True)
    s = s / jnp.max(jnp.abs(s), axis=0)  # or the squares overflow
    s = s / jnp.linalg.norm(s, axis=0)
    return _Basis(probes.T, aw, q, jax.lax.map(apply, q.T).T, s, jnp.sum(s * r, axis=0))


def xtrace(
    matvec: Callable[[Any], Any], like: Any, *, key: jax.Array, n_samples: int = 16
) -> TraceEstimate:
    """XTrace: the trace of a symmetric matrix, each probe's rest beside the basis of all others.

        Q_i = orth(A W without w_i),  P_i = I - Q_i Q_i'
        tr A ~ 1/n sum_i tr(Q_i' A Q_i) + w_i' P_i A P_i w_i

    Unbiased. Takes 2n products where Hutch++ of n takes 3n, and for a spectrum that decays its
    error falls as fast as the best approximation of rank n. Keeps 4n vectors of the size of `like`.

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`; A is symmetric.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key.
      n_samples: n, the number of probes, at least 2; at most the dimension is used.

    Returns:
      The estimate and its standard error, two scalars [].

    Raises:
      ValueError: if `n_samples` is below 2, or `like` has no floating-point leaves.

    Source: XTrace: Making the Most of Every Sample in Stochastic Trace Estimation,
    arXiv 2301.07825, section 2.1 (signs for probes, without the normalization of section 2.3).

    >>> v = jnp.arange(1.0, 5.0)
    >>> rank_one = lambda x: v * (v @ x)
    >>> round(float(xtrace(rank_one, v, key=jax.random.key(0), n_samples=2).value), 3)
    30.0
    """
    probes, aw, q, aq, s, _ = _leave_one_out(matvec, like, key, n_samples)
    h = matmul(q.T, aq)
    w = matmul(q.T, probes)
    kept = jnp.trace(h) - jnp.sum(s * matmul(h, s), axis=0)
    inside = w - s * jnp.sum(s * w, axis=0)  # the coordinates of Q_i Q_i' w_i
    u = probes - matmul(q, inside)
    au = aw - matmul(aq, inside)
    return mean_and_error(kept + jnp.sum(u * au, axis=0))


def xdiag(matvec: Callable[[Any], Any], like: Any, *, key: jax.Array, n_samples: int = 16) -> Any:
    """XDiag: the diagonal of a symmetric matrix, each probe's rest beside the basis of all others.

        Q_i = orth(A W without w_i)
        diag A ~ 1/n sum_i diag(Q_i Q_i' A) + w_i * (I - Q_i Q_i') A w_i

    Unbiased, with 2n products. Where the spectrum decays it is far better than as many probes of
    Hutchinson's estimate; where it is flat, no better. Keeps 3n vectors of the size of `like`.

    Args:
      matvec: `matvec(v) -> A v`, of trees of the shapes [...] of `like`; A is symmetric.
      like: a tree of arrays [...] whose shapes and dtypes the vectors have.
      key: a random key.
      n_samples: n, the number of probes, at least 2; at most the dimension is used.

    Returns:
      A tree of the shapes [...] and dtypes of `like`; zeros for integer leaves.

    Raises:
      ValueError: if `n_samples` is below 2, or `like` has no floating-point leaves.

    Source: XTrace: Making the Most of Every Sample in Stochastic Trace Estimation,
    arXiv 2301.07825, section 2.4 (XDiag, with signs for probes).

    >>> v = jnp.array([1.0, 2.0, 3.0])
    >>> rank_one = lambda x: v * (v @ x)
    >>> np.asarray(xdiag(rank_one, v, key=jax.random.key(0), n_samples=3), float).round(3)
    array([1., 4., 9.])
    """
    probes, _, q, aq, s, length = _leave_one_out(matvec, like, key, n_samples)
    left_out = matmul(q, s)  # the unit vector by which Q_i falls short of Q; A w_i lies in Q
    each = left_out * (probes * length - matmul(aq, s))
    return unflatten_like(like)(jnp.sum(q * aq, axis=1) + jnp.mean(each, axis=1))
