"""Declarations for products with an inverse empirical Fisher matrix."""

import functools

import numpy as np

from contracts.case import Bad, Case
from papyrax import curvature

GRADIENTS, SIZE = 4, 7


def arrays(rng):
    return {"gradients": rng.normal(size=(GRADIENTS, SIZE)), "vector": rng.normal(size=SIZE)}


def weights(rng):
    return {
        "gradients": rng.normal(size=(GRADIENTS, SIZE)),
        "weights": rng.normal(size=SIZE),
        "pruned": np.arange(SIZE) % 3 == 0,
    }


def product(fn, gradients, vector, **options):
    return curvature.inverse_fisher_vp(fn(gradients, **options), vector)


def query(fn, gradients, vector, **options):
    return fn(curvature.inverse_fisher(gradients, **options), vector)


def diagonal(fn, gradients, fisher=None, **options):
    return fn(curvature.inverse_fisher(gradients, **options) if fisher is None else fisher)


def update(fn, gradients, weights, pruned, **options):
    return fn(curvature.inverse_fisher(gradients, **options), weights, pruned)


make = functools.partial(Case, wrt=("gradients",), rows=None, tolerance=4e-2)
STATIC = {"damping": 0.1, "block_size": 3}

CASES = [
    make(
        "papyrax.curvature.inverse_fisher",
        arrays=arrays,
        wrt=("gradients", "vector"),
        static=STATIC,
        call=product,
        bad=(
            Bad("gradients", {"gradients": lambda a: a["gradients"][0]}),
            Bad("gradients", {"gradients": np.ones((4, 7), np.int32)}),
            Bad("damping", {"damping": 0.0}),
            Bad("block_size", {"block_size": 0}),
        ),
    ),
    make(
        "papyrax.curvature.inverse_fisher_vp",
        arrays=arrays,
        wrt=("gradients", "vector"),
        static={"damping": 0.1},
        call=query,
        bad=(
            Bad("vector", {"vector": lambda a: a["vector"][:3]}),
            Bad("vector", {"vector": np.ones(SIZE, np.int32)}),
        ),
    ),
    make(
        "papyrax.curvature.inverse_fisher_diagonal",
        arrays=lambda rng: {"gradients": rng.normal(size=(GRADIENTS, SIZE))},
        static=STATIC,
        call=diagonal,
        bad=(Bad("fisher", {"fisher": (1, 2)}),),
    ),
    make(
        "papyrax.curvature.obs_saliency",
        arrays=lambda rng: {
            "weights": rng.normal(size=SIZE),
            "inverse_diagonal": rng.uniform(0.5, 2, SIZE),
        },
        wrt=("weights", "inverse_diagonal"),
        skip_extremes=dict.fromkeys(
            ("-1e4", "alternating +-1e4", "zeros"), "the diagonal of an inverse is positive"
        ),
        extremes=lambda a: {
            "zero weights": {**a, "weights": np.zeros(SIZE)},
            "huge weights": {**a, "weights": np.full(SIZE, -1e4)},
        },
        bad=(
            Bad("inverse_diagonal", {"inverse_diagonal": np.ones(3)}),
            Bad("weights", {"weights": np.ones(SIZE, np.int32)}),
        ),
    ),
    make(
        "papyrax.curvature.obs_update",
        arrays=weights,
        wrt=("gradients", "weights"),
        static=STATIC,
        call=update,
        bad=(
            Bad("weights", {"weights": lambda a: a["weights"][:3]}),
            Bad("pruned", {"pruned": np.ones(3, bool)}),
            Bad("pruned", {"pruned": np.ones(SIZE, np.int32)}),
        ),
    ),
]
