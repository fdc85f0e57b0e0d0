"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""

from .attention import attention_fn
from .heads import FixedCosineHead, GrassmannHead
from .hyper import HyperConv, HyperLinear
from .hyperzzw import MAGNet
from .l2vit import L2ViTBlock, LocalConcentration
from .mala import MALABlock
from .polarized import PolarizedSelfAttention
from .self_attention import KeyValueCache, SelfAttention, TransformerBlock
from .soft import SOFTBlock

__all__ = [
    "FixedCosineHead",
    "GrassmannHead",
    "HyperConv",
    "HyperLinear",
    "KeyValueCache",
    "L2ViTBlock",
    "LocalConcentration",
    "MAGNet",
    "MALABlock",
    "PolarizedSelfAttention",
    "SOFTBlock",
    "SelfAttention",
    "TransformerBlock",
    "attention_fn",
]
