"""Training without a fixed loss: random derivatives that any calibrated convex loss could have."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..numerics import (
    check_floating,
    check_integer,
    check_key,
    check_rank,
    check_shape,
    restore,
    upcast,
)
from ._shared import everyone, rows_before


def ensloss(
    scores: Float[Array, "batch"],
    labels: Int[Array, "batch"],
    key: Array,
    *,
    power: float = 0.0,
    axis_name: str | None = None,
) -> Float[Array, "batch"]:
    """Margins times random slopes: each step descends on another convex, calibrated loss.

    With margins `s_i = (2 y_i - 1) f_i` and normal draws `n_i`: slopes `g = -min(e, 1)` where `e`
    is the inverse Box-Cox transform of `n`, `(1 + power n)^(1 / power)`, or `exp(n)` at power 0.
    Sorted, the smallest slope goes to the smallest margin, so that the slopes are those of a convex
    loss; all are negative, so the loss is calibrated; and beyond a margin of 1 they are divided by
    it, so that the pull on learned examples fades. The value `stop_gradient(g_i) s_i` carries the
    gradient and means nothing else.

    Args:
      scores: decision scores, positive for class one [batch].
      labels: the class of each example, zero or one [batch].
      key: a random key; a new one each step.
      power: parameter of the Box-Cox transform (lambda); may be traced. The authors keep 0 on
        tables, and for images draw it uniformly from [-1, 1] anew every few epochs.
      axis_name: the mesh axis whose devices share the batch, and have the same key.

    Returns:
      One surrogate loss an example [batch], whose mean is to be differentiated.

    Raises:
      ValueError: if the shapes do not fit or a dtype is wrong.

    Source: EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in
    Classification, ICML 2025; agrees with `ensLoss` in `losses.py` of statmlben/ensLoss on the same
    draws.

    >>> f, y = jnp.array([2.0, -1.0]), jnp.array([1, 1])
    >>> slopes = jax.grad(lambda f: ensloss(f, y, jax.random.key(0)).sum())(f)
    >>> bool((slopes < 0).all() and slopes[1] < slopes[0])
    True
    """
    check_floating(scores=scores)
    check_rank("scores", scores, 1)
    check_integer(labels=labels)
    check_shape("labels", labels, jnp.shape(scores), "[batch], as scores")
    check_key(key=key)
    f = upcast(scores)
    margins = f * (2 * jnp.asarray(labels) - 1).astype(f.dtype)
    fixed = jax.lax.stop_gradient(margins)
    everyones = everyone(fixed, axis_name)

    # The same draws whatever the dtype of the scores.
    draws = jax.random.normal(key, everyones.shape, jnp.float32).astype(f.dtype)
    lam = jnp.asarray(power, f.dtype)
    zero = lam == 0
    base = jnp.maximum(1 + lam * draws, 0)
    log_e = jnp.where(zero, draws, jnp.log(base) / jnp.where(zero, 1, lam))
    slopes = jnp.sort(-jnp.exp(jnp.minimum(log_e, 0)))

    rank = jnp.argsort(jnp.argsort(everyones))
    mine = rank[jnp.arange(len(f)) + rows_before(len(f), axis_name)]
    g = slopes[mine] / jnp.maximum(fixed, 1) - 1e-6
    return restore(g * margins, scores)
