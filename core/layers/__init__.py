"""Modules of flax.nnx: normalizations, heads, adapters and attention blocks."""

from .attention import attention_fn
from .dice import Dice
from .functional import Functional, functional
from .hallucinator import (
    Hallucinator,
)
from .heads import FixedCosineHead, GrassmannHead
from .hyper import HyperConv, HyperLinear
from .hyperzzw import MAGNet, RecursiveGatedUnit
from .l2vit import L2ViTBlock, LocalConcentration
from .mala import MALABlock
from .mixed import Architecture, MixedOperation
from .polarized import PolarizedSelfAttention
from .self_attention import KeyValueCache, SelfAttention, TransformerBlock
from .separable import SharpSepConv
from .snnk import SNNKLinear
from .soft import SOFTBlock

__all__ = [
    "Architecture",
    "Dice",
    "FixedCosineHead",
    "Functional",
    "GrassmannHead",
    "Hallucinator",
    "HyperConv",
    "HyperLinear",
    "KeyValueCache",
    "L2ViTBlock",
    "LocalConcentration",
    "MAGNet",
    "MALABlock",
    "MixedOperation",
    "PolarizedSelfAttention",
    "RecursiveGatedUnit",
    "SNNKLinear",
    "SOFTBlock",
    "SelfAttention",
    "SharpSepConv",
    "TransformerBlock",
    "attention_fn",
    "functional",
]
