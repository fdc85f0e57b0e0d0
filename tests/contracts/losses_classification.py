"""Declarations for the losses of classification."""

import numpy as np

from contracts.case import Bad, Case

BATCH, CLASSES = 4, 5


def logits_labels(rng):
    return {
        "logits": rng.normal(size=(BATCH, CLASSES)) * 2,
        "labels": rng.integers(0, CLASSES, BATCH).astype(np.int32),
    }


def masked(rng):
    where = rng.uniform(size=(BATCH, CLASSES)) < 0.7
    return {**logits_labels(rng), "where": where}


def dense(rng):
    targets = rng.uniform(0.1, 1, (BATCH, CLASSES))
    return {
        "logits": rng.normal(size=(BATCH, CLASSES)) * 2,
        "targets": targets / targets.sum(-1, keepdims=True),
    }


def huge(arrays):
    x = np.array(arrays["logits"])
    return {
        "largest float32": {**arrays, "logits": np.sign(x) * 3e38},
        "times 1e30": {**arrays, "logits": x * 1e30},
        "tiny": {**arrays, "logits": x * 1e-40},
    }


BAD_LABELS = (
    Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
    Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
    Bad("logits: got dtype", {"logits": np.zeros((BATCH, CLASSES), np.int32)}),
    Bad("logits: got shape", {"logits": np.float64(1.0)}),
)
BAD_WHERE = (
    Bad("where: got dtype", {"where": np.zeros((BATCH, CLASSES))}),
    Bad("where: got shape", {"where": np.zeros((BATCH, CLASSES + 1), bool)}),
)


CASES = [
    Case(
        "papyrax.losses.log_stablemax",
        lambda rng: {"logits": rng.normal(size=(BATCH, CLASSES)) * 2},
        ("logits",),
        extremes=huge,
        bad=(
            Bad("logits: got dtype", {"logits": np.zeros((BATCH, CLASSES), np.int32)}),
            Bad("where: got shape", {"where": np.zeros((CLASSES + 1,), bool)}),
            Bad("where: got dtype", {"where": np.ones(CLASSES, np.int32)}),
            Bad("axis: got", {"axis": 2}),
        ),
    ),
    Case(
        "papyrax.losses.stablemax",
        lambda rng: {
            "logits": rng.normal(size=(BATCH, CLASSES)) * 2,
            "where": rng.uniform(size=(BATCH, CLASSES)) < 0.7,
        },
        ("logits",),
        extremes=huge,
        bad=(
            Bad("logits: got dtype", {"logits": np.zeros((BATCH, CLASSES), np.int32)}),
            Bad("where: got shape", {"where": np.zeros((CLASSES + 1,), bool)}),
            Bad("where: got dtype", {"where": np.ones(CLASSES, np.int32)}),
            Bad("axis: got", {"axis": 2}),
        ),
    ),
    Case(
        "papyrax.losses.stablemax_cross_entropy",
        logits_labels,
        ("logits",),
        extremes=huge,
        bad=BAD_LABELS,
    ),
    Case(
        "papyrax.losses.stablemax_cross_entropy",
        masked,
        ("logits",),
        label="masked",
        extremes=huge,
        bad=BAD_WHERE,
    ),
    Case(
        "papyrax.losses.stablemax_cross_entropy_with_targets",
        dense,
        ("logits", "targets"),
        extremes=huge,
        bad=(
            Bad("targets: got shape", {"targets": np.zeros((BATCH, CLASSES + 1))}),
            Bad("targets: got dtype", {"targets": np.zeros((BATCH, CLASSES), np.int32)}),
        ),
    ),
]
