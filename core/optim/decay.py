"""Decoupled weight decay that leaves integer parameters alone."""

from typing import Any

import jax
import optax

from ..curvature.trees import is_floating


def decayed_weights(weight_decay: Any, mask: Any) -> optax.GradientTransformation:
    """`optax.add_decayed_weights`, which would let integer leaves decay as well."""

    def add(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("params: got None, takes the parameters, which decay")
        return jax.tree.map(
            lambda u, p: u + weight_decay * p if is_floating(p) else u, updates, params
        )

    decay = optax.stateless(add)
    return decay if mask is None else optax.masked(decay, mask)
