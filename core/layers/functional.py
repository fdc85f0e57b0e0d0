"""A module and a loss as one function of parameters, as gradients and curvature take it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..numerics import check

Function = Callable[..., Any]


class Functional(NamedTuple):
    """A module and a loss without what they hide.

    Attributes:
      fun: `fun(params, *batch, state=None, **kwargs) -> (loss [], state)`; of a loss with an
        auxiliary output, `(loss [], (state, aux))`. It begins with `state`, that of the module for
        None, and returns the state after the batch.
      params: the module's `nnx.Param`s, a tree of dicts and arrays.
      state: everything else that it keeps: running moments, random keys.
      merge: `merge(params, state) -> module`.
    """

    fun: Function
    params: Any
    state: Any
    merge: Function


def functional(
    module: nnx.Module, loss: Callable[..., Any], *, has_aux: bool = False
) -> Functional:
    """Turn a module and a loss into a pure function of the parameters.

        fun, params, state, merge = functional(module, loss)
        (value, state), grads = jax.value_and_grad(fun, has_aux=True)(params, x, y, state=state)

    It is what `papyrax.curvature` takes, with `has_aux=True`, and so what second-order optimizers
    train a module by; parts and microbatches of `value_grad_and_diag` cut positional arguments
    alone, so that the state goes to each as it is. What a batch then changes in the state, such as
    the moments of `nnx.BatchNorm`, is averaged over the parts if it is floating-point. Dropout
    draws anew in every call; the parts of one batch share their draws.

    Args:
      module: it stays as it is.
      loss: `loss(module, *batch, **kwargs) -> [] `, or a pair of that and anything with `has_aux`.
      has_aux: whether the loss returns an auxiliary output.

    Returns:
      The function, what it is called with first, and the way back to a module.

    Raises:
      ValueError: unless `module` is an `nnx.Module` and `loss` a function.

    Source: the split of a module into a graph and its state, flax.nnx; no arXiv number.

    >>> loss = lambda module, x, y: jnp.mean((module(x) - y) ** 2)
    >>> fun, params, state, merge = functional(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), loss)
    >>> f = papyrax.curvature.value_grad_and_diag(fun, has_aux=True)
    >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
    >>> (value, state), grads, curvature = f(params, x, y, key=jax.random.key(0), state=state)
    >>> curvature.diag["bias"].shape
    (1,)
    """
    check(isinstance(module, nnx.Module), "module", f"got {module!r}, takes an nnx.Module")
    check(callable(loss), "loss", f"got {loss!r}, takes a function of the module and the batch")
    graph, params, counts, state = _split(module)

    def merge(params: Any, state: Any) -> Any:
        return nnx.merge(graph, params, counts, state, copy=True)

    def fun(params: Any, *batch: Any, state: Any = None, **kwargs: Any) -> Any:
        module = merge(params, first if state is None else state)
        out = loss(module, *batch, **kwargs)
        value, *aux = out if has_aux else (out,)
        _, _, drawn, after = _split(module)
        after = _fold(after, drawn)
        return value, (after, *aux) if has_aux else after

    first = state
    return Functional(fun, params, state, merge)


def _split(module: Any) -> tuple[Any, Any, Any, Any]:
    """The graph, and trees of parameters, of counts of random draws, and of the rest."""
    split: Any = nnx.split(module, nnx.Param, nnx.RngCount, ...)
    params, counts, rest = map(nnx.to_pure_dict, split[1:])
    return split[0], params, counts, rest


def _fold(state: Any, counts: Any) -> Any:
    """The state with each random key moved on by its draws, after which they count from the start.

    Integers in an auxiliary output are added up over the parts of a batch, which counts that begin
    together must not be.
    """
    if not isinstance(counts, dict):
        return counts
    for name, count in counts.items():
        if name == "count" and "key" in state:
            state = state | {"key": jax.random.fold_in(state["key"], count.astype(jnp.uint32))}
        else:
            state = state | {name: _fold(state[name], count)}
    return state
