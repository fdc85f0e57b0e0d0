"""AdaHessian with its step in one pass: parameters in, parameters out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from ..curvature import Curvature
from ..curvature.trees import Split
from ..kernels.hessian_diagonal.api import IMPLEMENTATIONS, adahessian_step
from ..kernels.hessian_diagonal.reference import Constants, Numbers
from ..numerics import check, check_range
from .adahessian import AdahessianState, AverageOf, scale_by_adahessian
from .curvature import one_minus_power


class FusedOptimizer(NamedTuple):
    """An optimizer that writes the parameters itself, for want of a pass over their update.

    Attributes:
      init: `init(params) -> state`, as of an optax transformation.
      step: `step(params, state, grads, curvature) -> (params, state)`; give both away
        (`jax.jit(..., donate_argnums=(0, 1))`) to have them written in place.
    """

    init: Callable[[Any], AdahessianState]
    step: Callable[..., tuple[Any, AdahessianState]]


def fused_adahessian(
    learning_rate: optax.ScalarOrSchedule = 0.15,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-4,
    hessian_power: float = 1.0,
    *,
    weight_decay: Any = 0.0,
    average: str = "spatial",
    average_of: AverageOf = "abs",
    min_curvature: float = 0.0,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
    implementation: str | None = None,
) -> FusedOptimizer:
    """`adahessian` whose step goes over parameters, gradient, diagonal and moments once.

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) s^2
        p <- p - learning_rate ((m / (1 - b1^t)) / ((v / (1 - b2^r))^(k/2) + eps) + weight_decay p)

    Eight numbers are moved for a parameter, five in and three out, which is the least. XLA does the
    same for `optax.apply_updates` of `adahessian` within one jit, with one launch a leaf; what the
    Pallas kernels save is launches, for models of many small leaves: they take six leaves (TPU) or
    sixteen (GPU) in one. They were run in Pallas' interpreter and compiled for TPUs, but not yet
    timed on either, so that None stands for "xla". The state is that of `scale_by_adahessian`, and
    the same steps are made: the two can take turns.

    Args:
      learning_rate: a number or a schedule.
      b1: decay of the gradient's average, in [0, 1).
      b2: decay of the squared diagonal's average, in [0, 1).
      eps: added to the denominator, after the power.
      hessian_power: k in [0, 1].
      weight_decay: decoupled decay, multiplied by the learning rate.
      average: "spatial" averages leaves of three axes and more over all but the last two; "none".
      average_of: "abs" or "signed", as in `scale_by_adahessian`.
      min_curvature: the root of v is at least this.
      mu_dtype: dtype of m; that of the parameters by default.
      nu_dtype: dtype of v; that of the parameters by default, but float32 for half precision.
      implementation: "xla", "pallas_tpu", "pallas_triton", or "interpret" and "interpret_triton",
        which run their kernels on any platform; None is "xla". The kernels take no float64, and
        sharded arrays inside `jax.shard_map` alone.

    Returns:
      A `FusedOptimizer`.

    Raises:
      ValueError: naming the argument that is out of range; when a program is compiled, for an
        implementation that cannot run there.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    algorithm 1; `scale_by_adahessian` has what differs between the paper and its code.

    >>> tx, params = fused_adahessian(1.0, b1=0.0, b2=0.0, eps=0.0), jnp.array([3.0, 1.0])
    >>> f = papyrax.curvature.value_grad_and_diag(lambda p: p[0] ** 2 + 50 * p[1] ** 2)
    >>> value, grads, curvature = f(params, key=jax.random.key(0))
    >>> params, state = tx.step(params, tx.init(params), grads, curvature)
    >>> params.tolist()
    [0.0, 0.0]
    """
    check_range("learning_rate", None if callable(learning_rate) else learning_rate, 0)
    check_range("weight_decay", weight_decay, 0)
    check(average in ("spatial", "none"), "average", f"got {average!r}, takes 'spatial' or 'none'")
    check(
        implementation in (None, *IMPLEMENTATIONS),
        "implementation",
        f"got {implementation!r}, takes None or one of {', '.join(IMPLEMENTATIONS)}",
    )
    rule = scale_by_adahessian(
        b1,
        b2,
        eps,
        hessian_power,
        average=average,  # type: ignore[arg-type]
        average_of=average_of,
        min_curvature=min_curvature,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
    )
    constants = Constants(b1, b2, eps, hessian_power, min_curvature, average_of)

    def step(
        params: Any, state: AdahessianState, grads: Any, curvature: Curvature | None = None
    ) -> tuple[Any, AdahessianState]:
        split = Split.of(params)
        g = split.match("grads", grads, cast=False)
        diag, valid = (None, False) if curvature is None else curvature
        if diag is None:
            diag, valid = grads, False
        d = split.match("curvature", diag, cast=False)
        count = optax.safe_increment(state.count)
        refreshes = jnp.where(valid, optax.safe_increment(state.refreshes), state.refreshes)
        moments = (Split.of(state.mu, "state"), Split.of(state.nu, "state"))
        dtype = jnp.result_type(jnp.float32, *split.floats)
        numbers = Numbers(
            learning_rate(state.count) if callable(learning_rate) else learning_rate,
            weight_decay,
            one_minus_power(b1, count, dtype),
            one_minus_power(b2, jnp.maximum(refreshes, 1), dtype),
            jnp.asarray(valid, dtype),
            jnp.asarray(refreshes > 0, dtype),
        )
        p, m, v = adahessian_step(
            split.floats,
            g,
            d,
            *(x.floats for x in moments),
            numbers=numbers,
            constants=constants,
            spatial=average == "spatial",
            implementation=implementation,
        )
        mu, nu = (old.join(new) for old, new in zip(moments, (m, v), strict=True))
        return split.join(p), AdahessianState(count, refreshes, mu, nu)

    return FusedOptimizer(rule.init, step)
