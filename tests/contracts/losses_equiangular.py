"""Declarations for fixed class vectors."""

import jax
import numpy as np

from contracts.case import Bad, Case


def rows(rng):
    return {
        "embeddings": rng.normal(size=(4, 3)),
        "labels": rng.integers(5, size=4).astype(np.int32),
        "basis": rng.normal(size=(5, 3)),
    }


def key(rng):
    return {"key": jax.random.key(0)}


DRAW = {"rows": None, "differentiable": False, "keeps_dtype": False, "vmappable": False}
BAD_SIZES = (Bad("classes: got", {"classes": 1}), Bad("features: got", {"features": 0}))

CASES = [
    Case(
        "papyrax.losses.simplex_etf",
        key,
        static={"classes": 4, "features": 3},
        bad=(*BAD_SIZES, Bad("features: got", {"features": 2})),
        **DRAW,
    ),
    Case(
        "papyrax.losses.equiangular_basis_vectors",
        key,
        static={"classes": 6, "features": 4, "threshold": 0.4, "steps": 20},
        bad=(
            *BAD_SIZES,
            Bad("threshold: got", {"threshold": 1.0}),
            Bad("learning_rate: got", {"learning_rate": 0.0}),
            Bad("steps: got", {"steps": -1}),
            Bad("tolerance: got", {"tolerance": -1.0}),
        ),
        **DRAW,
    ),
    Case(
        "papyrax.losses.equiangular_basis_loss",
        rows,
        ("embeddings",),
        rows_in=("embeddings", "labels"),
        tolerance=5e-2,  # cosines are divided by 0.07
        bad=(
            Bad("embeddings: got dtype", {"embeddings": np.zeros((4, 3), np.int32)}),
            Bad("labels: got shape", {"labels": np.zeros(3, np.int32)}),
            Bad("labels: got dtype", {"labels": np.zeros(4)}),
            Bad("basis: got shape", {"basis": np.zeros((5, 2))}),
            Bad("temperature: got", {"temperature": 0.0}),
            Bad("label_smoothing: got", {"label_smoothing": 2.0}),
        ),
    ),
]
