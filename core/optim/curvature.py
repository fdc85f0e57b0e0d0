"""How optimizers take curvature, and how a training loop knows that one of them wants it.

A transformation that uses the diagonal of the Hessian takes, as extra arguments of its `update`,

- `curvature=`, a `papyrax.curvature.Curvature` from the pass that computed the gradient, or
- `obj_fn=`, the loss as a function of the parameters (as `optax.contrib.sophia` does), or
- neither, on the steps that keep the last estimate,

and counts its estimates in a field `refreshes` of its state. That field is the whole protocol: it
is found by `wants_curvature` however deep `optax.chain`, `masked`, `partition`, `MultiSteps`,
`inject_hyperparams` or `nnx.Optimizer` have put the state, and any transformation of one's own
that follows it is served by the training loops of this library.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..curvature import Curvature, hvp, rademacher_like
from ..numerics import check, check_range


class CurvaturePlan(NamedTuple):
    """How the curvature of an optimizer is meant to be estimated.

    Attributes:
      estimator: "hutchinson" or "gnb", the function of `papyrax.curvature` of that name.
      every: the number of steps from one estimate to the next.
    """

    estimator: str
    every: int


_PLANS = {
    "adahessian": CurvaturePlan("hutchinson", 1),
    "sophia_h": CurvaturePlan("hutchinson", 10),
    "sophia_g": CurvaturePlan("gnb", 10),
}


def curvature_plan(name: str) -> CurvaturePlan | None:
    """How the authors of an optimizer of this room estimate its curvature, and how often.

    Args:
      name: name of a function of `papyrax.optim`, such as "sophia_g".

    Returns:
      The plan, or None for an optimizer that needs gradients alone.

    Raises:
      ValueError: if `name` is not a string.

    Source: AdaHessian, arXiv 2006.00719, algorithm 1; Sophia, arXiv 2305.14342, algorithm 3.

    >>> curvature_plan("sophia_g")
    CurvaturePlan(estimator='gnb', every=10)
    >>> curvature_plan("adamw") is None
    True
    """
    check(isinstance(name, str), "name", f"got {name!r}, takes a name such as 'adahessian'")
    return _PLANS.get(name)


def wants_curvature(state: Any) -> bool:
    """Whether an optimizer's state belongs to a transformation that takes `curvature=`.

    True where some part of the state, however deeply wrapped, has a field `refreshes`.

    Args:
      state: what `tx.init(params)` returned (or `jax.eval_shape(tx.init, params)`, which computes
        nothing), or the `opt_state` of an `nnx.Optimizer`.

    Returns:
      A Python bool.

    Raises:
      ValueError: if `state` is a transformation instead of its state.

    Source: this library; AdaHessian, arXiv 2006.00719, and Sophia, arXiv 2305.14342, need it.

    >>> tx = optax.chain(optax.clip(1.0), papyrax.optim.adahessian(0.1))
    >>> wants_curvature(tx.init(jnp.ones(3)))
    True
    >>> wants_curvature(optax.adam(0.1).init(jnp.ones(3)))
    False
    """
    is_state = not isinstance(state, optax.GradientTransformation)
    check(is_state, "state", "got a transformation, takes its state, tx.init(params)")

    def found(x: Any) -> bool:
        return hasattr(type(x), "refreshes")

    return any(map(found, jax.tree.leaves(state, is_leaf=found)))


def resolve(
    *,
    updates: Any,
    params: Any,
    curvature: Curvature | None,
    obj_fn: Callable[[Any], Any] | None,
    seed: Any,
    count: jax.Array,
    update_interval: Any,
) -> Curvature:
    """The curvature of this step in the structure of `updates`, whichever way it came.

    Masked leaves of `updates` are masked in it too, so that a transformation inside
    `optax.masked` or `optax.partition` gets what belongs to it without any option of theirs.
    """
    if curvature is None and obj_fn is not None:
        curvature = _from_objective(obj_fn, params, seed, count, update_interval)
    fits = curvature is None or (hasattr(curvature, "diag") and hasattr(curvature, "valid"))
    got = type(curvature).__name__
    check(fits, "curvature", f"got {got}, takes a papyrax.curvature.Curvature")
    if curvature is None or curvature.diag is None or curvature.valid is False:
        return Curvature(None, False)

    def follow(update: Any, diag: Any) -> Any:
        if isinstance(update, optax.MaskedNode):
            return update
        check(
            jnp.shape(diag) == jnp.shape(update),
            "curvature",
            f"got a leaf of shape {jnp.shape(diag)}, takes {jnp.shape(update)} as the gradient",
        )
        return diag

    is_masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_masked)
    try:
        diag = treedef.flatten_up_to(curvature.diag)
    except ValueError as error:
        raise ValueError(f"curvature: its diag is not a tree like the gradient: {error}") from None
    return Curvature(treedef.unflatten(map(follow, leaves, diag)), curvature.valid)


def _from_objective(
    obj_fn: Callable[[Any], Any], params: Any, seed: Any, count: jax.Array, update_interval: Any
) -> Curvature:
    """One Hutchinson probe of `obj_fn`: a pass of its own, beside that of the gradient."""
    check(params is not None, "params", "got None, takes the parameters, with obj_fn")
    is_masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    check(
        not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))),
        "obj_fn",
        "got masked parameters, on which a loss cannot be computed; pass curvature= instead",
    )

    def probe() -> Any:
        z = rademacher_like(jax.random.fold_in(jax.random.key(seed), count), params)
        return jax.tree.map(jnp.multiply, z, hvp(obj_fn)(params, z))

    if update_interval is None:
        return Curvature(probe(), True)
    due = count % update_interval == 0
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    return Curvature(jax.lax.cond(due, probe, zeros), due)


def refreshed(curvature: Curvature, new: Any, old: Any) -> Any:
    """`new` where this step has an estimate and `old` where it has none."""
    if curvature.valid is True:
        return new
    return jax.tree.map(lambda n, o: jnp.where(curvature.valid, n, o), new, old)


def finite_or(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` where it is finite: an overflow in one estimate must not outlive it in an average."""
    return jnp.where(jnp.isfinite(new), new, old)


def one_minus_power(decay: Any, count: jax.Array, dtype: Any) -> jax.Array:
    """`1 - decay^count` without the cancellation, which costs four digits at a decay of 0.999."""
    if isinstance(decay, int | float):
        log: Any = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(jnp.asarray(decay, dtype))
    return -jnp.expm1(count.astype(dtype) * log)


def check_interval(update_interval: Any) -> None:
    """Raise unless it is None or a positive integer (or traced)."""
    whole = update_interval is None or jnp.issubdtype(jnp.result_type(update_interval), jnp.integer)
    message = f"got {update_interval!r}, takes None or an integer of 1 or more"
    check(whole, "update_interval", message)
    check_range("update_interval", update_interval, 1)


def check_decays(b1: Any, b2: Any) -> None:
    """Raise unless both lie in [0, 1)."""
    check_range("b1", b1, 0, 1, open_high=True)
    check_range("b2", b2, 0, 1, open_high=True)
