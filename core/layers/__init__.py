"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""

from .attention import attention_fn
from .l2vit import L2ViTBlock, LocalConcentration
from .hyperzzw import MAGNet
from .mala import MALABlock
from .soft import SOFTBlock

__all__ = [
    "L2ViTBlock",
    "LocalConcentration",
    "MAGNet",
    "MALABlock",
    "SOFTBlock",
    "attention_fn",
]
