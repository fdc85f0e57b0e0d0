"""Declarations for losses of episodes, of hard negatives and of several heads."""

import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES, HEADS = 6, 4, 2
LABELS = np.array([0, 0, 1, 1, 1, 2], np.int32)


def labelled(rng):
    return {"embeddings": rng.normal(size=(BATCH, FEATURES)), "labels": LABELS}


def episode(rng):
    return {
        "queries": rng.normal(size=(BATCH, FEATURES)),
        "labels": LABELS,
        "prototypes": rng.normal(size=(3, FEATURES)),
    }


def paired(rng):
    return {k: rng.normal(size=(BATCH, FEATURES)) for k in ("queries", "keys")}


def headed(rng):
    x = {k: rng.normal(size=(HEADS, 3, FEATURES)) for k in ("first", "second")}
    return {**x, "temperature": rng.uniform(0.3, 1.5, (HEADS, 6, 6))}


CASES = [
    Case(
        "papyrax.losses.icnn_loss",
        labelled,
        ("embeddings",),
        static={"neighbours": 3},
        bad=(
            Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
            Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
            Bad("neighbours: got 0", {"neighbours": 0}),
            Bad("reach: got 0", {"reach": 0}),
            Bad("epsilon", {"epsilon": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.prototype_triplet_loss",
        episode,
        ("queries", "prototypes"),
        rows_in=("queries", "labels"),
        bad=(
            Bad("queries: got dtype", {"queries": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("prototypes: got shape", {"prototypes": np.zeros((3, FEATURES + 1))}),
            Bad("prototypes: got 1", {"prototypes": np.zeros((1, FEATURES))}),
            Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
            Bad("margin", {"margin": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.hard_negative_triplet_loss",
        paired,
        ("queries", "keys"),
        static={"negatives": 3, "margin": 0.8},
        bad=(
            Bad("queries: got dtype", {"queries": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("keys: got shape", {"keys": np.zeros((BATCH, FEATURES + 1))}),
            Bad("relevant: got dtype", {"relevant": np.zeros((BATCH, BATCH))}),
            Bad("negatives: got 0", {"negatives": 0}),
            Bad("temperature", {"temperature": 0.0}),
            Bad("margin", {"margin": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.bounded_temperature",
        lambda rng: {"logits": rng.normal(size=(3,))},
        ("logits",),
        bad=(
            Bad("logits: got dtype", {"logits": np.zeros(3, np.int32)}),
            Bad("low", {"low": 0.0}),
            Bad("high", {"high": 1e-6}),
        ),
    ),
    Case(
        "papyrax.losses.multi_head_contrastive_loss",
        headed,
        ("first", "second"),
        rows=1,
        rows_in=("first", "second"),
        # The temperatures of pairs have no axis of rows of their own.
        call=lambda fn, first, second, temperature, **static: fn(
            first,
            second,
            temperature if first.shape[1] == 3 else 0.5,
            **static,
        ),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((HEADS, 3, FEATURES), np.int32)}),
            Bad("first: got shape", {"first": np.zeros((3, FEATURES))}),
            Bad("second: got shape", {"second": np.zeros((HEADS, 3, FEATURES + 1))}),
            Bad("temperature: got shape", {"temperature": np.ones((HEADS, 3, 3))}),
            Bad("regularization", {"regularization": -0.1}),
        ),
    ),
]
