"""Declarations for the label-robust losses."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_WHERE, logits_labels, masked
from papyrax.losses import aldr_kl_init


def scores_labels(rng):
    arrays = logits_labels(rng)
    return {"scores": arrays["logits"], "labels": arrays["labels"]}


def masked_scores(rng):
    return {**scores_labels(rng), "where": masked(rng)["where"]}


def indexed(rng):
    return {**scores_labels(rng), "indices": rng.permutation(6)[:4].astype(np.int32)}


def run(fn, **kwargs):
    return fn(aldr_kl_init(6), **kwargs)[0]


LABELS = np.zeros((2, 4), np.int32)

BAD = (
    Bad("labels: got dtype", {"labels": np.zeros(4)}),
    Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
    Bad("scores: got dtype", {"scores": np.zeros((4, 5), np.int32)}),
    Bad("temperature: got", {"temperature": 0.0}),
    Bad("margin: got", {"margin": -0.1}),
    Bad("normalization: got", {"normalization": "l2"}),
)

CASES = [
    Case("papyrax.losses.ldr_kl", scores_labels, ("scores",), bad=BAD),
    Case(
        "papyrax.losses.ldr_kl",
        masked_scores,
        ("scores",),
        static={"temperature": 0.3},
        label="masked",
        bad=BAD_WHERE[:1],
    ),
    Case(
        "papyrax.losses.ldr_kl",
        scores_labels,
        ("scores",),
        static={"normalization": "softplus"},
        label="normalized",
    ),
    Case(
        "papyrax.losses.aldr_kl",
        indexed,
        ("scores",),
        call=run,
        finite_differences=False,  # no gradient goes through the temperature
        bad=(
            *BAD,
            Bad("indices: got dtype", {"indices": np.zeros(4)}),
            Bad("indices: got shape", {"indices": np.zeros(3, np.int32)}),
            Bad("adaptivity: got", {"adaptivity": 1.0}),
            Bad("scores: got shape", {"scores": np.zeros((2, 4, 5)), "labels": LABELS}),
        ),
    ),
    Case(
        "papyrax.losses.aldr_kl_init",
        lambda rng: {"temperature": rng.uniform(0.5, 1)},
        static={"examples": 5},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("examples: got", {"examples": 2.5}),
            Bad("temperature: got", {"temperature": 0.0}),
        ),
    ),
]
