"""Declarations for the memory of keys and for features moved in it."""

import jax
import numpy as np

from contracts.case import Bad, Case
from papyrax.losses import KeyQueue

BATCH, FEATURES = 4, 3


def start(fn, key=None, **kwargs):
    return fn(jax.random.key(0) if key is None else key, **kwargs)


def nearest(fn, embeddings, rows):
    return fn(KeyQueue(rows, np.int32(0)), embeddings)


def related(rng):
    return {**views(rng), "negatives": rng.normal(size=(5, FEATURES))}


RELATIONS = (
    Bad("queries: got dtype", {"queries": np.zeros((BATCH, FEATURES), np.int32)}),
    Bad("keys: got shape", {"keys": np.zeros((BATCH + 1, FEATURES))}),
    Bad("negatives: got shape", {"negatives": np.zeros((5, FEATURES + 1))}),
    Bad("negatives: got none", {"negatives": np.zeros((0, FEATURES))}),
    Bad("temperature", {"temperature": 0.0}),
)


def push(fn, keys, rows, **kwargs):
    return fn(KeyQueue(rows, np.int32(3)), keys, **kwargs)


def views(rng):
    return {name: rng.normal(size=(BATCH, FEATURES)) for name in ("queries", "keys")}


def scores(rng):
    return {
        "positive": rng.uniform(-1, 1, BATCH),
        "negatives": rng.uniform(-1, 1, (BATCH, 5)),
    }


KEY = Bad("key: got dtype", {"key": np.zeros(2)})

CASES = [
    Case(
        "papyrax.losses.key_queue_nearest",
        lambda rng: {
            "embeddings": rng.normal(size=(BATCH, FEATURES)),
            "rows": rng.normal(size=(5, FEATURES)),
        },
        call=nearest,
        rows_in=("embeddings",),
        differentiable=False,  # keys are constants for the gradient
        bad=(
            Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("embeddings: got shape", {"embeddings": np.zeros((BATCH, FEATURES + 1))}),
        ),
    ),
    Case(
        "papyrax.losses.relational_loss",
        related,
        ("queries", "keys", "negatives"),
        static={"temperature": 0.3, "key_temperature": 0.3},
        rows_in=("queries", "keys"),
        # The key's distribution is a constant for the gradient, not for the value.
        finite_differences=False,
        bad=(*RELATIONS, Bad("key_temperature", {"key_temperature": -1.0})),
    ),
    Case(
        "papyrax.losses.consistent_contrast_loss",
        related,
        ("queries", "keys", "negatives"),
        static={"temperature": 0.3},
        rows_in=("queries", "keys"),
        tolerance=4e-2,
        bad=RELATIONS,
    ),
    Case(
        "papyrax.losses.consistent_contrast_loss",
        related,
        ("queries", "keys", "negatives"),
        static={"temperature": 0.3, "includes_positive": True},
        label="with the positive",
        rows_in=("queries", "keys"),
        tolerance=4e-2,
    ),
    Case(
        "papyrax.losses.key_queue_init",
        lambda rng: {},
        static={"size": 4, "features": 2},
        call=start,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        vmappable=False,
        bad=(KEY, Bad("size", {"size": 0}), Bad("features", {"features": 0})),
    ),
    Case(
        "papyrax.losses.key_queue_push",
        lambda rng: {
            "keys": rng.normal(size=(BATCH, FEATURES)),
            "rows": rng.normal(size=(5, FEATURES)),
        },
        call=push,
        rows_in=("keys",),
        differentiable=False,  # keys are constants for the gradient
        bad=(
            Bad("keys: got dtype", {"keys": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("keys: got shape", {"keys": np.zeros((BATCH, FEATURES + 1))}),
            Bad("keys: got 6 rows", {"keys": np.zeros((6, FEATURES))}),
        ),
    ),
    Case(
        "papyrax.losses.score_info_nce_loss",
        scores,
        ("positive", "negatives"),
        static={"margin": -0.5, "temperature": 0.5},
        bad=(
            Bad("positive: got shape", {"positive": np.zeros((BATCH, 1))}),
            Bad("negatives: got shape", {"negatives": np.zeros((BATCH + 1, 5))}),
            Bad("temperature", {"temperature": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.positive_extrapolation",
        views,
        ("queries",),
        call=start,
        bad=(
            KEY,
            Bad("keys: got shape", {"keys": np.zeros((BATCH, FEATURES + 1))}),
            Bad("queries: got dtype", {"queries": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("concentration", {"concentration": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.negative_interpolation",
        lambda rng: {"negatives": rng.normal(size=(BATCH, FEATURES))},
        ("negatives",),
        call=start,
        static={"elementwise": True},
        bad=(
            KEY,
            Bad("negatives: got shape", {"negatives": np.zeros(FEATURES)}),
            Bad("concentration", {"concentration": -1.0}),
        ),
    ),
]
