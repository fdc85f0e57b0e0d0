"""Optax transformations: `scale_by_x`, the rule alone, beside `x`, ready to use."""

from .perpgrad import perpgrad, scale_by_perpgrad

__all__ = [
    "perpgrad",
    "scale_by_perpgrad",
]
