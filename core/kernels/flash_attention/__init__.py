"""Softmax attention, differentiable to second order in memory linear in the sequence length."""

from .api import attention, implementations
from .operands import Config, Inputs, Masks, Output
from .ring import ring

__all__ = ["Config", "Inputs", "Masks", "Output", "attention", "implementations", "ring"]
