"""Declarations for the losses of the shape of the cloud of embeddings."""

import numpy as np

import papyrax
from contracts.case import Bad, Case
from contracts.losses_contrastive import BATCH, FEATURES, two, views

SHAPE = (3, BATCH, FEATURES)


def cloud(rng):
    return {"views": rng.normal(size=SHAPE)}


def step(fn, view1, view2, **more):
    loss, _ = fn(papyrax.losses.tico_init(FEATURES), view1, view2, **more)
    return loss


def of_cloud(name, *bad, **more):
    return Case(
        f"papyrax.losses.{name}",
        cloud,
        ("views",),
        rows=1,
        bad=(
            Bad("views: got dtype", {"views": np.zeros(SHAPE, np.int32)}),
            Bad("views: got shape", {"views": np.zeros(SHAPE[1:])}),
            *bad,
        ),
        **more,
    )


CASES = [
    views(
        "alignment_uniformity_loss",
        Bad("power", {"power": 0.0}),
        Bad("scale", {"scale": -1.0}),
        Bad("uniformity_weight", {"uniformity_weight": -1.0}),
        Bad("chunk_size", {"chunk_size": 0}),
    ),
    Case(
        "papyrax.losses.koleo_loss",
        lambda rng: {"embeddings": rng.normal(size=(BATCH, FEATURES))},
        ("embeddings",),
        bad=(
            Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
            Bad("epsilon", {"epsilon": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.tico_init",
        lambda rng: {},
        static={"features": 5},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(Bad("features", {"features": 0}),),
    ),
    Case(
        "papyrax.losses.tico_loss",
        two("view1", "view2"),
        ("view1", "view2"),
        call=step,
        # The covariance is a constant for the gradient, not for the value.
        finite_differences=False,
        bad=(
            Bad("view1: got dtype", {"view1": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("view2: got shape", {"view2": np.zeros((BATCH + 1, FEATURES))}),
            Bad("state.covariance", {v: np.zeros((BATCH, 2)) for v in ("view1", "view2")}),
            Bad("contrast_weight", {"contrast_weight": -1.0}),
            Bad("momentum", {"momentum": 2.0}),
        ),
    ),
    of_cloud(
        "mmcr_loss",
        Bad("compression_weight", {"compression_weight": -1.0}),
        static={"compression_weight": 0.3},
        # The sum of singular values has no second derivative where two of them are zero.
        second_order=False,
    ),
    of_cloud(
        "coding_rate_loss",
        Bad("precision", {"precision": 0.0}),
        Bad("invariance_weight", {"invariance_weight": -1.0}),
    ),
    of_cloud(
        "wmse_loss",
        Bad("views: got 1", {"views": np.zeros((1, BATCH, FEATURES))}),
        Bad("shrinkage", {"shrinkage": 1.0}),
        static={"shrinkage": 0.1},
    ),
    of_cloud("wmse_loss", label="whole"),
    of_cloud("frossl_loss", Bad("invariance_weight", {"invariance_weight": -1.0}), tolerance=4e-2),
    Case(
        "papyrax.losses.sigreg_loss",
        lambda rng: {
            "embeddings": rng.normal(size=(BATCH, FEATURES)),
            "directions": rng.normal(size=(3, FEATURES)),
        },
        ("embeddings", "directions"),
        rows_in=("embeddings",),
        bad=(
            Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
            Bad("directions: got shape", {"directions": np.zeros((3, FEATURES + 1))}),
            Bad("upper", {"upper": 0.0}),
            Bad("knots: got 1", {"knots": 1}),
        ),
    ),
]
