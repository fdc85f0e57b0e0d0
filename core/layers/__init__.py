"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""

from .attention import attention_fn
from .mala import MALABlock

__all__ = [
    "MALABlock",
    "attention_fn",
]
