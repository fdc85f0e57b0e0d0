"""Declarations for sparse training by shrinkage."""

import numpy as np

from contracts.case import Bad, Case, OptimizerCase

BAD = (
    Bad("sparsity: got", {"sparsity": 1.5}),
    Bad("pattern: got", {"pattern": (4, 2)}),
    Bad("pattern: got", {"pattern": (1, 2, 3)}),
)

CASES = [
    Case(
        "papyrax.optim.magnitude_masks",
        arrays=lambda rng: {"params": rng.normal(size=(3, 4))},
        static={"sparsity": 0.6},
        rows=None,
        differentiable=False,
        bad=(*BAD, Bad("pattern: got", {"pattern": (1, 2), "params": np.ones((3, 4))})),
    ),
    OptimizerCase(
        "papyrax.optim.iterative_soft_shrinkage",
        {"sparsity": 0.6, "ratio": 0.9},
        numeric=("sparsity", "ratio"),
        descends=False,  # it follows an optimizer
        bad=(
            *BAD,
            Bad("ratio: got", {"ratio": 1.5}),
        ),
    ),
]
