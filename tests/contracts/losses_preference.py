"""Declarations for the losses of preferences."""

import numpy as np

from contracts.case import Bad, Case

BATCH = 4
PAIR = ("chosen", "rejected")
REFERENCE = ("reference_chosen", "reference_rejected")


def answers(*names, scale=2.0):
    return lambda rng: {k: -rng.uniform(0.1, scale, BATCH) for k in names}


def with_lengths(rng):
    return {**answers(*PAIR, *REFERENCE)(rng), "length_difference": rng.integers(-5, 5, BATCH)}


def sequences(rng):
    return {
        "logits": rng.normal(size=(3, 4, 5)),
        "tokens": rng.integers(0, 5, (3, 4)).astype(np.int32),
        "where": rng.uniform(size=(3, 4)) < 0.7,
    }


def single(rng):
    return {
        **answers("log_probability", "reference")(rng),
        "desirable": np.array([True, False, False, True]),
        "baseline": np.float64(0.3),
    }


BAD_PAIR = (
    Bad("rejected: got shape", {"rejected": np.zeros(BATCH + 1)}),
    Bad("chosen: got dtype", {"chosen": np.zeros(BATCH, np.int32)}),
)
BAD_BETA = Bad("beta: got", {"beta": -1.0})
BAD_REFERENCE = (
    *BAD_PAIR,
    BAD_BETA,
    Bad("reference_chosen: got shape", {"reference_chosen": np.zeros(BATCH + 1)}),
)


def errors(rng):
    return {
        "chosen_error": rng.uniform(0.1, 0.11, BATCH),
        "rejected_error": rng.uniform(0.1, 0.11, BATCH),
    }


CASES = [
    Case(
        "papyrax.losses.sequence_log_probability",
        sequences,
        ("logits",),
        bad=(
            Bad("tokens: got shape", {"tokens": np.zeros((3, 5), np.int32)}),
            Bad("where: got dtype", {"where": np.zeros((3, 4))}),
            Bad("where: got shape", {"where": np.zeros((3, 5), bool)}),
        ),
    ),
    Case(
        "papyrax.losses.dpo_loss",
        answers(*PAIR, *REFERENCE),
        PAIR + REFERENCE,
        bad=(
            *BAD_REFERENCE,
            Bad("label_smoothing: got", {"label_smoothing": 0.6}),
            Bad("length_weight: got", {"length_weight": -1.0}),
            Bad("length_difference: got shape", {"length_difference": np.zeros(BATCH + 1)}),
        ),
    ),
    Case(
        "papyrax.losses.dpo_loss",
        with_lengths,
        PAIR,
        static={"label_smoothing": 0.1},
        label="lengths",
    ),
    Case(
        "papyrax.losses.ipo_loss", answers(*PAIR, *REFERENCE), PAIR + REFERENCE, bad=BAD_REFERENCE
    ),
    Case(
        "papyrax.losses.kto_loss",
        single,
        ("log_probability",),
        rows_in=("log_probability", "reference", "desirable"),
        bad=(
            BAD_BETA,
            Bad("desirable: got dtype", {"desirable": np.zeros(BATCH)}),
            Bad("desirable: got shape", {"desirable": np.zeros(BATCH + 1, bool)}),
            Bad("reference: got shape", {"reference": np.zeros(BATCH + 1)}),
            Bad("baseline: got shape", {"baseline": np.zeros(BATCH)}),
            Bad("desirable_weight: got", {"desirable_weight": -1.0}),
        ),
    ),
    Case("papyrax.losses.orpo_loss", answers(*PAIR), PAIR, bad=(*BAD_PAIR, BAD_BETA)),
    Case(
        "papyrax.losses.simpo_loss",
        answers(*PAIR),
        PAIR,
        bad=(*BAD_PAIR, BAD_BETA, Bad("margin: got", {"margin": -1.0})),
    ),
    Case(
        "papyrax.losses.mapo_loss",
        errors,
        ("chosen_error", "rejected_error"),
        static={"timesteps": 50},
        tolerance=5e-2,
        bad=(
            Bad("rejected_error: got shape", {"rejected_error": np.zeros(BATCH + 1)}),
            BAD_BETA,
            Bad("snr: got", {"snr": 0.0}),
            Bad("timesteps: got", {"timesteps": 0}),
        ),
    ),
    Case(
        "papyrax.losses.best_worst_pairs",
        lambda rng: {"rewards": rng.permutation(12).reshape(3, 4) / 8},
        differentiable=False,
        bad=(
            Bad("rewards: got dtype", {"rewards": np.zeros((3, 4), np.int32)}),
            Bad("threshold: got", {"threshold": -1.0}),
        ),
    ),
]
