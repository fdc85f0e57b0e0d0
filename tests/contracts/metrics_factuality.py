"""Declarations for the measures of generated reports."""

import numpy as np

from contracts.case import Bad, Case

CASES = [
    Case(
        "papyrax.metrics.green_score",
        lambda rng: {
            "matched": rng.integers(0, 4, 4).astype(float),
            "errors": rng.integers(0, 3, (4, 6)).astype(float),
        },
        differentiable=False,
        bad=(
            Bad("matched: got shape", {"matched": np.zeros(3)}),
            Bad("errors: got dtype", {"errors": np.zeros((4, 6), np.int32)}),
        ),
    ),
]
