"""What is done to the weights themselves once an optimizer has moved them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..curvature.trees import is_floating
from ..numerics import accumulation_dtype, check


def changed(change: Callable[[jax.Array], jax.Array], updates: Any, params: Any) -> Any:
    """The updates that take weights of two axes or more to `change` of where they were going."""
    check(params is not None, "params", "got None, takes the parameters")

    def one(update: Any, param: Any) -> Any:
        if jnp.ndim(update) < 2 or jnp.size(update) == 0 or not is_floating(param):
            return update
        wide = accumulation_dtype(param, update)
        w = jnp.asarray(param, wide)
        return (change(w + jnp.asarray(update, wide)) - w).astype(update.dtype)

    return jax.tree.map(one, updates, params)


def after_step(change: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformationExtraArgs:
    """Last in a chain: leaves of two axes or more become `change` of where the step takes them."""

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, optax.EmptyState]:
        del extra_args  # they are for other transformations
        return changed(change, updates, params), state

    return optax.GradientTransformationExtraArgs(init, update)
