"""Declarations for TRAM."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case, OptimizerCase
from papyrax.optim import local_oracle


def with_radius(loss, params, batch, key):
    return {"oracle": local_oracle(loss, params, batch), "radius": jnp.asarray(0.1)}


RULE_BAD = (Bad("scale: got", {"scale": -1.0}), Bad("eta: got", {"eta": -1.0}))

CASES = [
    OptimizerCase(
        "papyrax.optim.scale_by_tram",
        {"scale": 0.5},
        numeric=("scale", "eta"),
        extra=with_radius,
        descends=False,
        bad=RULE_BAD,
    ),
    OptimizerCase(
        "papyrax.optim.tram",
        {"learning_rate": 0.01},
        numeric=("learning_rate", "scale", "b1", "b2", "eps", "eta", "weight_decay"),
        extra=with_radius,
        bad=(
            *RULE_BAD,
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("b1: got", {"b1": 1.0}),
            Bad("b2: got", {"b2": -0.1}),
            Bad("eps: got", {"eps": 0.0}),
            Bad("weight_decay: got", {"weight_decay": -1.0}),
        ),
    ),
    Case(
        "papyrax.optim.tram_distance",
        arrays=lambda rng: {
            "logits": rng.normal(size=(3, 4)),
            "reference_logits": rng.normal(size=(3, 4)),
        },
        wrt=("logits", "reference_logits"),
        static={"kind": "symmetric"},
        tolerance=4e-2,
        bad=(
            Bad("kind: got", {"kind": "both"}),
            Bad("logits", {"logits": np.ones((3, 4), np.int32)}),
            Bad("reference_logits", {"reference_logits": np.ones((3, 2))}),
        ),
    ),
]
