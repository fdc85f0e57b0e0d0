"""Declarations for the measures of collapse."""

import numpy as np

from contracts.case import Bad, Case


def logits_labels(rng):
    labels = rng.integers(0, 5, 6).astype(np.int32)
    # Some examples far beyond what half precision tells from one, others far below.
    scale = np.array([0.1, 1, 2, 40, 60, 80])[:, None]
    return {"logits": scale * np.eye(5)[labels], "labels": labels}


def weights(rng):
    return {
        "params": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "grads": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
    }


CASES = [
    Case(
        "papyrax.metrics.softmax_collapse",
        logits_labels,
        differentiable=False,
        keeps_dtype=False,
        bad=(
            Bad("labels: got dtype", {"labels": np.zeros(6)}),
            Bad("labels: got shape", {"labels": np.zeros(5, np.int32)}),
            Bad("logits: got dtype", {"logits": np.zeros((6, 5), np.int32)}),
            Bad("dtype: got", {"dtype": "float64"}),
            Bad("dtype: got", {"dtype": "int32"}),
        ),
    ),
    Case(
        "papyrax.metrics.nlm_alignment",
        weights,
        ("params", "grads"),
        rows=None,
        keeps_dtype=False,
        bad=(
            Bad("grads: got a tree", {"grads": {"kernel": np.zeros((3, 4))}}),
            Bad(
                "grads: got shape",
                {"grads": {"kernel": np.zeros((4, 3)), "bias": np.zeros(4)}},
            ),
        ),
    ),
]
