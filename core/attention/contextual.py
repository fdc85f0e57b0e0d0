"""Contextual attention of image inpainting: a hole is filled from patches of what is known."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..numerics import (
    check,
    check_boolean,
    check_floating,
    check_positive,
    check_rank,
    check_shape,
    restore,
    safe_divide,
    safe_normalize,
    safe_sqrt,
    upcast,
)

Similarity = Literal["euclidean", "cosine"]


def _corners(height: int, width: int) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Rows and columns of the upper left corners of all patches."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return rows.ravel(), columns.ravel()


def _where(corners: tuple[np.ndarray, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of every entry of the patches [patches, size, size]."""
    offsets = np.arange(size)
    rows = np.broadcast_to(
        corners[0][:, None, None] + offsets[:, None], (len(corners[0]), size, size)
    )
    columns = np.broadcast_to(corners[1][:, None, None] + offsets, rows.shape)
    return rows, columns


def contextual_attention(
    features: Float[Array, "B H W C"],
    mask: Bool[Array, "B H W"],
    foreground: Float[Array, "B H W C"] | None = None,
    *,
    patch_size: int = 3,
    scale: float = 50.0,
    similarity: Similarity = "euclidean",
    complete_only: bool = False,
) -> Float[Array, "B H W C"]:
    """Fill the hole of an image with patches of its known part, by truncated distance.

        d_ij = |f_i - b_j|^2,   s_ij = -tanh((d_ij - mean_j d_ij) / std_j d_ij)
        out = known + hole * sum_i sum_j softmax_j(scale s_ij) b_j / patch_size^2

    f_i are the patches around all places of the foreground, b_j those inside the known part, and
    each place is the mean of the patches that cover it. Standardized, the distances know no unit,
    and the hyperbolic tangent keeps them from separating the near ones only.

    Args:
      features: [batch, height, width, channels].
      mask: True where a place is known [batch, height, width].
      foreground: what is looked for [batch, height, width, channels]; the features for None.
      patch_size: height and width of the patches, an odd number.
      scale: lambda.
      similarity: "euclidean" as above, or "cosine" of the patches, as in earlier networks.
      complete_only: leave patches that reach into the hole out; zeros stand there otherwise.

    Returns:
      The features where known and the attention in the hole [batch, height, width, channels].

    Raises:
      ValueError: for a wrong shape, dtype or hyper-parameter.

    Source: PEPSI++: Fast and Lightweight Network for Image Inpainting, arXiv 1905.09010, the
    modified contextual attention module; compared with `module.py` (`contextual_block`) of
    Forty-lock/PEPSI-Fast_image_inpainting_with_parallel_decoding_network: values and gradients
    agree, though its softmax subtracts 3 and not the largest logit; a 1x1 convolution and ELU
    follow there. Its `contextual_block_cs`, the cosine, also adds the scores of neighbours along
    the diagonals of the patches, which is not done here.

    >>> x = jnp.tile(jnp.array([0.0, 1.0, 2.0]), (1, 9, 3))[..., None]
    >>> known = jnp.ones((1, 9, 9), bool).at[:, 4, 4].set(False)
    >>> filled = contextual_attention(x, known, complete_only=True)
    >>> print(f"{filled[0, 4, 4, 0]:.2f}")
    1.00
    """
    check_floating(features=features)
    check_rank("features", features, 4)
    shape = batch, height, width, channels = np.shape(features)
    check_boolean(mask=mask)
    check_shape("mask", mask, shape[:3], "[batch, height, width], as features")
    arrays = [features]
    if foreground is not None:
        check_floating(foreground=foreground)
        check_shape("foreground", foreground, shape, "[batch, height, width, channels]")
        arrays.append(foreground)
    limit = min(height, width)
    check(
        isinstance(patch_size, int | np.integer)
        and patch_size % 2 == 1
        and 0 < patch_size <= limit,
        "patch_size",
        f"got {patch_size!r}, takes an odd number up to {limit}",
    )
    check_positive(scale=scale)
    check(
        similarity in ("euclidean", "cosine"),
        "similarity",
        f'got {similarity!r}, takes "euclidean" or "cosine"',
    )
    size = int(patch_size)
    wide = upcast(*arrays)
    x, looked_for = wide if len(arrays) == 2 else (wide, wide)
    known = jnp.asarray(mask)
    background = jnp.where(known[..., None], x, 0)
    inside = _where(_corners(height - size + 1, width - size + 1), size)
    around = _where(_corners(height, width), size)  # in padded coordinates
    border = ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0))

    def flat(patches: Array) -> Float[Array, "B P D"]:
        return patches.reshape(batch, patches.shape[1], size * size * channels)

    b = flat(background[:, *inside])
    f = flat(jnp.pad(looked_for, border)[:, *around])
    whole = (
        jnp.all(known[:, *inside], axis=(-2, -1)) if complete_only else jnp.ones(b.shape[:2], bool)
    )
    whole = whole[:, None]
    if similarity == "cosine":
        score = safe_normalize(f) @ jnp.swapaxes(safe_normalize(b), 1, 2)
    else:
        # |f|^2 is the same for all j and goes with the mean.
        distance = jnp.sum(b**2, axis=-1)[:, None] - 2 * f @ jnp.swapaxes(b, 1, 2)
        count = jnp.maximum(jnp.sum(whole, axis=-1, keepdims=True), 1)

        def mean(y: Array) -> Array:
            return jnp.sum(jnp.where(whole, y, 0), axis=-1, keepdims=True) / count

        centered = jnp.where(whole, distance - mean(distance), 0)
        # In units of the largest, whose square stays in range.
        unit = jax.lax.stop_gradient(jnp.max(jnp.abs(centered), axis=-1, keepdims=True))
        centered = safe_divide(centered, unit)
        score = -jnp.tanh(safe_divide(centered, safe_sqrt(mean(centered**2))))
    logits = jnp.where(whole, scale * score, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True, initial=-1e30))
    shares = jnp.exp(jnp.where(whole, logits - top, -jnp.inf))
    weights = safe_divide(shares, jnp.sum(shares, axis=-1, keepdims=True))
    pasted = (weights @ b).reshape(batch, height * width, size, size, channels)
    canvas = jnp.zeros_like(jnp.pad(x, border)).at[:, *around].add(pasted) / size**2
    filled = canvas[:, size // 2 : size // 2 + height, size // 2 : size // 2 + width]
    return restore(jnp.where(known[..., None], x, filled), *arrays)
