"""Declarations for losses of the regions of an image."""

import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import Matches

IMAGES, PATCHES, FEATURES = 3, 6, 4


def maps(rng):
    return {k: rng.normal(size=(IMAGES, PATCHES)) for k in ("confidence", "attention")}


def masked(rng):
    return {
        **{k: rng.normal(size=(IMAGES, PATCHES, FEATURES)) for k in ("first", "second")},
        **{k: rng.uniform(size=(IMAGES, PATCHES)) for k in ("first_mask", "second_mask")},
    }


def patches(rng):
    return {
        "first": rng.normal(size=(PATCHES, FEATURES)),
        "second": rng.normal(size=(PATCHES + 1, FEATURES)),
    }


def matched(rng):
    partner = np.array([0, 2, 6, 3, 3, 1], np.int32)
    return {
        **patches(rng),
        "partner": partner,
        "similarity": rng.uniform(0.5, 1, PATCHES),
        "is_match": np.array([1, 1, 0, 1, 0, 0], bool),
    }


POOLED = ("first", "second", "first_targets", "second_targets")


def pooled(rng):
    return {
        **{k: rng.normal(size=(IMAGES, 2, FEATURES)) for k in POOLED},
        "first_masks": np.array([[0, 1], [2, 2], [0, 1]], np.int32),
        "second_masks": np.array([[1, 3], [2, 0], [1, 0]], np.int32),
    }


PATCH = (
    Bad("first: got dtype", {"first": np.zeros((PATCHES, FEATURES), np.int32)}),
    Bad("second: got shape", {"second": np.zeros((PATCHES, FEATURES + 1))}),
)
WHERE = (
    Bad("where: got shape", {"where": np.ones((PATCHES, 2), bool)}),
    Bad("where: got dtype", {"where": np.ones((PATCHES, PATCHES + 1))}),
    Bad("least_similarity", {"least_similarity": 2.0}),
)


def matcher(name, *bad):
    return Case(
        f"papyrax.losses.{name}",
        patches,
        rows=None,
        static={"least_similarity": 0.1},
        differentiable=False,
        bad=(*PATCH, *WHERE, *bad),
    )


CASES = [
    Case(
        "papyrax.losses.spatial_alignment_loss",
        maps,
        ("confidence", "attention"),
        static={"outliers": 1, "level": 0.2},
        # Its value is not what its gradient is the gradient of.
        finite_differences=False,
        bad=(
            Bad("confidence: got dtype", {"confidence": np.zeros((IMAGES, PATCHES), np.int32)}),
            Bad("attention: got shape", {"attention": np.zeros((IMAGES, PATCHES + 1))}),
            Bad("outliers", {"outliers": -1}),
            Bad("level", {"level": 1.0}),
        ),
    ),
    Case(
        "papyrax.losses.foreground_background_loss",
        masked,
        ("first", "second", "first_mask", "second_mask"),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((IMAGES, PATCHES, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((IMAGES, PATCHES))}),
            Bad("first_mask: got shape", {"first_mask": np.zeros((IMAGES, PATCHES + 1))}),
            Bad("foreground_weight", {"foreground_weight": 1.5}),
        ),
    ),
    Case(
        "papyrax.losses.detcon_loss",
        pooled,
        POOLED,
        static={"temperature": 0.5},
        bad=(
            Bad("first: got dtype", {"first": np.zeros((IMAGES, 2, FEATURES), np.int32)}),
            Bad("first: got shape", {"first": np.zeros((IMAGES, FEATURES))}),
            Bad("second_targets: got shape", {"second_targets": np.zeros((IMAGES, 3, FEATURES))}),
            Bad("first_masks: got dtype", {"first_masks": np.zeros((IMAGES, 2))}),
            Bad("second_masks: got shape", {"second_masks": np.zeros((IMAGES, 3), np.int32)}),
            Bad("temperature", {"temperature": 0.0}),
        ),
    ),
    matcher("mutual_matches"),
    matcher("reliable_matches", Bad("ratio", {"ratio": 0.5}), Bad("most: got 0", {"most": 0})),
    Case(
        "papyrax.losses.correspondence_loss",
        matched,
        ("first", "second"),
        rows=None,
        call=lambda fn, first, second, partner, similarity, is_match: fn(
            first, second, Matches(partner, similarity, is_match)
        ),
        bad=(*PATCH, Bad("matches.partner: got shape", {"partner": np.zeros(2, np.int32)})),
    ),
]
