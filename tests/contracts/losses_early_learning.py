"""Declarations for the correction of labels after early learning."""

import numpy as np

from contracts.case import Bad, Case


def curve(rng):
    t = np.arange(8)
    values = 0.8 * (1 - np.exp(-(t**0.7) / 1.5)) + rng.normal(size=8) * 0.01
    return {"values": values, "where": t < 6}


def images(rng):
    return {
        "labels": rng.integers(0, 3, (2, 5)).astype(np.int32),
        "probabilities": rng.dirichlet(np.full(3, 0.5), (2, 5)),
        "ended": np.array([False, True, False]),
    }


BAD_CURVE = (
    Bad("values: got dtype", {"values": np.zeros(8, np.int32)}),
    Bad("values: got shape", {"values": np.zeros((8, 1))}),
    Bad("where: got dtype", {"where": np.zeros(8)}),
    Bad("where: got shape", {"where": np.zeros(7, bool)}),
)

CASES = [
    Case(
        "papyrax.losses.fit_learning_curve",
        # Without noise, so that half precision and rounding move the fit little.
        lambda rng: {"values": 0.8 * (1 - np.exp(-(np.arange(8) ** 0.7) / 1.5))},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        tolerance=0.3,  # the curve's parameters trade off against each other
        bad=(*BAD_CURVE[:2], Bad("values: got none", {"values": np.zeros(0)}), *BAD_CURVE[2:]),
    ),
    Case(
        "papyrax.losses.learning_slowdown",
        curve,
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        tolerance=0.1,
        bad=BAD_CURVE,
    ),
    Case(
        "papyrax.losses.correct_labels",
        images,
        static={"threshold": 0.6},
        rows_in=("labels", "probabilities"),
        differentiable=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros((2, 5))}),
            Bad("probabilities: got shape", {"probabilities": np.zeros((2, 4, 3))}),
            Bad("ended: got shape", {"ended": np.zeros(4, bool)}),
            Bad("ended: got dtype", {"ended": np.zeros(3)}),
            Bad("threshold: got", {"threshold": 1.1}),
            Bad("background_threshold: got", {"background_threshold": -0.1}),
        ),
    ),
    Case(
        "papyrax.losses.multiscale_consistency_loss",
        lambda rng: {"logits": rng.normal(size=(3, 2, 4, 3)), "scores": rng.normal(size=3)},
        ("logits", "scores"),
        static={"threshold": 0.0},
        rows=1,
        rows_in=("logits",),
        bad=(
            Bad("logits: got dtype", {"logits": np.zeros((3, 2, 4), np.int32)}),
            Bad("logits: got shape", {"logits": np.zeros((3, 2))}),
            Bad("scores: got shape", {"scores": np.zeros(2)}),
            Bad("threshold: got", {"threshold": 1.1}),
            Bad("clip: got", {"clip": 0.5}),
            Bad("where: got dtype", {"where": np.ones((2, 4))}),
            Bad("where: got shape", {"where": np.ones(2, bool)}),
        ),
    ),
]
