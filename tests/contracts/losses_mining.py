"""Declarations for the masks of mined pairs."""

import jax
import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES = 6, 4
LABELS = np.array([0, 0, 1, 1, 1, 2], np.int32)
MASKS = {"differentiable": False, "keeps_dtype": False, "rows": None}
BAD = (
    Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
    Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
    Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
    Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
)
DISTANCE = (Bad("distance", {"distance": "taxicab"}),)
KEY = (Bad("key: got dtype", {"key": np.zeros(2)}),)


def drawn(fn, key=None, **kwargs):
    return fn(jax.random.key(0) if key is None else key, **kwargs)


def miner(name, *bad, static=None, **more):
    return Case(
        f"papyrax.losses.{name}",
        lambda rng: {"embeddings": rng.normal(size=(BATCH, FEATURES)), "labels": LABELS},
        static=static or {},
        bad=(*BAD, *bad),
        **MASKS,
        **more,
    )


CASES = [
    miner(
        "margin_pairs",
        *DISTANCE,
        Bad("positive_margin", {"positive_margin": -1.0}),
        Bad("negative_margin", {"negative_margin": -1.0}),
    ),
    miner("hard_pairs", *DISTANCE, Bad("share", {"share": 0.0})),
    miner(
        "easy_hard_pairs",
        *DISTANCE,
        Bad("positive", {"positive": "nearest"}),
        Bad("negative", {"positive": "all"}),
        Bad("negative", {"positive": "semi_hard"}),
    ),
    miner("easy_hard_pairs", label="all", static={"positive": "hard", "negative": "all"}),
    miner(
        "distance_weighted_pairs",
        *KEY,
        Bad("negatives", {"negatives": 0}),
        Bad("cutoff", {"cutoff": 0.0}),
        Bad("farthest", {"farthest": 2.0}),
        call=drawn,
    ),
    miner(
        "histogram_pairs",
        *KEY,
        *DISTANCE,
        Bad("bins", {"bins": 0}),
        Bad("positives_per_bin", {"positives_per_bin": 0}),
        static={"bins": 3, "negatives_per_bin": 2},
        call=drawn,
    ),
]
