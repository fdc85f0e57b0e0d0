"""Attention operators with the signature of `jax.nn.dot_product_attention`."""

from .anchor import anchor_attention
from .contextual import contextual_attention
from .din import dice, din_attention
from .dot_product import dot_product_attention
from .epipolar import epipolar_attention, epipolar_mask
from .hyperzzw import hyper_zzw_elementwise, hyper_zzw_global, hyper_zzw_local, instance_standardize
from .linear import (
    LinearAttentionState,
    linear_attention,
    linear_attention_init,
    linear_attention_step,
    linear_attention_weights,
)
from .mala import MalaState, mala, mala_init, mala_step, mala_weights
from .normalized import normalized_attention
from .polarized import (
    polarized_channel_context,
    polarized_self_attention,
    polarized_spatial_gate,
)
from .relu_linear import relu_linear_attention
from .ring import ring_attention
from .rope import Rotary, apply_rope, rope_1d, rope_2d
from .snnk import random_projections, snnk_features, snnk_relu_features, snnk_weights
from .soft import newton_inverse, soft_attention
from .svm import attention_margins, attention_svm, matrix_correlation

__all__ = [
    "LinearAttentionState",
    "MalaState",
    "Rotary",
    "anchor_attention",
    "apply_rope",
    "attention_margins",
    "attention_svm",
    "contextual_attention",
    "dice",
    "din_attention",
    "dot_product_attention",
    "epipolar_attention",
    "epipolar_mask",
    "hyper_zzw_elementwise",
    "hyper_zzw_global",
    "hyper_zzw_local",
    "instance_standardize",
    "linear_attention",
    "linear_attention_init",
    "linear_attention_step",
    "linear_attention_weights",
    "mala",
    "mala_init",
    "mala_step",
    "mala_weights",
    "matrix_correlation",
    "newton_inverse",
    "normalized_attention",
    "polarized_channel_context",
    "polarized_self_attention",
    "polarized_spatial_gate",
    "random_projections",
    "relu_linear_attention",
    "ring_attention",
    "rope_1d",
    "rope_2d",
    "snnk_features",
    "snnk_relu_features",
    "snnk_weights",
    "soft_attention",
]
