"""Declarations for the losses of distillation."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_classification import BAD_WHERE, logits_labels
from papyrax.losses import ps_kd_init

BATCH, CLASSES = 4, 5


def two_logits(rng):
    return {
        "logits": rng.normal(size=(BATCH, CLASSES)) * 2,
        "teacher_logits": rng.normal(size=(BATCH, CLASSES)) * 2,
    }


def masked_logits(rng):
    return {**two_logits(rng), "where": rng.uniform(size=(BATCH, CLASSES)) < 0.7}


def indexed(rng):
    return {**logits_labels(rng), "indices": rng.permutation(6)[:BATCH].astype(np.int32)}


def run(fn, **kwargs):
    state = ps_kd_init(np.array([0, 3, 1, 2, 4, 0]), classes=CLASSES)
    losses, after = fn(state, **kwargs)
    return losses, after.predictions.astype(losses.dtype)


def features(rng):
    return {
        "features": rng.normal(size=(BATCH, 3)),
        "teacher_features": rng.normal(size=(BATCH, 3)),
        "labels": rng.integers(0, CLASSES, BATCH).astype(np.int32),
        "class_means": rng.normal(size=(CLASSES, 3)),
    }


def points(rng):
    targets = rng.uniform(-0.5, 0.5, (BATCH, 6))
    near = {k: targets + rng.normal(size=targets.shape) * 0.2 for k in ("points", "tough")}
    return {**near, "targets": targets, "tolerant": targets + rng.normal(size=targets.shape) * 0.2}


def probabilities(rng):
    p = rng.uniform(0.1, 1, (BATCH, CLASSES)) ** 3
    return {
        "teacher_probabilities": p / p.sum(-1, keepdims=True),
        "labels": rng.integers(0, CLASSES, BATCH).astype(np.int32),
    }


BAD_PAIR = (
    Bad("teacher_logits: got shape", {"teacher_logits": np.zeros((BATCH, CLASSES + 1))}),
    Bad("teacher_logits: got dtype", {"teacher_logits": np.zeros((BATCH, CLASSES), np.int32)}),
    Bad("logits: got dtype", {"logits": np.zeros((BATCH, CLASSES), np.int32)}),
    Bad("temperature: got", {"temperature": 0.0}),
)
LOGITS = ("logits", "teacher_logits")

CASES = [
    Case("papyrax.losses.knowledge_distillation_loss", two_logits, LOGITS, bad=BAD_PAIR),
    Case(
        "papyrax.losses.knowledge_distillation_loss",
        masked_logits,
        LOGITS,
        label="masked",
        bad=BAD_WHERE,
    ),
    Case(
        "papyrax.losses.ps_kd",
        indexed,
        ("logits",),
        static={"weight": 0.4},
        call=run,
        finite_differences=False,  # no gradient goes through the remembered predictions
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
            Bad("indices: got dtype", {"indices": np.zeros(BATCH)}),
            Bad("indices: got shape", {"indices": np.zeros(BATCH + 1, np.int32)}),
            Bad("state: got shape", {"logits": np.zeros((BATCH, CLASSES + 1))}),
            Bad("weight: got", {"weight": 1.5}),
        ),
    ),
    Case(
        "papyrax.losses.ps_kd_init",
        lambda rng: {"labels": rng.integers(0, 3, 4).astype(np.int32)},
        static={"classes": 3},
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(4)}),
            Bad("classes: got", {"classes": 0}),
        ),
    ),
    Case(
        "papyrax.losses.ps_kd_weight",
        lambda rng: {"epoch": np.int32(3)},
        static={"epochs": 8},
        rows=None,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("epoch: got dtype", {"epoch": np.float64(1)}),
            Bad("epochs: got", {"epochs": 0}),
            Bad("final_weight: got", {"final_weight": 1.1}),
        ),
    ),
    Case(
        "papyrax.losses.class_means",
        lambda rng: {
            "features": rng.normal(size=(6, 3)),
            "labels": rng.integers(0, 3, 6).astype(np.int32),
        },
        ("features",),
        static={"classes": 4},
        bad=(
            Bad("features: got dtype", {"features": np.zeros((6, 3), np.int32)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("classes: got", {"classes": 0}),
        ),
    ),
    Case(
        "papyrax.losses.norm_direction_loss",
        features,
        ("features", "teacher_features"),
        rows_in=("features", "teacher_features", "labels"),
        bad=(
            Bad("teacher_features: got shape", {"teacher_features": np.zeros((BATCH, 4))}),
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
            Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
            Bad("class_means: got shape", {"class_means": np.zeros((CLASSES, 4))}),
            Bad("features: got dtype", {"features": np.zeros((BATCH, 3), np.int32)}),
        ),
    ),
    Case("papyrax.losses.binary_kl_loss", two_logits, LOGITS, bad=BAD_PAIR),
    Case("papyrax.losses.binary_kl_norm_loss", two_logits, LOGITS, bad=BAD_PAIR),
    Case(
        "papyrax.losses.binary_kl_norm_loss",
        two_logits,
        LOGITS,
        static={"clip": 1e-8},
        label="clipped",
        bad=(Bad("clip: got", {"clip": 0.5}), Bad("clip: got", {"clip": 0.0})),
    ),
    Case(
        "papyrax.losses.align_gradients",
        lambda rng: {
            "gradient": {"w": np.array([1.0, -2.0, 0.5]), "b": np.array([[0.3]])},
            "auxiliary": {"w": np.array([-1.0, 1.5, 1.0]), "b": np.array([[0.7]])},
        },
        ("gradient", "auxiliary"),
        rows=None,
        bad=(
            Bad("auxiliary: got the tree", {"auxiliary": {"w": np.zeros(3)}}),
            Bad(
                "auxiliary: got shape",
                {"auxiliary": {"w": np.zeros(4), "b": np.zeros((1, 1))}},
            ),
        ),
    ),
    Case(
        "papyrax.losses.ferkd_labels",
        probabilities,
        static={"calibrate_below": 0.5, "discard_below": 0.3},
        differentiable=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
            Bad(
                "teacher_probabilities: got dtype", {"teacher_probabilities": np.zeros((4, 5), int)}
            ),
            Bad("calibrate_below: got", {"calibrate_below": 1.1}),
            Bad("discard_below: got", {"discard_below": -0.1}),
            Bad("discard_above: got", {"discard_above": 1.1}),
            Bad("label_smoothing: got", {"label_smoothing": -0.1}),
        ),
    ),
    Case(
        "papyrax.losses.landmark_distillation_loss",
        points,
        ("points",),
        bad=(
            Bad("targets: got shape", {"targets": np.zeros((BATCH, 5))}),
            Bad("tough: got shape", {"tough": np.zeros((BATCH, 5))}),
            Bad("tolerant: got dtype", {"tolerant": np.zeros((BATCH, 6), np.int32)}),
            Bad("main_weight: got", {"main_weight": 0.0}),
            Bad("band: got", {"band": 1.5}),
            Bad("tough_push: got", {"tough_push": 0.1}),
        ),
    ),
]
