"""Batch normalization as torch has it."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from ..numerics import accumulation_dtype


def batch_norm(
    features: int, *, affine: bool = True, dtype: Any, param_dtype: Any, rngs: nnx.Rngs
) -> nnx.BatchNorm:
    """`nnx.BatchNorm` with torch's defaults, and with statistics of the accumulation dtype."""
    norm = nnx.BatchNorm(
        features,
        momentum=0.9,  # what torch calls a momentum of 0.1
        use_fast_variance=False,
        use_bias=affine,
        use_scale=affine,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )
    # flax keeps statistics in float32 even where it computes in float64.
    wide = accumulation_dtype(param_dtype, dtype or param_dtype)
    norm.mean = nnx.BatchStat(jnp.zeros(features, wide))
    norm.var = nnx.BatchStat(jnp.ones(features, wide))
    return norm
