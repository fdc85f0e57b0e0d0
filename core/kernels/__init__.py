"""Pallas kernels: a folder an operator, with its plain definition in `reference.py`."""

from . import flash_attention
from .op import Op

__all__ = ["Op", "flash_attention"]
