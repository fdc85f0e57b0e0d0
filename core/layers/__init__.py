"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""

from .attention import attention_fn
from .l2vit import L2ViTBlock, LocalConcentration
from .mala import MALABlock
from .soft import SOFTBlock

__all__ = [
    "L2ViTBlock",
    "LocalConcentration",
    "MALABlock",
    "SOFTBlock",
    "attention_fn",
]
