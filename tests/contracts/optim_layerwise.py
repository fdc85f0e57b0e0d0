"""Declarations for layer-wise allocation."""

import numpy as np

from contracts.case import Bad, Case


def exponents(rng):
    return {"exponents": rng.uniform(1.5, 4, 4)}


BAD = (
    Bad("exponents: got dtype", {"exponents": np.ones(4, np.int32)}),
    Bad("exponents: got shape", {"exponents": np.ones((4, 1))}),
    Bad("low: got", {"low": -1.0}),
    Bad("high: got", {"high": -1.0}),
)
CASES = [
    Case(
        "papyrax.optim.layerwise_scales",
        arrays=exponents,
        wrt=("exponents",),
        rows=None,
        bad=BAD,
    ),
    Case(
        "papyrax.optim.layerwise_sparsity",
        arrays=exponents,
        wrt=("exponents",),
        static={"sizes": (10, 20, 5, 40), "sparsity": 0.6},
        rows=None,
        bad=(
            *BAD,
            Bad("sizes: got", {"sizes": (1, 2)}),
            Bad("sparsity: got", {"sparsity": 1.5}),
        ),
    ),
]
