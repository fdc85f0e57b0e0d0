"""Declarations for the cross-entropy of a linear layer in chunks of the vocabulary."""

import numpy as np

from contracts.case import Bad, Case


def layer(rng):
    return {
        "hidden": rng.normal(size=(4, 3)),
        "kernel": rng.normal(size=(3, 7)),
        "labels": rng.integers(7, size=4).astype(np.int32),
    }


def with_bias(rng):
    return {**layer(rng), "bias": rng.normal(size=7)}


BAD_LAYER = (
    Bad("hidden: got dtype", {"hidden": np.zeros((4, 3), np.int32)}),
    Bad("kernel: got shape", {"kernel": np.zeros((4, 7))}),
    Bad("kernel: got no classes", {"kernel": np.zeros((3, 0))}),
    Bad("labels: got dtype", {"labels": np.zeros(4)}),
    Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
    Bad("bias: got shape", {"bias": np.zeros(6)}),
    Bad("chunk_size: got", {"chunk_size": 0}),
    Bad("implementation: got", {"implementation": "cuda"}),
    Bad("tiles: got", {"tiles": (16, 128, 128)}),
)
NAME = "papyrax.losses.linear_softmax_cross_entropy"
CASES = [
    Case(
        NAME,
        layer,
        ("hidden", "kernel"),
        {"chunk_size": 3},
        rows_in=("hidden", "labels"),
        bad=(
            *BAD_LAYER,
            Bad("label_smoothing: got", {"label_smoothing": 1.5}),
            Bad("z_loss_weight: got", {"z_loss_weight": -1.0}),
        ),
    ),
    Case(
        NAME,
        with_bias,
        ("hidden", "kernel", "bias"),
        {"label_smoothing": 0.1, "z_loss_weight": 1e-2},
        label="bias, smoothed",
        rows_in=("hidden", "labels"),
    ),
]
