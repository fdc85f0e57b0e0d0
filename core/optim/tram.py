"""TRAM: sharpness-aware minimization within a trust region of the network's outputs."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..numerics import check, check_floating, check_range, check_rank, check_shape
from .decay import on_floats
from .gns_newton import LocalOracle, resolve_oracle
from .sharpness import Adaptive, gradient_uphill, log_ratio_kl

Kind = Literal["forward", "reverse", "symmetric"]


def tram_distance(
    logits: Float[Array, "*batch classes"],
    reference_logits: Float[Array, "*batch classes"],
    *,
    kind: Kind = "forward",
) -> Float[Array, "*batch"]:
    """How far outputs are from those of a reference: the trust-region distance of TRAM.

        forward: KL(softmax(reference) || softmax(logits)); reverse: the other way round;
        symmetric: their sum

    Its mean over the batch is the radius of `scale_by_tram`. References of the paper: outputs of
    the parameters before the last step (or of an average of them, or at the start), which is
    TRAM-theta, and outputs for inputs with a little noise, which is TRAM-x.

    Args:
      logits: outputs of the network [..., classes].
      reference_logits: outputs of the reference [..., classes].
      kind: "forward", "reverse" or "symmetric".

    Returns:
      One value per example [...].

    Raises:
      ValueError: if the arrays are not floats of one shape, or `kind` is unknown.

    Source: TRAM: Bridging Trust Regions and Sharpness Aware Minimization, arXiv 2310.03646,
    equations 5 and 6; tomsherborne/tram_optimizer kl.py (which averages over examples and classes
    and divides by the batch once more: this mean over batch times classes).

    >>> now, before = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 0.0]])
    >>> np.asarray(tram_distance(now, before), float).round(4).tolist()
    [0.4338]
    """
    check_floating(logits=logits, reference_logits=reference_logits)
    check_rank("logits", logits, 1, at_least=True)
    check_shape("reference_logits", reference_logits, jnp.shape(logits), "as logits")
    kinds = ("forward", "reverse", "symmetric")
    check(kind in kinds, "kind", f"got {kind!r}, takes {', '.join(kinds)}")
    value = jnp.zeros(())
    if kind != "reverse":
        value = value + log_ratio_kl(reference_logits, logits)
    if kind != "forward":
        value = value + log_ratio_kl(logits, reference_logits)
    return value.astype(jnp.result_type(logits, reference_logits))


def scale_by_tram(
    scale: Any = 1.0, *, adaptive: Adaptive = False, eta: Any = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that at the worst point within the trust region.

        e = scale * d g / |g|,   update = grad f(p + e)

    SAM whose radius is how far the outputs have moved, d, instead of a constant: flat where the
    function changes, and the plain gradient where it does not. The loss and the distance come as
    extra arguments:

        oracle = papyrax.optim.local_oracle(loss, params, batch)
        radius = tram_distance(logits(params, x), logits(previous_params, x)).mean()
        updates, state = tx.update(grads, state, params, oracle=oracle, radius=radius)

    Args:
      scale: factor of the distance.
      adaptive: e = scale * d T^2 g / |T g| with T = |p| + eta, as in ASAM, of all leaves or of
        some; see `scale_by_sam`.
      eta: added to the magnitudes in T; 0 in the authors' code.

    Returns:
      A `GradientTransformationExtraArgs`; its updates have the sign of a gradient. `obj_fn=`, the
      loss as a function of the parameters, may stand for `oracle=`.

    Raises:
      ValueError: if `scale` or `eta` is negative, or `oracle` or `radius` where there is none.

    Source: TRAM: Bridging Trust Regions and Sharpness Aware Minimization, arXiv 2310.03646,
    equation 7 and algorithm 1. tomsherborne/tram_optimizer tram.py adds d / |g| to every entry
    without multiplying by the gradient; the paper's direction is taken here.

    >>> tx, params = scale_by_tram(), jnp.array([3.0, 4.0])
    >>> loss = lambda p: jnp.sum(p**2) / 2
    >>> grads, state = jax.grad(loss)(params), tx.init(params)
    >>> updates, _ = tx.update(grads, state, params, obj_fn=loss, radius=0.5)
    >>> np.asarray(updates, float).round(3).tolist()
    [3.3, 4.4]
    """
    check_range("scale", scale, 0)
    check_range("eta", eta, 0)

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Any,
        state: optax.EmptyState,
        params: Any = None,
        *,
        oracle: LocalOracle | None = None,
        obj_fn: Callable[[Any], Any] | None = None,
        radius: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, optax.EmptyState]:
        del extra_args  # they are for other transformations
        fits = radius is not None and jnp.ndim(radius) == 0
        got = None if radius is None else f"shape {jnp.shape(radius)}"
        check(fits, "radius", f"got {got}, takes a distance []")
        there = resolve_oracle(oracle, obj_fn, params)
        length = scale * jax.lax.stop_gradient(radius)
        return gradient_uphill(there, updates, params, length, adaptive=adaptive, eta=eta), state

    return optax.GradientTransformationExtraArgs(init, update)


def tram(
    learning_rate: optax.ScalarOrSchedule,
    scale: Any = 1.0,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    adaptive: Adaptive = False,
    eta: Any = 0.0,
    weight_decay: Any = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """TRAM: AdamW on the gradients of `scale_by_tram`, for fine-tuning.

    Args:
      learning_rate: a number or a schedule.
      scale: factor of the trust-region distance.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      adaptive: see `scale_by_tram`.
      eta: see `scale_by_tram`.
      weight_decay: decoupled decay.
      mask: which leaves decay, as in `optax.adamw`.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `radius=`, and `oracle=` or `obj_fn=`.

    Raises:
      ValueError: naming the argument that is out of range, or `oracle` or `radius` where there is
        none.

    Source: TRAM: Bridging Trust Regions and Sharpness Aware Minimization, arXiv 2310.03646,
    algorithm 1; tomsherborne/tram_optimizer tram.py.

    >>> tx, params = tram(0.1), jnp.array([3.0, 4.0])
    >>> loss = lambda p: jnp.sum(p**2) / 2
    >>> grads, state = jax.grad(loss)(params), tx.init(params)
    >>> updates, _ = tx.update(grads, state, params, obj_fn=loss, radius=0.5)
    >>> np.asarray(updates, float).round(3).tolist()
    [-0.1, -0.1]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("b1", b1, 0, 1, open_high=True)
    check_range("b2", b2, 0, 1, open_high=True)
    check_range("eps", eps, 0, open_low=True)
    check_range("weight_decay", weight_decay, 0)
    adamw = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
    return optax.with_extra_args_support(
        optax.chain(scale_by_tram(scale, adaptive=adaptive, eta=eta), on_floats(adamw))
    )
