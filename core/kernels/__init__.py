"""Pallas kernels: a folder an operator, with its plain definition in `reference.py`."""

from . import flash_attention, linear_attention
from .op import Op
from .two_pass_softmax import (
    extended_add,
    extended_exp,
    two_pass_log_softmax,
    two_pass_softmax,
)

__all__ = [
    "Op",
    "extended_add",
    "extended_exp",
    "flash_attention",
    "linear_attention",
    "two_pass_log_softmax",
    "two_pass_softmax",
]
