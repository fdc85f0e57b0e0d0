"""Losses of optax under `papyrax.losses`, so that one import gives a whole comparison."""

import importlib
from typing import Any

FROM_OPTAX = (
    "convex_kl_divergence",
    "cosine_distance",
    "cosine_similarity",
    "ctc_loss",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "log_cosh",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "perceptron_loss",
    "poly_loss_cross_entropy",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "sparsemax_loss",
    "squared_error",
)
"""What `papyrax.losses` hands on as it is; optax documents and tests it."""


def lookup(module: str, name: str) -> Any:
    """The loss of optax called `name`; optax is imported when the first one is used.

    Raises:
      AttributeError: naming `module`, where it is not one of `FROM_OPTAX`.
    """
    if name not in FROM_OPTAX:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return getattr(importlib.import_module("optax.losses"), name)
