"""Declarations for the protocol between optimizers and training loops."""

import jax.numpy as jnp
import numpy as np
import optax

from contracts.case import Bad, Case
from papyrax import optim


def wants(fn, weights, state=None):
    """Both answers, as an array."""
    states = (
        [state]
        if state is not None
        else [
            optax.chain(optax.clip(1.0), optim.adahessian(0.1)).init(weights),
            optax.adam(0.1).init(weights),
        ]
    )
    return jnp.array([fn(x) for x in states])


CASES = [
    Case(
        "papyrax.optim.wants_curvature",
        arrays=lambda rng: {"weights": rng.normal(size=3)},
        call=wants,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(Bad("state", {"state": optax.adam(0.1)}),),
    ),
    Case(
        "papyrax.optim.curvature_plan",
        arrays=lambda rng: {"weights": np.zeros(1)},
        static={"name": "sophia_g"},
        call=lambda fn, weights, name: weights + fn(name).every,
        rows=None,
        differentiable=False,
        jittable=False,
        bad=(Bad("name", {"name": 3}),),
    ),
]
