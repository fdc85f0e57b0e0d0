"""Declarations for losses with adaptive margins."""

import numpy as np

from contracts.case import Bad, Case


def cosines_labels(rng):
    return {
        "cosines": rng.uniform(-0.9, 0.9, (5, 4)),
        "labels": rng.integers(0, 4, 5).astype(np.int32),
    }


BAD = (
    Bad("cosines: got dtype", {"cosines": np.zeros((5, 4), np.int32)}),
    Bad("labels: got dtype", {"labels": np.zeros(5)}),
    Bad("labels: got shape", {"labels": np.zeros(4, np.int32)}),
    Bad("median_probability: got", {"median_probability": 1.0}),
    Bad("class_constant: got", {"class_constant": 0.0}),
    Bad("min_scale: got", {"min_scale": 0.0}),
    Bad("max_scale: got", {"max_scale": -1.0}),
    Bad("others: got", {"others": "all"}),
)

CASES = [
    Case(
        "papyrax.losses.madacos",
        cosines_labels,
        ("cosines",),
        finite_differences=False,  # scale and margin are constants
        bad=BAD,
    ),
    Case(
        "papyrax.losses.madacos_parameters",
        cosines_labels,
        differentiable=False,
        keeps_dtype=False,
        bad=BAD,
    ),
]
