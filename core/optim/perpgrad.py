"""perpGrad: gradients without their component along the weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..curvature.trees import is_floating
from ..numerics import check, check_positive, check_range, safe_divide, safe_norm
from .decay import on_floats

Mask = Any | Callable[[Any], Any] | None


def _perpendicular(
    gradient: Float[Array, "..."], weight: Float[Array, "..."], eps: Any, rescale: bool
) -> Float[Array, "..."]:
    """One tensor's gradient, projected. Works on unit vectors, whose products stay in range."""
    gradient = jnp.asarray(gradient)
    dtype = jnp.promote_types(jnp.float32, jnp.result_type(gradient, weight))
    g, w = jnp.asarray(gradient, dtype), jnp.asarray(weight, dtype)
    g_norm, w_norm = safe_norm(g, axis=None), safe_norm(w, axis=None)
    # Weights that vanish have no direction to remove.
    w = jnp.where(w_norm > jnp.sqrt(jnp.asarray(eps, dtype)), safe_divide(w, w_norm), 0)
    g = safe_divide(g, g_norm)
    rest = g - jnp.sum(w * g) * w
    # Late in training almost all of the gradient lies along the weights. What is left of it then
    # carries the rounding of the first projection, which a second one removes.
    rest = rest - jnp.sum(w * rest) * w
    if rescale:
        length = safe_norm(rest, axis=None)
        # Below the rounding of the inner product there is no direction left to scale up.
        rest = jnp.where(length > 4 * jnp.finfo(dtype).eps, safe_divide(rest, length), 0)
    return (g_norm * rest).astype(gradient.dtype)


def scale_by_perpgrad(
    eps: float = 1e-30, *, rescale: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Remove from each gradient tensor its component along the weights.

    `g_perp = g - (<w, g> / <w, w>) w`, and with `rescale` `g_perp |g| / |g_perp|`, tensor by
    tensor. Growing the weights along themselves raises the logits and lowers the loss without
    changing a prediction; a step along `g_perp` cannot do that to first order. Goes before the
    moments of an optimizer: `optax.chain(scale_by_perpgrad(), optax.adam(1e-3))`.

    A tensor with a single entry has no direction but its own, so its gradient becomes zero, as
    does one that lies along the weights up to rounding; leave gains and scalars out with
    `optax.masked`.

    Args:
      eps: weights whose squared norm is not above it are taken for zero, and their gradient stays
        as it is.
      rescale: bring the projected gradient to the norm of the gradient, as the authors' code does;
        False for the plain projection of the paper.

    Returns:
      A transformation without state that needs `params`.

    Raises:
      ValueError: if `eps` is not positive, or on an update without `params`.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, the equation of perpGrad
    (plain projection); `orthograd.py` of
    LucasPrietoAl/grokking-at-the-edge-of-numerical-stability (with the rescaling). There `eps` is
    added to both denominators, so that what is left of a gradient along the weights, all of it
    rounding, is scaled up to full length; here it is zero.

    >>> tx = scale_by_perpgrad()
    >>> params, grads = jnp.array([2.0, 0.0]), jnp.array([3.0, 4.0])
    >>> tx.update(grads, tx.init(params), params)[0].tolist()
    [0.0, 5.0]
    """
    check_positive(eps=eps)

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, **extra: Any
    ) -> tuple[Any, optax.EmptyState]:
        del extra
        check(params is not None, "params", "got None, takes the parameters to project against")

        def project(g: Any, w: Any) -> Any:
            return _perpendicular(g, w, eps, rescale) if is_floating(g) else g

        return jax.tree.map(project, updates, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def perpgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    mask: Mask = None,
    projection_mask: Mask = None,
    rescale: bool = True,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW on gradients without their component along the weights: perp-AdamW.

    `optax.chain(scale_by_perpgrad(), optax.adamw(...))`: the projection comes first, the moments
    are those of the projected gradient. Grokking tasks generalise with it soon and without weight
    decay, whose default is therefore zero.

    Args:
      learning_rate: a number or a schedule.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment. The authors train unprojected AdamW with 1e-25,
        since its gradients become tiny; the moments of the rescaled projection do so as well.
      weight_decay: decoupled weight decay.
      mask: which parameters decay: a tree of booleans or a function from parameters to one.
      projection_mask: which parameters are projected, all by default; leave out scalars and gains,
        which would not move.
      rescale: see `scale_by_perpgrad`.
      mu_dtype: dtype of the first moment; that of the parameters by default.

    Returns:
      The optimizer; its updates need `params`.

    Raises:
      ValueError: if a hyper-parameter is out of range.

    Source: Grokking at the Edge of Numerical Stability, arXiv 2501.04697, perp-AdamW;
    `orthograd.py`, whose trajectory is that here, and `grokking_experiments.py` of
    LucasPrietoAl/grokking-at-the-edge-of-numerical-stability.

    >>> tx = perpgrad(0.1)
    >>> params = jnp.array([2.0, 0.0])
    >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
    >>> np.asarray(updates, float).round(3)
    array([-0. , -0.1])
    """
    if not callable(learning_rate):
        check_range("learning_rate", learning_rate, 0)
    check_range("b1", b1, 0, 1, open_high=True)
    check_range("b2", b2, 0, 1, open_high=True)
    check_positive(eps=eps)
    check_range("weight_decay", weight_decay, 0)
    project = scale_by_perpgrad(rescale=rescale)
    if projection_mask is not None:
        project = optax.masked(project, projection_mask)
    adamw = optax.adamw(
        learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask, mu_dtype=mu_dtype
    )
    return optax.with_extra_args_support(optax.chain(project, on_floats(adamw)))
