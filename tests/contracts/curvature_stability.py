"""Declarations for the stability of SGD at minima."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case

EXAMPLES, DIM = 5, 3
GRADIENTS = (
    Bad("gradients", {"gradients": lambda a: a["gradients"][0]}),
    Bad("gradients", {"gradients": np.ones((EXAMPLES, DIM), np.int32)}),
)
SIZES = (Bad("batch_size: got", {"batch_size": 0}), Bad("order: got", {"order": 1.5}))


def gradients(rng):
    return {"gradients": rng.normal(size=(EXAMPLES, DIM))}


def stacked(fn, **arguments):
    return jnp.stack(fn(**arguments))


CASES = [
    Case(
        "papyrax.curvature.sgd_stability",
        arrays=gradients,
        static={"batch_size": 2},
        call=stacked,
        differentiable=False,  # eigenvalues that meet have no derivative
        keeps_dtype=False,
        tolerance=4e-2,
        bad=(*GRADIENTS, *SIZES),
    ),
    Case(
        "papyrax.curvature.sgd_moment_growth",
        arrays=gradients,
        static={"learning_rate": 0.1},
        differentiable=False,
        keeps_dtype=False,
        tolerance=4e-2,
        bad=(*GRADIENTS, *SIZES, Bad("learning_rate: got", {"learning_rate": 0.0})),
    ),
    Case(
        "papyrax.curvature.noise_alignment",
        arrays=lambda rng: {**gradients(rng), "residuals": rng.normal(size=EXAMPLES)},
        call=stacked,
        differentiable=False,
        keeps_dtype=False,
        tolerance=4e-2,
        bad=(
            *GRADIENTS,
            Bad("residuals", {"residuals": np.ones(2)}),
            Bad("residuals", {"residuals": np.ones(EXAMPLES, np.int32)}),
        ),
    ),
]
