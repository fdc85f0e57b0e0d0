"""Declarations for regularizers of metric learning that confuse."""

import numpy as np

from contracts.case import Bad, Case
from contracts.losses_metric import BATCH, FEATURES, labelled

BAD = (
    Bad("embeddings: got dtype", {"embeddings": np.zeros((BATCH, FEATURES), np.int32)}),
    Bad("embeddings: got shape", {"embeddings": np.zeros(BATCH)}),
    Bad("labels: got dtype", {"labels": np.zeros(BATCH)}),
    Bad("labels: got shape", {"labels": np.zeros(BATCH + 1, np.int32)}),
    Bad("ring", {"ring": True}),
    Bad("chunk_size", {"chunk_size": 0}),
)

CASES = [
    Case("papyrax.losses.energy_confusion_loss", labelled, ("embeddings",), bad=BAD),
    Case(
        "papyrax.losses.energy_confusion_loss",
        labelled,
        ("embeddings",),
        static={"logarithm": False, "same_class": True, "chunk_size": 4},
        label="energy",
    ),
]
