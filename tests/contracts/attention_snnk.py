"""Declarations for the random features of scalable neural network kernels."""

import jax
import numpy as np

from contracts.case import Bad, Case


def relu(rng):
    return {"inputs": rng.normal(size=(3, 4)), "projections": rng.normal(size=(5, 4))}


def universal(rng):
    x = rng.uniform(-0.5, 0.5, size=(3, 4))
    return {"inputs": x, "projections": rng.normal(size=(5, 4)), "frequencies": rng.normal(size=5)}


def weights(rng):
    x = universal(rng)
    more = {name: rng.normal(size=5) for name in ("amplitudes", "phases")}
    return {"weights": x.pop("inputs"), **x, **more, "bias": rng.normal(size=3)}


def keys(rng):
    return {"key": jax.random.key(int(rng.integers(1000)))}


BAD = (
    Bad("projections", {"projections": np.ones(4)}),
    Bad("projections", {"projections": np.ones((5, 4), np.int32)}),
)
BAD_INPUTS = (
    Bad("inputs", {"inputs": np.ones((3, 5))}),
    Bad("inputs", {"inputs": np.ones((3, 4), np.int32)}),
)
BAD_FREQUENCIES = (
    Bad("frequencies", {"frequencies": np.ones(4)}),
    Bad("damping", {"damping": -1.0}),
)

CASES = [
    Case(
        "papyrax.attention.random_projections",
        keys,
        static={"features": 5, "dim": 3, "orthogonal": True},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        # A key draws other numbers in float64.
        tolerance=1e3,
        bad=(Bad("features", {"features": 0}), Bad("dim", {"dim": 2.5})),
    ),
    Case(
        "papyrax.attention.snnk_relu_features",
        relu,
        ("inputs", "projections"),
        rows_in=("inputs",),
        second_order=False,
        bad=(*BAD, *BAD_INPUTS),
    ),
    Case(
        "papyrax.attention.snnk_features",
        universal,
        ("inputs", "projections"),
        {"damping": 0.1},
        rows_in=("inputs",),
        tolerance=5e-2,
        bad=(*BAD, *BAD_INPUTS, *BAD_FREQUENCIES),
    ),
    Case(
        "papyrax.attention.snnk_weights",
        weights,
        ("weights", "amplitudes", "phases", "bias"),
        rows_in=("weights", "bias"),
        tolerance=5e-2,
        bad=(
            *BAD,
            *BAD_FREQUENCIES,
            Bad("weights", {"weights": np.ones(4)}),
            Bad("amplitudes", {"amplitudes": np.ones(4)}),
            Bad("phases", {"phases": np.ones(5, np.int32)}),
            Bad("bias", {"bias": np.ones(4)}),
        ),
    ),
]
