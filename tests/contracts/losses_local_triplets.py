"""Declarations for triplets of local descriptors."""

import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import Matches

PATCHES, OTHERS, FEATURES = 6, 5, 4


def two(rng):
    return {
        "first": rng.normal(size=(PATCHES, FEATURES)),
        "second": rng.normal(size=(OTHERS, FEATURES)),
        "attention": rng.uniform(size=PATCHES),
    }


def images(rng):
    return {
        "query": rng.normal(size=(OTHERS, FEATURES)),
        "positive": rng.normal(size=(PATCHES, FEATURES)),
        "negatives": rng.normal(size=(2, 3, FEATURES)),
        "partner": np.array([0, 2, 4, 3, 3, 1], np.int32),
        "is_match": np.array([1, 1, 0, 1, 0, 0], bool),
    }


def loss(fn, query, positive, negatives, partner, is_match, **static):
    matches = Matches(partner, np.ones(np.shape(partner), np.float32), is_match)
    return fn(query, positive, negatives, matches, **static)


CASES = [
    Case(
        "papyrax.losses.attended_matches",
        two,
        rows=None,
        differentiable=False,
        bad=(
            Bad("first: got dtype", {"first": np.zeros((PATCHES, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((OTHERS, FEATURES + 1))}),
            Bad("attention: got shape", {"attention": np.zeros(OTHERS)}),
            Bad("ratio", {"ratio": 1.5}),
            Bad("share", {"share": -0.1}),
        ),
    ),
    Case(
        "papyrax.losses.local_triplet_loss",
        images,
        ("query", "positive", "negatives"),
        static={"margin": 3.0},
        rows=None,
        call=loss,
        bad=(
            Bad("query: got dtype", {"query": np.zeros((OTHERS, FEATURES), np.int32)}),
            Bad("positive: got shape", {"positive": np.zeros((PATCHES, FEATURES + 1))}),
            Bad("negatives: got shape", {"negatives": np.zeros((3, FEATURES))}),
            Bad("negatives: got no patches", {"negatives": np.zeros((2, 0, FEATURES))}),
            Bad("matches.partner: got shape", {"partner": np.zeros(2, np.int32)}),
            Bad("margin", {"margin": -1.0}),
        ),
    ),
]
