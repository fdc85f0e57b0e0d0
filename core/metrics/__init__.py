"""Evaluation measures; nothing here is trained on."""

from .collapse import nlm_alignment, softmax_collapse

__all__ = [
    "nlm_alignment",
    "softmax_collapse",
]
