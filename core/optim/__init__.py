"""Optax transformations: `scale_by_x`, the rule alone, beside `x`, ready to use."""

from .adahessian import AdahessianState, adahessian, scale_by_adahessian
from .curvature import CurvaturePlan, curvature_plan, wants_curvature
from .perpgrad import perpgrad, scale_by_perpgrad

__all__ = [
    "AdahessianState",
    "CurvaturePlan",
    "adahessian",
    "curvature_plan",
    "perpgrad",
    "scale_by_adahessian",
    "scale_by_perpgrad",
    "wants_curvature",
]
