"""Sums of linear attention over keys, with the state of a chunk handed to the next."""

from .api import IMPLEMENTATIONS, linear_attention
from .operands import Config, Inputs, Sums

__all__ = ["IMPLEMENTATIONS", "Config", "Inputs", "Sums", "linear_attention"]
