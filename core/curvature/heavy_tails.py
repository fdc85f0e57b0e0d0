"""How heavy the tail of a weight matrix's spectrum is, whatever the matrix's shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numerics import (
    check,
    check_count,
    check_floating,
    check_positive,
    check_range,
    check_rank,
    restore,
    safe_log,
    upcast,
)


def _starts(length: int, size: int, windows: int, stride: int | None) -> np.ndarray:
    """Where windows of this size begin, evenly spaced from 0 or a stride apart."""
    room = length - size
    if stride is None:
        step = max(1, room // (windows - 1)) if windows > 1 else room + 1
        return np.arange(min(windows, room // step + 1)) * step
    return np.arange(room // stride + 1) * stride


def farms_eigenvalues(
    weights: Float[Array, "... rows columns"],
    *,
    size: int = 100,
    aspect: float = 1.0,
    windows: int = 9,
    stride: int | None = None,
) -> Float[Array, " eigenvalues"]:
    """Squared singular values of submatrices of one aspect ratio, all together.

        eig(W_s W_s'),   W_s = W[r : r + m, c : c + Q m],   over a grid of (r, c)

    The spectrum of a whole matrix depends on its aspect ratio: by the Marchenko-Pastur law, noise
    of another shape has another tail. Of submatrices of one shape it does not, so that layers can
    be compared (see `hill_exponent`). Windows are taken one after another, so that memory is that
    of one.

    Args:
      weights: matrices [..., rows, columns], such as [inputs, units] or, of a convolution,
        [height, width, inputs, outputs]; windows of all are put together.
      size: m, rows of a window; fewer where a matrix has fewer.
      aspect: Q, columns of a window over its rows.
      windows: at most so many along each axis, evenly spaced. With few, the ends of an axis are
        out of reach, as in the authors' code, where the spacing is rounded down.
      stride: instead of `windows`, the distance between two; that of `size` does not overlap.

    Returns:
      The eigenvalues in ascending order [matrices * windows * min(rows, columns) of a window].

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias, arXiv 2506.06280;
    HUST-AI-HYZ/FARMS LLM_Pruning/lib/sampling.py. Of convolutions the code scales by 1/2, which
    changes no exponent, takes square blocks of the longer axis side by side, `size` of the shorter
    one, and averages the blocks' exponents. Where a window does not fit, the code's is cut off at
    the border; here it keeps its aspect ratio.

    >>> values = farms_eigenvalues(jnp.eye(4), size=2, windows=2)
    >>> values.tolist()  # of four windows: two on the diagonal, two beside it
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    check_floating(weights=weights)
    check_rank("weights", weights, 2, at_least=True)
    check_count(size=size, windows=windows, stride=1 if stride is None else stride)
    check_positive(aspect=aspect)
    wide = upcast(weights)
    *_, rows, columns = wide.shape
    height = min(size, rows, int(columns / aspect))
    width = int(height * aspect)
    fits = min(height, width) >= 1
    check(fits, "aspect", f"got {aspect}, takes a ratio that fits into {rows} x {columns}")
    top, left = (
        _starts(length, part, windows, stride)
        for length, part in ((rows, height), (columns, width))
    )
    matrices = wide.reshape(-1, rows, columns)
    corners = jnp.asarray(
        np.stack(np.meshgrid(np.arange(len(matrices)), top, left, indexing="ij"), -1).reshape(-1, 3)
    )

    def values(corner: Array) -> Array:
        window = jax.lax.dynamic_slice(matrices, corner, (1, height, width))[0]
        return jnp.square(jnp.linalg.svd(window, compute_uv=False))

    return restore(jnp.sort(jax.lax.map(values, corners).ravel()), weights)


def hill_exponent(
    eigenvalues: Float[Array, "... eigenvalues"], *, tail: Any = 0.5
) -> Float[Array, "..."]:
    """Hill's estimate of the exponent of a power law, from the largest of the values.

        alpha = 1 + k / sum_{i <= k} ln(l_i / l_k),   l_1 >= l_2 >= ... >= l_k

    The density falls as l^-alpha; a small exponent is a heavy tail, which in the spectrum of a
    weight matrix goes with a layer that is well trained.

    Args:
      eigenvalues: [..., eigenvalues], in any order.
      tail: the share of them that counts, in (0, 1]; half of them, as the authors have it.

    Returns:
      The exponent [...]. Where all in the tail are equal it is about 1 / eps of the dtype.

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias, arXiv 2506.06280,
    PL_Alpha_Hill; HUST-AI-HYZ/FARMS Image_Classification/tempbalance_farms.py, `fix_fingers` of
    "median". The code's other ways to choose where the tail starts are not here.

    >>> round(float(hill_exponent(jnp.array([0.1, 0.2, 1.0, jnp.e]))), 3)  # 1 + 2 / ln(e / 1)
    3.0
    """
    check_floating(eigenvalues=eigenvalues)
    check_rank("eigenvalues", eigenvalues, 1, at_least=True)
    check_range("tail", tail, 0, 1, open_low=True)
    values = jnp.sort(upcast(eigenvalues), -1)
    count = values.shape[-1]
    check(count > 0, "eigenvalues", "got none, takes one or more")
    first = min(int(count * (1 - tail)), count - 1)
    logs = safe_log(values[..., first:])
    kept = count - first
    total = jnp.sum(logs - logs[..., :1], -1)
    least = kept * jnp.finfo(values.dtype).eps
    return restore(1 + kept / jnp.maximum(total, least), eigenvalues)
