"""Declarations for the measures of calibration."""

import numpy as np

from contracts.case import Bad, Case


def probabilities_labels(rng):
    # Confidences away from the bins' edges, which half precision would cross.
    p = rng.dirichlet(np.full(4, 3.0), 6)
    return {"probabilities": p, "labels": rng.integers(0, 4, 6).astype(np.int32)}


def masked(rng):
    return {**probabilities_labels(rng), "where": rng.uniform(size=6) < 0.7}


BAD = (
    Bad("probabilities: got dtype", {"probabilities": np.zeros((6, 4), np.int32)}),
    Bad("probabilities: got shape", {"probabilities": np.zeros(6)}),
    Bad("labels: got dtype", {"labels": np.zeros(6)}),
    Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
    Bad("where: got dtype", {"where": np.zeros(6)}),
    Bad("where: got shape", {"where": np.zeros(5, bool)}),
)

CASES = [
    *(
        Case(
            f"papyrax.metrics.{name}",
            masked,
            differentiable=False,
            keeps_dtype=False,
            bad=(*BAD[:4], Bad("bins: got", {"bins": 0}), *BAD[4:]),
        )
        for name in (
            "reliability_bins",
            "expected_calibration_error",
            "maximum_calibration_error",
            "adaptive_calibration_error",
            "classwise_calibration_error",
        )
    ),
    *(
        Case(
            f"papyrax.metrics.{name}",
            masked,
            ("probabilities",),
            keeps_dtype=False,
            bad=BAD,
        )
        for name in ("brier_score", "negative_log_likelihood")
    ),
    Case(
        "papyrax.metrics.top_k_accuracy",
        lambda rng: {
            "scores": rng.normal(size=(6, 4)),
            "labels": rng.integers(0, 4, 6).astype(np.int32),
        },
        static={"k": 2},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("scores: got dtype", {"scores": np.zeros((6, 4), np.int32)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("k: got", {"k": 0}),
        ),
    ),
]
