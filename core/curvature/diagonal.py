"""Value, gradient and an estimate of the diagonal of the Hessian, in one pass over the model."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import check, check_count, check_key
from .batches import Batch, average, combine
from .estimators import Estimator, Floats, Measured, hutchinson
from .trees import Split, varying_like

AxisName = Hashable | tuple[Hashable, ...]


class Curvature(NamedTuple):
    """An estimate of the diagonal of the Hessian, as the optimizers take it (`curvature=`).

    Attributes:
      diag: a tree of the shapes and dtypes of the parameters [...]; signed, neither averaged over
        axes nor made absolute. None where it is known at trace time that there is no new estimate.
      valid: whether this step has a new estimate: a Python bool, or a traced one [].
    """

    diag: Any
    valid: Any = True


def value_grad_and_diag(
    fun: Callable[..., Any],
    *,
    estimator: Estimator | None = None,
    fraction: float = 1.0,
    microbatches: int = 1,
    axis_name: AxisName | None = None,
    has_aux: bool = False,
    batch_argnums: int | Sequence[int] | None = None,
) -> Callable[..., Any]:
    """Value, gradient and an estimate of the diagonal of the Hessian of a loss, in one fused pass.

        (f, g, diag) = value_grad_and_diag(f)(p, *args, key=key)

    This is the pass that feeds `papyrax.optim.adahessian`, `sophia_h` and `sophia_g`:

        (value, grads, curvature) = f(params, batch, key=key, refresh=step % 10 == 0)
        updates, state = tx.update(grads, state, params, curvature=curvature)

    What it costs, in gradients: 3 with `hutchinson`, 5/3 with `gnb`, and 1 + 2 `fraction` with
    Hutchinson on a part of the batch. `refresh` as a Python bool compiles two programs, one with
    curvature and one without it, and neither has a conditional; a traced `refresh` puts one
    `lax.cond` around the whole pass (slow around convolutions on CPUs).

    With plain jit over sharded arrays there is nothing else to do. In `shard_map` or `pmap`, each
    device calls it on its own shard of the batch with the same parameters and key, and `axis_name`
    averages value, gradient and curvature (the auxiliary output stays local).

    Args:
      fun: `fun(params, *args, **kwargs)` returning the loss [], a mean over the batch; with
        `gnb`, the outputs [..., outputs] instead; with `has_aux` a pair of that and anything.
      estimator: `hutchinson()` (the default), `gnb(...)` or `exact_diagonal()`.
      fraction: the part of the batch that curvature is computed on; the gradient uses all of it.
      microbatches: into how many pieces the batch is cut, one after the other.
      axis_name: axes of devices to average over inside `shard_map` or `pmap`.
      has_aux: whether `fun` returns an auxiliary output. With `fraction` or `microbatches` it is
        combined: floats are averaged over the pieces, integers added up, and random keys are
        those of the first piece.
      batch_argnums: which arguments have the batch on their first axis, counted as in `jax.grad`
        (0 is the parameters); by default every positional array that is not a scalar. Only
        `fraction` and `microbatches` use it; keyword arguments are never cut.

    Returns:
      A function `(params, *args, key, refresh=True, **kwargs) -> (value [], gradient, Curvature)`,
      where value is `(value, aux)` with `has_aux`, and the trees have the shapes [...] of
      `params`. Integer leaves of `params` are constants.

    Raises:
      ValueError: naming the argument that does not fit: `fraction` or `microbatches` that do not
        divide the batch, arrays without a common batch axis, or a bad `key`.

    Source: ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, arXiv 2006.00719,
    section 3.1; the sub-batch for curvature: Sophia, arXiv 2305.14342, section 2.3.

    >>> f = value_grad_and_diag(lambda p, x: jnp.mean(x @ p**2))
    >>> p, x = jnp.array([1.0, 2.0]), jnp.ones((4, 2))
    >>> value, grads, curvature = f(p, x, key=jax.random.key(0))
    >>> float(value), grads.tolist(), curvature.diag.tolist(), curvature.valid
    (5.0, [2.0, 4.0], [2.0, 2.0], True)
    >>> f(p, x, key=jax.random.key(0), refresh=False)[2]
    Curvature(diag=None, valid=False)
    """
    chosen = hutchinson() if estimator is None else estimator
    check(
        isinstance(chosen, Estimator),
        "estimator",
        f"got {estimator!r}, takes what hutchinson(), gnb(...) or exact_diagonal() return",
    )
    fits = isinstance(fraction, int | float) and 0 < fraction <= 1
    check(fits, "fraction", f"got {fraction!r}, takes a number in (0, 1]")
    check_count(microbatches=microbatches)

    def passes(
        split: Split, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, refresh: bool
    ) -> tuple[Any, jax.Array, Floats, Floats]:
        """The whole pass for a `refresh` that is known."""
        floats = split.floats
        device: Any = 0
        if axis_name is not None:
            # shard_map knows that replicated parameters are the same everywhere, and would add up
            # their gradient over the devices. Here each device is to have its own.
            device = jax.lax.axis_index(axis_name)
            floats = [varying_like(x, device) for x in floats]

        def first_order(args: Any) -> tuple[Any, Measured]:
            return chosen.first_order(split.bind(fun, has_aux, args, kwargs), args, floats)

        def second_order(args: Any, piece: Any) -> tuple[Any, Measured]:
            model = split.bind(fun, has_aux, args, kwargs)
            return chosen.measure(model, args, floats, key, piece)

        def one(args: Any, piece: Any) -> tuple[Any, Measured]:
            """One piece: all of it with curvature, or a part with and the rest without."""
            if not refresh:
                return first_order(args)
            if fraction == 1:
                return second_order(args, piece)
            part, rest = Batch(args, batch_argnums).split(fraction)
            (aux, a), (aux_rest, b) = second_order(part, piece), first_order(rest)
            weights = (fraction, 1 - fraction)
            stack = functools.partial(jax.tree.map, lambda *x: jnp.stack(x))
            value, grads = combine(stack((a.value, a.grads), (b.value, b.grads)), weights)
            return combine(stack(aux, aux_rest), weights), a._replace(value=value, grads=grads)

        if microbatches == 1:
            aux, mean = one(args, device)
        else:
            aux, mean = average(
                lambda args, i: one(args, device * microbatches + i),
                Batch(args, batch_argnums),
                microbatches,
            )
        terms = mean.terms * microbatches
        if axis_name is not None:
            mean = jax.tree.map(lambda x: jax.lax.pmean(x, axis_name), mean)
            terms = jax.lax.psum(terms, axis_name)
        diag = (
            chosen.diagonal(mean.statistic, terms)
            if refresh
            else [jnp.zeros_like(x) for x in split.floats]
        )
        return aux, mean.value, mean.grads, diag

    def value_grad_and_curvature(
        params: Any, *args: Any, key: jax.Array, refresh: Any = True, **kwargs: Any
    ) -> Any:
        split = Split.of(params)
        check_key(key=key)
        if isinstance(refresh, jax.core.Tracer):
            outcome = jax.lax.cond(
                refresh,
                lambda: passes(split, args, kwargs, key, True),
                lambda: passes(split, args, kwargs, key, False),
            )
        else:
            is_bool = np.ndim(refresh) == 0 and np.asarray(refresh).dtype == np.bool_
            check(is_bool, "refresh", f"got {refresh!r}, takes a bool")
            refresh = bool(refresh)
            outcome = passes(split, args, kwargs, key, refresh)
        aux, value, grads, diag = outcome
        curvature = Curvature(None if refresh is False else split.fill(diag), refresh)
        return (value, aux) if has_aux else value, split.fill(grads), curvature

    return value_grad_and_curvature
