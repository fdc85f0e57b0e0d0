"""Declarations for the tails of spectra."""

import numpy as np

from contracts.case import Bad, Case

CASES = [
    Case(
        "papyrax.curvature.farms_eigenvalues",
        arrays=lambda rng: {"weights": rng.normal(size=(2, 5, 4))},
        static={"size": 3, "windows": 2},
        rows=None,
        differentiable=False,  # singular values that meet have no derivative
        bad=(
            Bad("weights: got dtype", {"weights": np.ones((3, 3), np.int32)}),
            Bad("weights: got shape", {"weights": np.ones(3)}),
            Bad("size: got", {"size": 0}),
            Bad("windows: got", {"windows": 0}),
            Bad("stride: got", {"stride": 0}),
            Bad("aspect: got", {"aspect": 0.0}),
            Bad("aspect: got", {"aspect": 9.0}),
        ),
    ),
    Case(
        "papyrax.curvature.hill_exponent",
        arrays=lambda rng: {"eigenvalues": rng.uniform(0.1, 5, (3, 6))},
        wrt=("eigenvalues",),
        tolerance=5e-2,
        bad=(
            Bad("eigenvalues: got dtype", {"eigenvalues": np.ones(3, np.int32)}),
            Bad("eigenvalues: got", {"eigenvalues": np.ones(())}),
            Bad("eigenvalues: got none", {"eigenvalues": np.ones(0)}),
            Bad("tail: got", {"tail": 0.0}),
        ),
    ),
    Case(
        "papyrax.curvature.power_law_fit",
        arrays=lambda rng: {"eigenvalues": rng.uniform(0.1, 5, (3, 6))},
        wrt=("eigenvalues",),
        call=lambda fn, eigenvalues, **options: fn(eigenvalues, **options).exponent,
        tolerance=5e-2,
        bad=(
            Bad("eigenvalues: got dtype", {"eigenvalues": np.ones(3, np.int32)}),
            Bad("eigenvalues: got", {"eigenvalues": np.ones(())}),
            Bad("eigenvalues: got none", {"eigenvalues": np.ones(0)}),
            Bad("candidates: got", {"candidates": "some"}),
            Bad("bins: got", {"bins": 0}),
        ),
    ),
]
