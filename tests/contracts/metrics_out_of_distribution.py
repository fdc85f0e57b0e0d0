"""Declarations for scores of what is of no known class."""

import numpy as np

from contracts.case import Bad, Case

IMAGES, CLASSES, FEATURES = 5, 3, 4


def embedded(rng):
    return {
        "images": rng.normal(size=(IMAGES, FEATURES)),
        "texts": rng.normal(size=(CLASSES, FEATURES)),
    }


COMMON = (
    Bad("images: got dtype", {"images": np.zeros((IMAGES, FEATURES), np.int32)}),
    Bad("texts: got shape", {"texts": np.zeros((CLASSES, FEATURES + 1))}),
    Bad("texts: got no texts", {"texts": np.zeros((0, FEATURES))}),
    Bad("scale", {"scale": 0.0}),
)

CASES = [
    Case(
        "papyrax.metrics.neglabel_score",
        lambda rng: {**embedded(rng), "negative_texts": rng.normal(size=(2, FEATURES))},
        ("images", "texts", "negative_texts"),
        static={"scale": 2.0},
        rows_in=("images",),
        bad=(*COMMON, Bad("negative_texts", {"negative_texts": np.zeros(FEATURES)})),
    ),
    Case(
        "papyrax.metrics.maximum_concept_matching_score",
        embedded,
        ("images", "texts"),
        rows_in=("images",),
        bad=COMMON,
    ),
]
