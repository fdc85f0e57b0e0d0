"""Sharpness-aware minimization: gradients from the worst point near by."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check, check_range, safe_divide, safe_sqrt
from .decay import decayed_weights, on_floats
from .gns_newton import LocalOracle, resolve_oracle

Adaptive = bool | Any | Callable[[Any], Any]


def _flags(adaptive: Adaptive, tree: Any) -> Any:
    """Which leaves of the tree are scaled by their magnitudes: a tree of bools."""
    flags = adaptive(tree) if callable(adaptive) else adaptive
    known = all(isinstance(flag, bool) for flag in jax.tree.leaves(flags))
    check(known, "adaptive", f"got {flags!r}, takes a bool, a tree of bools or a function to one")
    return jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), flags, tree)


def ascent(
    gradients: Any, params: Any, radius: Any, *, adaptive: Adaptive = False, eta: Any = 0.0
) -> Any:
    """The step of this length along the gradient, or along T^2 g with |T^-1 step| = radius.

    A gradient of zero gives no step. Leaves that are masked or of integers get none.
    """
    params = gradients if adaptive is False else params  # then they are not looked at
    flags = _flags(adaptive, params)

    def wide(x: Any) -> Array:
        return x.astype(accumulation_dtype(x))

    def scaled(g: Any, p: Any, flag: bool) -> Array:
        return (jnp.abs(wide(p)) + eta) * wide(g) if flag else g

    floats = [g for g in jax.tree.leaves(gradients) if is_floating(g)]
    if not floats:
        return gradients
    # Largest first: squares of large gradients stay in range, as those of small ones do.
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(wide(g)), initial=0) for g in floats]))
    unit = jax.tree.map(lambda g: safe_divide(wide(g), largest) if is_floating(g) else g, gradients)
    weighted = jax.tree.map(scaled, unit, params, flags)
    squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(weighted) if is_floating(x)]
    norm = safe_sqrt(sum(squares[1:], start=squares[0]))

    def step(w: Any, p: Any, flag: bool, g: Any) -> Any:
        if not is_floating(g):
            return jnp.zeros_like(g)
        return (radius * safe_divide(scaled(w, p, flag), norm)).astype(g.dtype)

    return jax.tree.map(step, weighted, params, flags, gradients)


def gradient_uphill(
    oracle: LocalOracle, gradients: Any, params: Any, radius: Any, *, adaptive: Adaptive, eta: Any
) -> Any:
    """The gradient after the step of `ascent`, in the dtypes of the gradients before it."""
    check(adaptive is False or params is not None, "params", "got None, takes the parameters")
    step = ascent(gradients, params, radius, adaptive=adaptive, eta=eta)
    _, after = oracle.value_and_grad(step)
    return jax.tree.map(lambda a, g: a.astype(jnp.result_type(g)), after, gradients)


def scale_by_sam(
    rho: Any = 0.05, *, adaptive: Adaptive = False, eta: Any = 0.01
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that at the worst point within a small ball.

        e = rho g / |g|,   update = grad f(p + e)

    and with `adaptive`, which does not change when the weights are rescaled,

        e = rho T^2 g / |T g|,   T = |p| + eta

    It goes first in a chain, `optax.chain(scale_by_sam(0.05), optax.adam(1e-3))`, has no state, and
    takes the loss as an extra argument, a second pass:

        oracle = papyrax.optim.local_oracle(loss, params, batch)
        updates, state = tx.update(grads, state, params, oracle=oracle)

    or `obj_fn=`, the loss as a function of the parameters. Unlike `optax.contrib.sam` it wraps no
    optimizer, ignores the extra arguments of others, and works inside `optax.masked`, where it
    perturbs the leaves it sees.

    Args:
      rho: radius of the ball. The authors of ASAM take about ten times that of SAM.
      adaptive: ASAM, of all leaves or of some: True, or a tree of bools (a prefix of that of the
        parameters) or a function of them to one. T is 1 for the others, as it is for all but
        weights, such as biases, in the authors' code.
      eta: added to the magnitudes in T; 0 is the form of davda54/sam, in which zero weights are not
        perturbed.

    Returns:
      A `GradientTransformationExtraArgs`; its updates have the sign of a gradient.

    Raises:
      ValueError: if `rho` or `eta` is negative, or `oracle` where there is no loss.

    Source: Sharpness-Aware Minimization for Efficiently Improving Generalization,
    arXiv 2010.01412, algorithm 1; ASAM, arXiv 2102.11600, equation 7; davda54/sam sam.py and
    SamsungLabs/ASAM asam.py, whose trajectories `sam` follows.

    >>> tx, params = scale_by_sam(0.5), jnp.array([3.0, 4.0])
    >>> loss = lambda p: jnp.sum(p**2) / 2
    >>> updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, obj_fn=loss)
    >>> np.asarray(updates, float).round(3).tolist()
    [3.3, 4.4]
    """
    check_range("rho", rho, 0)
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
        **extra_args: Any,
    ) -> tuple[Any, optax.EmptyState]:
        del extra_args  # they are for other transformations
        there = resolve_oracle(oracle, obj_fn, params)
        return gradient_uphill(there, updates, params, rho, adaptive=adaptive, eta=eta), state

    return optax.GradientTransformationExtraArgs(init, update)


def sam(
    learning_rate: optax.ScalarOrSchedule,
    rho: Any = 0.05,
    momentum: Any = 0.9,
    *,
    adaptive: Adaptive = False,
    eta: Any = 0.01,
    nesterov: bool = False,
    weight_decay: Any = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM: gradient descent with momentum on the gradients of `scale_by_sam`.

        p <- p - learning_rate * v,   v <- momentum v + grad f(p + rho g / |g|) + weight_decay p

    Args:
      learning_rate: a number or a schedule.
      rho: radius of the ball.
      momentum: decay of the velocity, in [0, 1).
      adaptive: ASAM, of all leaves or of some; see `scale_by_sam`.
      eta: see `scale_by_sam`.
      nesterov: Nesterov's momentum.
      weight_decay: added to the gradient (L2).
      mask: which leaves decay, as in `optax.add_decayed_weights`.

    Returns:
      A `GradientTransformationExtraArgs`; its updates need `oracle=` or `obj_fn=`.

    Raises:
      ValueError: naming the argument that is out of range, or `oracle` where there is no loss.

    Source: Sharpness-Aware Minimization for Efficiently Improving Generalization,
    arXiv 2010.01412, algorithm 1; davda54/sam sam.py.

    >>> tx, params = sam(0.1, rho=0.5), jnp.array([3.0, 4.0])
    >>> loss = lambda p: jnp.sum(p**2) / 2
    >>> updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, obj_fn=loss)
    >>> np.asarray(updates, float).round(3).tolist()
    [-0.33, -0.44]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("momentum", momentum, 0, 1, open_high=True)
    check_range("weight_decay", weight_decay, 0)
    return optax.with_extra_args_support(
        optax.chain(
            scale_by_sam(rho, adaptive=adaptive, eta=eta),
            decayed_weights(weight_decay, mask),
            on_floats(optax.trace(momentum, nesterov)),
            optax.scale_by_learning_rate(learning_rate),
        )
    )


def log_ratio_kl(
    target: Float[Array, "*batch classes"], logits: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """KL(softmax(target) || softmax(logits)) of each row, in the accumulation dtype."""
    dtype = accumulation_dtype(target, logits)
    q, p = (jax.nn.log_softmax(jnp.asarray(x, dtype), axis=-1) for x in (target, logits))
    return jnp.sum(jnp.exp(q) * (q - p), axis=-1)
