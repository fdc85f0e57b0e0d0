"""Declarations for the envelope of few groups."""

import numpy as np

from contracts.case import Bad, Case, OptimizerCase


def arrays(rng):
    return {"x": rng.normal(size=(3, 5)), "weights": rng.uniform(0.5, 2, 5)}


BAD = (
    Bad("k: got", {"k": 0}),
    Bad("x", {"x": np.ones((3, 5), np.int32)}),
    Bad("weights", {"weights": np.ones(4)}),
)

CASES = [
    Case(
        "papyrax.optim.group_envelope",
        arrays=arrays,
        static={"k": 2},
        rows=None,
        differentiable=False,  # its proximal step takes the place of a derivative
        bad=BAD,
    ),
    Case(
        "papyrax.optim.group_envelope_prox",
        arrays=arrays,
        static={"k": 2, "strength": 0.3},
        rows=None,
        differentiable=False,  # as above
        bad=(*BAD, Bad("strength: got", {"strength": -1.0})),
    ),
    OptimizerCase(
        "papyrax.optim.proximal_group_envelope",
        {"k": 2, "strength": 0.1, "learning_rate": 0.1},
        numeric=("strength", "learning_rate"),
        descends=False,  # it follows an optimizer
        bad=(
            Bad("k: got", {"k": 0}),
            Bad("strength: got", {"strength": -1.0}),
            Bad("learning_rate: got", {"learning_rate": -1.0}),
        ),
    ),
]
