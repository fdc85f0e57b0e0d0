"""Neural network layers as dot products: inputs and weights meet only in random features."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_floating,
    check_range,
    check_rank,
    check_shape,
    restore,
    upcast,
)

_LARGEST = 40.0
"""Bound of the exponent of a feature: beyond exp(40) the estimate is long lost, but finite."""


def _check(name: str, x: Array, projections: Array) -> None:
    check_floating(**{name: x})
    check_floating(projections=projections)
    check_rank("projections", projections, 2)
    check_rank(name, x, 1, at_least=True)
    dim = np.shape(projections)[1]
    check(
        np.shape(x)[-1] == dim,
        name,
        f"got shape {np.shape(x)}, takes [..., {dim}], as projections [features, {dim}]",
    )


def random_projections(
    key: Array, features: int, dim: int, *, orthogonal: bool = False
) -> Float[Array, "features dim"]:
    """Gaussian directions for random features, independent or orthogonal in blocks.

        g_i ~ N(0, I);   orthogonal: blocks of `dim` rows are orthogonal, each still N(0, I)

    Args:
      key: a key of `jax.random`.
      features: number m of directions.
      dim: dimension d of what they are multiplied with.
      orthogonal: directions of one block at right angles, which lowers the variance.

    Returns:
      The directions [features, dim], in the default floating-point dtype.

    Raises:
      ValueError: for numbers that are not positive integers.

    Source: Scalable Neural Network Kernels, arXiv 2310.13225, section on universal random features;
    compared with arijitthegame/neural-network-kernels `src/nnk/performer_attention.py`
    (`gaussian_orthogonal_random_matrix`, scaling 0).

    >>> g = random_projections(jax.random.key(0), 6, 3, orthogonal=True)
    >>> bool(jnp.allclose(g[:3] @ g[:3].T, jnp.diag(jnp.sum(g[:3] ** 2, 1)), atol=1e-4))
    True
    """
    for name, number in (("features", features), ("dim", dim)):
        check(
            isinstance(number, int | np.integer) and number > 0,
            name,
            f"got {number!r}, takes an integer above 0",
        )
    if not orthogonal:
        return jax.random.normal(key, (features, dim))
    turn, length = jax.random.split(key)
    blocks = -(-features // dim)
    directions, upper = jnp.linalg.qr(jax.random.normal(turn, (blocks, dim, dim)))
    # QR fixes the signs of the diagonal; without them the directions would not be uniform.
    directions = directions * jnp.sign(jnp.diagonal(upper, axis1=1, axis2=2))[:, None]
    rows = jnp.swapaxes(directions, 1, 2).reshape(blocks * dim, dim)[:features]
    lengths = jnp.linalg.norm(jax.random.normal(length, (features, dim)), axis=1)
    return rows * lengths[:, None]


def snnk_relu_features(
    inputs: Float[Array, "*B d"],
    projections: Float[Array, "m d"],
    *,
    floor: float = 0.0,
) -> Float[Array, "*B m"]:
    """Features whose dot products stand for a layer of rectified linear units.

        phi(z) = max(G z, floor) / sqrt(m)
        E phi(x) . phi(w) = |x| |w| (sin t + (pi - t) cos t) / (2 pi),  t the angle of x and w

    The layer is `phi(x) Theta^T` with Theta = phi(W) [out, m] at the start and trained from there:
    m numbers an output, whatever the number of inputs.

    Args:
      inputs: x, or the rows of W [..., dim].
      projections: G [features, dim], fixed.
      floor: below zero it lets negative features through.

    Returns:
      The features [..., features].

    Raises:
      ValueError: for a wrong shape or dtype.

    Source: Scalable Neural Network Kernels, arXiv 2310.13225, the ReLU variant; compared with
    arijitthegame/neural-network-kernels `src/nnk/nnk.py` (`phi_relu_mapping_torch`).

    >>> snnk_relu_features(jnp.array([[3.0, -1.0, 0.0, 2.0]]), jnp.eye(4)).tolist()
    [[1.5, 0.0, 0.0, 1.0]]
    """
    _check("inputs", inputs, projections)
    x, g = upcast(inputs, projections)
    return restore(jnp.maximum(x @ g.T, floor) / math.sqrt(len(g)), inputs, projections)


def _exponential(
    x: Array, g: Array, frequencies: Array, damping: float
) -> tuple[Float[Array, "*B m"], Float[Array, "*B m"]]:
    """Modulus and angle of exp(a g.x - a^2 |x|^2 / 2) / sqrt(m), a = sqrt(2 pi i xi)."""
    spread = math.sqrt(1 + 4 * damping)
    # a = sqrt(pi |xi|) (1 +- i) and a^2 = 2 pi i xi: the norm of x only turns the feature.
    size = jnp.sqrt(jnp.pi * jnp.abs(frequencies))
    along = spread * size * (x @ g.T)
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    angle = jnp.sign(frequencies) * along - jnp.pi * frequencies * squared
    exponent = along - damping * jnp.sum(jnp.square(g), axis=-1)
    modulus = jnp.exp(jnp.minimum(exponent, _LARGEST)) / math.sqrt(len(g))
    return modulus * spread ** (g.shape[1] / 2), angle


def _check_frequencies(projections: Array, **others: Array) -> None:
    for name, x in others.items():
        check_floating(**{name: x})
        check_shape(name, x, (np.shape(projections)[0],), "[features], as projections")


def snnk_features(
    inputs: Float[Array, "*B d"],
    projections: Float[Array, "m d"],
    frequencies: Float[Array, "m"],
    *,
    damping: float = 0.0,
) -> Float[Array, "*B 2*m"]:
    """Universal random features of a layer's input.

        phi_j(x) = m^(-1/2) (1 + 4 M)^(d/4) exp(a_j s g_j.x - a_j^2 |x|^2 / 2 - M |g_j|^2)
        a_j = sqrt(2 pi i xi_j),  s = sqrt(1 + 4 M)

    With `snnk_weights` Psi(w, b), `phi(x) . Psi(w, b)` is in the mean f(w.x + b) for any f that has
    a Fourier transform. Real parts come first, then imaginary ones.

    Args:
      inputs: x [..., dim].
      projections: g, standard normal [features, dim]; see `random_projections`.
      frequencies: xi, drawn from a density p of choice [features].
      damping: M >= 0 of the asymmetric features, which lowers the variance of long inputs.

    Returns:
      The features [..., 2 features]; the exponent is cut at 40.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Scalable Neural Network Kernels, arXiv 2310.13225, universal random features and their
    asymmetric form; compared with arijitthegame/neural-network-kernels `src/nnk/nnk.py`
    (`input_to_rfs_torch_vectorized`, `create_asym_feats`), which returns complex numbers, lacks the
    1/2 for inputs of three axes, and leaves the factor (1 + 4 M)^(d/4) to `NNK_Asym_Kernel`, which
    has frequencies of both signs and divides x by d and W and b by d^(1/4): values and gradients
    agree.

    >>> g = jax.random.normal(jax.random.key(0), (5, 3))
    >>> snnk_features(jnp.ones((2, 3)), g, jnp.ones(5)).shape
    (2, 10)
    """
    _check("inputs", inputs, projections)
    _check_frequencies(projections, frequencies=frequencies)
    check_range("damping", damping, 0)
    x, g, xi = upcast(inputs, projections, frequencies)
    modulus, angle = _exponential(x, g, xi, damping)
    out = jnp.concatenate([modulus * jnp.cos(angle), modulus * jnp.sin(angle)], axis=-1)
    return restore(out, inputs, projections, frequencies)


def snnk_weights(
    weights: Float[Array, "out d"],
    projections: Float[Array, "m d"],
    frequencies: Float[Array, "m"],
    amplitudes: Float[Array, "m"],
    phases: Float[Array, "m"],
    bias: Float[Array, "out"] | None = None,
    *,
    damping: float = 0.0,
) -> Float[Array, "out 2*m"]:
    """Universal random features of a layer's weights: the other side of `snnk_features`.

        Psi_j(w, b) = A_j exp(i (theta_j + 2 pi xi_j b)) phi_j(w)
        f(u) = E A cos(2 pi xi u + theta)   =>   E Re phi(x) . Psi(w, b) = f(w.x + b)

    For f with Fourier transform F, A exp(i theta) = F(xi) / p(xi). For the cosine, xi = 1 / (2 pi),
    A = 1 and theta = 0; for the sine, theta = -pi / 2.

    Args:
      weights: rows w of W [out, dim].
      projections: as for the inputs [features, dim].
      frequencies: as for the inputs [features].
      amplitudes: A [features].
      phases: theta [features].
      bias: b [out]; zero for None.
      damping: as for the inputs.

    Returns:
      Psi [out, 2 features], signed so that a plain dot product with `snnk_features` is the real
      part; the exponent is cut at 40.

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: Scalable Neural Network Kernels, arXiv 2310.13225; compared as `snnk_features`.

    >>> g = jax.random.normal(jax.random.key(0), (20000, 2))
    >>> x, w, one = jnp.array([[0.5, 0.2]]), jnp.array([[1.0, -1.0]]), jnp.ones(20000)
    >>> psi = snnk_weights(w, g, one / (2 * jnp.pi), one, 0 * one)
    >>> estimate = snnk_features(x, g, one / (2 * jnp.pi)) @ psi.T
    >>> bool(abs(estimate[0, 0] - jnp.cos(0.3)) < 0.05)
    True
    """
    _check("weights", weights, projections)
    check_rank("weights", weights, 2)
    _check_frequencies(projections, frequencies=frequencies, amplitudes=amplitudes, phases=phases)
    check_range("damping", damping, 0)
    arrays: tuple[Array, ...] = (weights, projections, frequencies, amplitudes, phases)
    if bias is not None:
        check_floating(bias=bias)
        check_shape("bias", bias, (np.shape(weights)[0],), "[out], as weights")
        arrays = (*arrays, bias)
    w, g, xi, amplitude, phase, *rest = upcast(*arrays)
    modulus, angle = _exponential(w, g, xi, damping)
    angle = angle + phase
    if rest:
        angle = angle + 2 * jnp.pi * xi * rest[0][:, None]
    modulus = modulus * amplitude
    # Re (p q) = Re p Re q - Im p Im q.
    out = jnp.concatenate([modulus * jnp.cos(angle), -modulus * jnp.sin(angle)], axis=-1)
    return restore(out, *arrays)
