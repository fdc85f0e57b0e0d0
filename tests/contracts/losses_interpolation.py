"""Declarations for mixed examples and the losses over pairs with them."""

import numpy as np

from contracts.case import Bad, Case

ANCHORS, MIXED, FEATURES = 4, 5, 3


def pairs(rng):
    targets = rng.uniform(size=(ANCHORS, MIXED))
    targets[0, :2] = 0, 1
    return {"similarities": rng.uniform(-1, 1, (ANCHORS, MIXED)), "targets": targets}


def masked(rng):
    return {**pairs(rng), "where": rng.uniform(size=(ANCHORS, MIXED)) < 0.6}


BAD = (
    Bad("similarities: got shape", {"similarities": np.zeros(3)}),
    Bad("targets: got shape", {"targets": np.zeros((ANCHORS, MIXED + 1))}),
    Bad("targets: got dtype", {"targets": np.zeros((ANCHORS, MIXED), np.int32)}),
    Bad("where: got dtype", {"where": np.zeros((ANCHORS, MIXED))}),
)

CASES = [
    Case(
        "papyrax.losses.mix_features",
        lambda rng: {
            "first": rng.normal(size=(ANCHORS, FEATURES)),
            "second": rng.normal(size=(ANCHORS, FEATURES)),
            "share": rng.uniform(size=ANCHORS),
        },
        ("first", "second"),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((ANCHORS, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((ANCHORS, 2))}),
            Bad("share: got shape", {"share": np.zeros(FEATURES)}),
        ),
    ),
    Case(
        "papyrax.losses.mixed_pair_targets",
        lambda rng: {
            "labels": np.array([0, 1, 2, 0], np.int32),
            "first": np.array([0, 1, 2], np.int32),
            "second": np.array([1, 1, 0], np.int32),
            "share": rng.uniform(size=3),
        },
        ("share",),
        rows_in=("labels",),
        keeps_dtype=False,
        second_order=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(4)}),
            Bad("second: got shape", {"second": np.zeros(2, np.int32)}),
            Bad("share: got shape", {"share": np.zeros(2)}),
        ),
    ),
    Case(
        "papyrax.losses.interpolated_contrastive_loss",
        masked,
        ("similarities",),
        bad=(*BAD, Bad("reduction", {"reduction": "max"})),
    ),
    Case(
        "papyrax.losses.interpolated_contrastive_loss",
        pairs,
        ("similarities",),
        static={"reduction": "active", "margin": 0.1},
        label="active",
    ),
    Case(
        "papyrax.losses.interpolated_multi_similarity_loss",
        masked,
        ("similarities",),
        static={"positive_scale": 2.0, "negative_scale": 5.0, "base": 0.5},
        bad=(*BAD, Bad("positive_scale", {"positive_scale": 0.0})),
    ),
]
