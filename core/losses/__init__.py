"""Loss functions, one value per example, by what they learn from."""

from .classification import (
    log_stablemax,
    stablemax,
    stablemax_cross_entropy,
    stablemax_cross_entropy_with_targets,
)

__all__ = [
    "log_stablemax",
    "stablemax",
    "stablemax_cross_entropy",
    "stablemax_cross_entropy_with_targets",
]
