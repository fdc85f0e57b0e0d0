"""Declarations for the losses in the Poincare ball."""

import jax
import numpy as np

from contracts.case import Bad, Case

BATCH, CLASSES, FEATURES = 5, 2, 4


def ball(rng, *shape):
    x = rng.normal(size=shape)
    size = rng.uniform(0.2, 0.9, (*shape[:-1], 1))
    return size * x / np.linalg.norm(x, axis=-1, keepdims=True)


def planes(rng):
    return {
        "points": ball(rng, BATCH, FEATURES),
        "normals": rng.normal(size=(CLASSES, FEATURES)),
        "offsets": 0.3 * rng.normal(size=(CLASSES, FEATURES)),
    }


def boundary(arrays):
    edge = np.asarray(arrays["points"]) * 0 + np.eye(FEATURES)[0] / np.sqrt(0.1)
    return {"on the boundary": {**arrays, "points": edge}}


CURVATURE = Bad("curvature", {"curvature": 0.0})

PLANES = (
    Bad("points: got dtype", {"points": np.zeros((BATCH, FEATURES), np.int32)}),
    Bad("normals: got shape", {"normals": np.zeros((CLASSES, FEATURES + 1))}),
    Bad("offsets: got shape", {"offsets": np.zeros((CLASSES + 1, FEATURES))}),
    CURVATURE,
)

# Their logits are odd around zeros and not linear there, as no plane has that normal.
NO_PLANE = {"zeros of normals": "no plane"}

CASES = [
    Case(
        "papyrax.losses.to_poincare",
        lambda rng: {
            "x": 2 * rng.normal(size=(BATCH, FEATURES)),
            "base": 0.3 * rng.normal(size=FEATURES),
        },
        ("x", "base"),
        rows_in=("x",),
        bad=(
            Bad("x: got dtype", {"x": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("base: got shape", {"base": np.zeros(FEATURES + 1)}),
            Bad("clip_norm", {"clip_norm": 0.0}),
            CURVATURE,
        ),
    ),
    Case(
        "papyrax.losses.to_poincare",
        lambda rng: {"x": 2 * rng.normal(size=(BATCH, FEATURES))},
        ("x",),
        static={"clip_norm": None, "curvature": 1.0},
        label="unclipped",
    ),
    Case(
        "papyrax.losses.gyroplane_logits",
        planes,
        ("points", "normals", "offsets"),
        rows_in=("points",),
        extremes=boundary,
        skip_extremes=NO_PLANE,
        bad=PLANES,
    ),
    Case(
        "papyrax.losses.hyperbolic_cross_entropy_loss",
        lambda rng: {**planes(rng), "labels": np.array([0, 1, 1, 0, 1], np.int32)},
        ("points", "normals", "offsets"),
        rows_in=("points", "labels"),
        extremes=boundary,
        skip_extremes=NO_PLANE,
        bad=(*PLANES, Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)})),
    ),
    Case(
        "papyrax.losses.hyperbolic_confusion_loss",
        lambda rng: {k: ball(rng, BATCH, FEATURES) for k in ("first", "second")},
        ("first", "second"),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((BATCH, FEATURES + 1))}),
            CURVATURE,
        ),
    ),
    Case(
        "papyrax.losses.gaussian_pseudo_negatives",
        lambda rng: {"features": rng.normal(size=(BATCH, FEATURES)), "mean": np.zeros(FEATURES)},
        call=lambda fn, **kwargs: fn(jax.random.key(0), **kwargs),
        rows_in=("features",),
        differentiable=False,
        bad=(
            Bad("features: got dtype", {"features": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("mean: got shape", {"mean": np.zeros(FEATURES + 1)}),
            Bad("decay", {"decay": 1.5}),
            Bad("std", {"std": 0.0}),
        ),
    ),
]
