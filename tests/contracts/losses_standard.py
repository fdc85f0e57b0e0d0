"""Declarations for the standard losses."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_LABELS, BAD_WHERE, logits_labels, masked

COUNTS = np.array([30, 10, 5, 2, 1], np.int32)


def counted(rng):
    return {**logits_labels(rng), "counts": COUNTS}


def regression(rng):
    return {"predictions": rng.normal(size=6) * 2, "targets": rng.normal(size=6)}


ROWS = ("logits", "labels")
BAD_COUNTS = (
    Bad("counts: got dtype", {"counts": np.ones(5, bool)}),
    Bad("counts: got shape", {"counts": np.ones(4)}),
)
BAD_REGRESSION = (
    Bad("targets: got shape", {"targets": np.zeros(5)}),
    Bad("targets: got dtype", {"targets": np.zeros(6, np.int32)}),
    Bad("predictions: got dtype", {"predictions": np.zeros(6, np.int32)}),
)
SIMPLE = {
    "focal_loss": (Bad("focusing: got", {"focusing": -1.0}),),
    "mae_loss": (),
    "symmetric_cross_entropy": (
        Bad("forward_weight: got", {"forward_weight": -1.0}),
        Bad("reverse_weight: got", {"reverse_weight": -1.0}),
        Bad("log_zero: got", {"log_zero": 0.0}),
    ),
    "label_smoothing_cross_entropy": (Bad("label_smoothing: got", {"label_smoothing": 1.1}),),
    "brier_loss": (),
}

CASES = [
    *(
        Case(
            f"papyrax.losses.{name}",
            masked,
            ("logits",),
            label="masked",
            bad=(*BAD_LABELS, *BAD_WHERE, *bad),
        )
        for name, bad in SIMPLE.items()
    ),
    Case(
        "papyrax.losses.ldam_loss",
        counted,
        ("logits",),
        rows_in=ROWS,
        bad=(
            *BAD_LABELS[:2],
            *BAD_COUNTS,
            Bad("max_margin: got", {"max_margin": -1.0}),
            Bad("scale: got", {"scale": 0.0}),
        ),
    ),
    Case(
        "papyrax.losses.logit_adjusted_cross_entropy",
        counted,
        ("logits",),
        rows_in=ROWS,
        bad=(*BAD_LABELS[:2], *BAD_COUNTS, Bad("strength: got", {"strength": -1.0})),
    ),
    Case(
        "papyrax.losses.pinball_loss",
        regression,
        ("predictions", "targets"),
        static={"quantile": 0.8, "huber_delta": 0.7},
        bad=(
            *BAD_REGRESSION,
            Bad("quantile: got", {"quantile": 1.5}),
            Bad("quantile: got shape", {"quantile": np.zeros(5)}),
            Bad("huber_delta: got", {"huber_delta": -1.0}),
        ),
    ),
    Case(
        "papyrax.losses.general_robust_loss",
        lambda rng: {**regression(rng), "shape": np.array([2.0, 1.0, 0.0, -2.0, -np.inf, 0.5])},
        ("predictions", "targets"),
        bad=(
            *BAD_REGRESSION,
            Bad("shape: got", {"shape": 2.1}),
            Bad("shape: got shape", {"shape": np.zeros(5)}),
            Bad("scale: got", {"scale": 0.0}),
        ),
    ),
]
