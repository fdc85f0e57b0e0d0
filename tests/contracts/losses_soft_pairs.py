"""Declarations for losses with soft targets, of a ranker and with made hard negatives."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_contrastive import BATCH, ENGINE, FEATURES, PAIR, T, two, views

CANDIDATES = 4


def labelled(rng):
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], bool)
    return {**two("first", "second")(rng), "label_sets": sets}


def ranked(rng):
    return {k: rng.normal(size=(BATCH, CANDIDATES)) for k in ("scores", "ranker_scores")}


def with_negatives(rng):
    return {**two("queries", "keys")(rng), "negatives": rng.normal(size=(BATCH, 3, FEATURES))}


SCORES = (
    Bad("scores: got dtype", {"scores": np.zeros((BATCH, CANDIDATES), np.int32)}),
    Bad("ranker_scores: got shape", {"ranker_scores": np.zeros((BATCH, CANDIDATES + 1))}),
    Bad("adversarial_weight", {"adversarial_weight": 1.5}),
    Bad("temperature", {"temperature": 0.0}),
)

CASES = [
    views(
        "cross_modal_alignment_loss",
        *T,
        *ENGINE,
        Bad("energy_weight", {"energy_weight": 2.0}),
        static={"temperature": 0.3, "energy_weight": 0.2},
        **PAIR,
    ),
    Case(
        "papyrax.losses.soft_contrastive_loss",
        labelled,
        ("first", "second"),
        bad=(
            Bad("first: got dtype", {"first": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("second: got shape", {"second": np.zeros((BATCH, FEATURES + 1))}),
            Bad("label_sets: got shape", {"label_sets": np.zeros((BATCH + 1, 3), bool)}),
            *T,
            *ENGINE,
        ),
    ),
    Case("papyrax.losses.adversarial_retriever_loss", ranked, ("scores",), bad=SCORES),
    Case(
        "papyrax.losses.adversarial_retriever_loss",
        ranked,
        ("scores",),
        static={"is_expectation": False, "is_summed": True},
        label="released",
    ),
    Case(
        "papyrax.losses.hard_negative_sigmoid_loss",
        with_negatives,
        ("queries", "keys", "negatives"),
        static={"scale": 2.0, "bias": -0.5},
        bad=(
            Bad("keys: got shape", {"keys": np.zeros((BATCH, FEATURES + 1))}),
            Bad("negatives: got shape", {"negatives": np.zeros((BATCH, 3, FEATURES + 1))}),
        ),
    ),
]
