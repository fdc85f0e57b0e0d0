"""Declarations for the measures of neural collapse."""

import numpy as np

from contracts.case import Bad, Case


def classed(rng):
    return {"features": rng.normal(size=(6, 4)), "labels": np.array([0, 1, 2, 0, 1, 2], np.int32)}


CASES = [
    Case(
        "papyrax.metrics.within_class_variability",
        classed,
        static={"classes": 3},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("features: got dtype", {"features": np.zeros((6, 4), np.int32)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("labels: got dtype", {"labels": np.zeros(6)}),
            Bad("classes: got", {"classes": 0}),
            Bad("kind: got", {"kind": "ratio"}),
        ),
    ),
    Case(
        "papyrax.metrics.frame_distance",
        lambda rng: {"vectors": rng.normal(size=(3, 4))},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("vectors: got", {"vectors": np.zeros(3)}),
            Bad("vectors: got", {"vectors": np.zeros((1, 3))}),
            Bad("kind: got", {"kind": "etf"}),
        ),
    ),
    Case(
        "papyrax.metrics.self_duality_distance",
        lambda rng: {"classifier": rng.normal(size=(3, 4)), "means": rng.normal(size=(3, 4))},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("classifier: got", {"classifier": np.zeros(3)}),
            Bad("means: got shape", {"means": np.zeros((4, 3))}),
            Bad("means: got dtype", {"means": np.zeros((3, 4), np.int32)}),
        ),
    ),
    Case(
        "papyrax.metrics.nearest_centre_agreement",
        lambda rng: {
            "features": rng.normal(size=(6, 4)),
            "logits": rng.normal(size=(6, 3)),
            "means": rng.normal(size=(3, 4)),
        },
        rows_in=("features", "logits"),
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("features: got dtype", {"features": np.zeros((6, 4), np.int32)}),
            Bad("logits: got shape", {"logits": np.zeros((5, 3))}),
            Bad("logits: got no", {"logits": np.zeros((6, 0))}),
            Bad("means: got shape", {"means": np.zeros((3, 5))}),
        ),
    ),
]
