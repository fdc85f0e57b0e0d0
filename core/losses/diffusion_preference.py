"""Preferences between images of a diffusion model."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numerics import check_positive, check_range, restore, upcast
from ._shared import softplus
from .preference import PerPair, check_same_shape


def _bernoulli(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (exp(x) - 1)`, one at zero, with derivatives of every order; for `x` below zero too."""
    # x / expm1(x) = exp(-x/2) (x/2) / sinh(x/2); the even factor is a series near zero.
    near = jnp.abs(x) < 0.1
    small, other = jnp.where(near, x, 0), jnp.where(near, 1, x)
    square = jnp.square(small)
    series = 1 - small / 2 + square / 12 * (1 - square / 60 * (1 - square / 42))
    # Where exp(x) would leave the dtype, the value is zero or -x to every digit.
    limit = math.log(float(jnp.finfo(x.dtype).max)) / 3
    inside = jnp.clip(other, -limit, limit)
    closed = inside / jnp.expm1(inside) + jnp.maximum(-other - limit, 0)
    return jnp.where(near, series, closed)


def mapo_loss(
    chosen_error: PerPair,
    rejected_error: PerPair,
    *,
    beta: float = 0.1,
    snr: float = 0.5,
    timesteps: int = 1000,
) -> PerPair:
    """MaPO: preferences for diffusion models without a reference model.

    With the denoising errors `m` of the two images under the same noise and step and
    `s(m) = c m / (exp(c m) - 1)`, which stands for the likelihood,
    `m_w - beta log sigmoid(T (s(m_w) - s(m_l)))`.

    Args:
      chosen_error: mean squared denoising error of the preferred image, zero or more [...].
      rejected_error: that of the other image [...].
      beta: the weight of the margin.
      snr: `c`, the signal-to-noise ratio, which the authors hold constant.
      timesteps: `T`, the number of diffusion steps.

    Returns:
      One loss a pair [...].

    Raises:
      ValueError: if a shape, a dtype or a hyper-parameter does not fit.

    Source: Margin-aware Preference Optimization for Aligning Diffusion Models without Reference,
    arXiv 2406.06424; `compute_loss` in `utils.py` of mapo-t2i/mapo agrees, but writes
    `exp(c m) - 1` plainly, which loses digits at small errors and is 0/0 at zero.

    >>> m = jnp.array([0.2])
    >>> np.asarray(mapo_loss(m, m), float).round(3)
    array([0.269])
    """
    check_same_shape(chosen_error=chosen_error, rejected_error=rejected_error)
    check_range("beta", beta, 0)
    check_positive(snr=snr, timesteps=timesteps)
    w, l = upcast(chosen_error, rejected_error)
    lead = timesteps * (_bernoulli(snr * w) - _bernoulli(snr * l))
    return restore(w + beta * softplus(-lead), chosen_error, rejected_error)
