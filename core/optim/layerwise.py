"""What each layer gets, by how heavy the tail of its spectrum is."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import (
    check_floating,
    check_range,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    upcast,
)


def _between(exponents: Array, low: Any, high: Any) -> Array:
    """From `low` for the smallest to `high` for the largest; the middle if all are equal."""
    least, most = jnp.min(exponents), jnp.max(exponents)
    share = safe_divide(exponents - least, most - least, fill=0.5)
    return low + (high - low) * share


def layerwise_scales(
    exponents: Float[Array, " layers"], *, low: Any = 0.5, high: Any = 1.5
) -> Float[Array, " layers"]:
    """Factors of the learning rate: larger for layers with a lighter tail, which lag behind.

        s_l = low + (high - low) (alpha_l - min alpha) / (max alpha - min alpha)

    Args:
      exponents: of the layers' spectra [layers], by `papyrax.curvature.hill_exponent`.
      low: the factor of the smallest exponent.
      high: the factor of the largest.

    Returns:
      The factors [layers]; the middle for all where the exponents are equal.

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Temperature Balancing, Layer-wise Weight Analysis, and Neural Network Training,
    arXiv 2312.00359 (TempBalance); HUST-AI-HYZ/FARMS Image_Classification/tempbalance_farms.py,
    with factors of 0.6 and 1.4 in its configuration.

    >>> layerwise_scales(jnp.array([2.0, 3.0, 4.0])).tolist()
    [0.5, 1.0, 1.5]
    """
    check_floating(exponents=exponents)
    check_rank("exponents", exponents, 1)
    check_range("low", low, 0)
    check_range("high", high, 0)
    return restore(_between(upcast(exponents), low, high), exponents)


def layerwise_sparsity(
    exponents: Float[Array, " layers"],
    sizes: Any,
    sparsity: Any,
    *,
    low: Any = 0.8,
    high: Any = 1.2,
) -> Float[Array, " layers"]:
    """Shares of weights to prune: more of layers with a lighter tail, on the whole as many as set.

        p_l = c s_l,   s_l = low + (high - low) (alpha_l - min alpha) / (max alpha - min alpha)
        c such that sum_l n_l p_l = sparsity sum_l n_l

    Args:
      exponents: of the layers' spectra [layers], by `papyrax.curvature.hill_exponent`.
      sizes: n, how many weights each layer has [layers].
      sparsity: the share of all weights to prune, in [0, 1].
      low: the weight of the smallest exponent.
      high: the weight of the largest.

    Returns:
      The shares [layers]. One above 1 is cut to 1, and fewer weights are pruned than set.

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: AlphaPruning, arXiv 2410.10912; HUST-AI-HYZ/FARMS LLM_Pruning/lib/prune.py, which cuts
    to 0.998 and takes the mean exponent of a transformer's block.

    >>> layerwise_sparsity(jnp.array([2.0, 4.0]), [100, 100], 0.5).tolist()
    [0.4000000059604645, 0.6000000238418579]
    """
    check_floating(exponents=exponents)
    check_rank("exponents", exponents, 1)
    check_shape("sizes", sizes, np.shape(exponents), "[layers] as exponents")
    check_range("sparsity", sparsity, 0, 1)
    check_range("low", low, 0)
    check_range("high", high, 0)
    wide = upcast(exponents)
    n = jnp.asarray(sizes, wide.dtype)
    shares = _between(wide, low, high)
    scale = safe_divide(sparsity * jnp.sum(n), jnp.sum(n * shares))
    return restore(jnp.minimum(scale * shares, 1), exponents)
