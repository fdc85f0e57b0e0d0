"""Softmax in the (mantissa, exponent) representation, which reads its input twice."""

from .api import two_pass_log_softmax, two_pass_softmax
from .extended import extended_add, extended_exp

__all__ = ["extended_add", "extended_exp", "two_pass_log_softmax", "two_pass_softmax"]
