"""Optax transformations: `scale_by_x`, the rule alone, beside `x`, ready to use."""

from .adahessian import AdahessianState, adahessian, scale_by_adahessian
from .curvature import CurvaturePlan, curvature_plan, wants_curvature
from .gns_newton import (
    GnsNewtonState,
    LocalOracle,
    gns_newton,
    local_oracle,
    scale_by_gns_newton,
)
from .m_fac import MFacState, m_fac, scale_by_m_fac
from .perpgrad import perpgrad, scale_by_perpgrad
from .sophia import SophiaState, scale_by_sophia, sophia_g, sophia_h

__all__ = [
    "AdahessianState",
    "CurvaturePlan",
    "GnsNewtonState",
    "LocalOracle",
    "MFacState",
    "SophiaState",
    "adahessian",
    "curvature_plan",
    "gns_newton",
    "local_oracle",
    "m_fac",
    "perpgrad",
    "scale_by_adahessian",
    "scale_by_gns_newton",
    "scale_by_m_fac",
    "scale_by_perpgrad",
    "scale_by_sophia",
    "sophia_g",
    "sophia_h",
    "wants_curvature",
]
