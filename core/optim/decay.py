"""Transformations of optax that leave integer parameters alone."""

from typing import Any

import jax
import optax

from ..curvature.trees import is_floating


def on_floats(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` for floating-point leaves: of integer ones it would turn the state to floats."""
    return optax.masked(tx, lambda tree: jax.tree.map(is_floating, tree))


def decayed_weights(weight_decay: Any, mask: Any) -> optax.GradientTransformation:
    """`optax.add_decayed_weights`, which would let integer leaves decay as well."""
    if isinstance(weight_decay, int | float) and weight_decay == 0:
        return optax.identity()  # which asks for no parameters

    def add(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("params: got None, takes the parameters, which decay")
        return jax.tree.map(
            lambda u, p: u + weight_decay * p if is_floating(p) else u, updates, params
        )

    decay = optax.stateless(add)
    return decay if mask is None else optax.masked(decay, mask)
