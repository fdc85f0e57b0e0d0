"""Declarations for projections to low rank."""

import jax.numpy as jnp
import numpy as np

from contracts.case import Bad, Case, OptimizerCase

CASES = [
    Case(
        "papyrax.optim.low_rank_projection",
        arrays=lambda rng: {"x": rng.normal(size=(2, 4, 3))},
        static={"rank": 2},
        differentiable=False,  # singular values that meet have no derivative
        tolerance=4e-2,
        bad=(
            Bad("x: got dtype", {"x": np.ones((3, 3), np.int32)}),
            Bad("x: got shape", {"x": np.ones(3)}),
            Bad("rank: got", {"rank": 0}),
        ),
    ),
    Case(
        "papyrax.optim.low_rank_factors",
        arrays=lambda rng: {"x": rng.normal(size=(2, 4, 3))},
        static={"rank": 2},
        call=lambda fn, x, **static: jnp.matmul(*fn(x, **static)),  # of them signs are free
        differentiable=False,
        tolerance=4e-2,
        bad=(
            Bad("x: got dtype", {"x": np.ones((3, 3), np.int32)}),
            Bad("x: got shape", {"x": np.ones(3)}),
            Bad("rank: got", {"rank": 0}),
        ),
    ),
    OptimizerCase(
        "papyrax.optim.lpgd",
        {"learning_rate": 0.05, "rank": 3},
        numeric=("learning_rate",),
        bad=(
            Bad("learning_rate: got", {"learning_rate": -1.0}),
            Bad("rank: got", {"rank": 0}),
        ),
    ),
]
