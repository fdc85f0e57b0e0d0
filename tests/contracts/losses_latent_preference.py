"""Declarations for the losses of preferences in latent space."""

import numpy as np

from contracts.case import Bad, Case

BATCH, FEATURES, LAYERS = 4, 3, 5
SCORES = ("chosen", "rejected", "reference_chosen", "reference_rejected")


def answers(rng):
    x = {k: rng.normal(size=(BATCH, FEATURES)) for k in ("safe", "unsafe", "jailbreak")}
    return {**x, "preference": rng.uniform(0.1, 1, BATCH)}


CASES = [
    Case(
        "papyrax.losses.layerwise_pool",
        lambda rng: {
            "hidden": rng.normal(size=(LAYERS, BATCH, FEATURES)),
            "profile": rng.normal(size=LAYERS),
        },
        ("profile",),
        rows=1,
        rows_in=("hidden",),
        bad=(
            Bad("hidden: got dtype", {"hidden": np.zeros((LAYERS, FEATURES), np.int32)}),
            Bad("hidden: got shape", {"hidden": np.zeros(LAYERS)}),
            Bad("profile: got shape", {"profile": np.zeros(LAYERS + 1)}),
            Bad("temperature", {"temperature": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.relaxed_preference_loss",
        lambda rng: {k: rng.normal(size=BATCH) for k in SCORES},
        ("chosen", "rejected"),
        bad=(
            Bad("chosen: got dtype", {"chosen": np.zeros(BATCH, np.int32)}),
            Bad("reference_rejected: got shape", {"reference_rejected": np.zeros(BATCH + 1)}),
            Bad("reference_weight", {"reference_weight": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.grace_loss",
        answers,
        ("safe", "unsafe", "jailbreak", "preference"),
        bad=(
            Bad("safe: got dtype", {"safe": np.zeros((BATCH, FEATURES), np.int32)}),
            Bad("jailbreak: got shape", {"jailbreak": np.zeros((BATCH, FEATURES + 1))}),
            Bad("preference: got shape", {"preference": np.zeros(BATCH + 1)}),
            Bad("separation_margin", {"separation_margin": -1.0}),
            Bad("merge_margin", {"merge_margin": -1.0}),
            Bad("separation_weight", {"separation_weight": -1.0}),
            Bad("merge_weight", {"merge_weight": -1.0}),
        ),
    ),
]
