"""How heavy the tail of a weight matrix's spectrum is, whatever the matrix's shape."""

from typing import Any, Literal, NamedTuple

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
    safe_divide,
    safe_log,
    upcast,
)

Candidates = Literal["all", "peak"]


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
    "median". Its other ways to choose where the tail starts are those of `power_law_fit`.

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


class PowerLawFit(NamedTuple):
    """A power law's tail of a spectrum.

    Attributes:
      exponent: alpha [...].
      start: the smallest value of the tail [...].
      distance: the largest gap between the two distributions [...].
    """

    exponent: Float[Array, "..."]
    start: Float[Array, "..."]
    distance: Float[Array, "..."]


def power_law_fit(
    eigenvalues: Float[Array, "... eigenvalues"],
    *,
    candidates: Candidates = "all",
    bins: int = 100,
) -> PowerLawFit:
    """The tail that looks most like a power law, and its exponent.

        alpha_i = 1 + n_i / sum_{j >= i} ln(l_j / l_i),   l_1 <= l_2 <= ..., n_i = |{j >= i}|
        D_i = max_{j >= i} |1 - (l_j / l_i)^(1 - alpha_i) - (j - i) / n_i|
        the i of least D_i

    As `hill_exponent`, but the tail starts where the distance of Kolmogorov and Smirnov between
    the data and the law is least. Time grows with the square of the number of values, memory does
    not.

    Args:
      eigenvalues: [..., eigenvalues], in any order.
      candidates: where the tail may start: "all" positive values but the largest; "peak", those of
        them up to 1.5 times the mode of the values' logarithms (and from the decimal logarithm of
        0.95 times it, as the authors' code has it).
      bins: of the histogram that "peak" takes the mode of.

    Returns:
      A `PowerLawFit` of arrays [...]. Where the tail starts is a constant to derivatives.

    Raises:
      ValueError: naming the argument of a wrong shape, dtype or value.

    Source: Power-Law Distributions in Empirical Data, arXiv 0706.1062, section 3;
    HUST-AI-HYZ/FARMS LLM_Pruning/lib/esd_utils_farms.py, `analysis_esd`, "peak" with `fix_fingers`
    of "xmin_peak", whose exponents and distances are those here.

    >>> law = (1 - jnp.arange(200) / 200) ** -0.5  # quantiles of alpha = 3
    >>> fit = power_law_fit(jnp.concatenate([jnp.linspace(0.1, 0.9, 50), law]))
    >>> round(float(fit.exponent), 1), round(float(fit.start), 1)
    (3.0, 1.0)
    """
    check_floating(eigenvalues=eigenvalues)
    check_rank("eigenvalues", eigenvalues, 1, at_least=True)
    known = candidates in ("all", "peak")
    check(known, "candidates", f"got {candidates!r}, takes 'all' or 'peak'")
    check_count(bins=bins)
    check(jnp.shape(eigenvalues)[-1] > 0, "eigenvalues", "got none, takes one or more")
    values = jnp.sort(upcast(eigenvalues), -1)
    fit = jnp.vectorize(
        lambda row: _fit(row, bins if candidates == "peak" else None), signature="(n)->(),(),()"
    )
    return PowerLawFit(*(restore(x, eigenvalues) for x in fit(values)))


def _fit(values: Float[Array, "n"], bins: int | None) -> tuple[Array, Array, Array]:
    """Exponent, start and distance for sorted values; all may start the tail without `bins`."""
    count = len(values)
    index = jnp.arange(count)

    def tail(first: Array, values: Array) -> tuple[Array, Array]:
        logs = safe_log(values)
        gaps = jnp.where(index >= first, logs - logs[first], 0)
        kept = count - first
        least = kept * jnp.finfo(values.dtype).eps
        exponent = 1 + kept / jnp.maximum(jnp.sum(gaps), least)
        gap = jnp.abs(1 - jnp.exp((1 - exponent) * gaps) - (index - first) / kept)
        return exponent, jnp.max(jnp.where(index >= first, gap, 0))

    fixed = jax.lax.stop_gradient(values)
    _, distances = jax.lax.map(lambda first: tail(first, fixed), index)
    positive = fixed > 0
    allowed = positive & (index < count - 1)
    if bins is not None:
        logs = safe_log(fixed)
        low = jnp.min(jnp.where(positive, logs, logs[-1]))
        width = (logs[-1] - low) / bins
        places = jnp.floor(safe_divide(logs - low, width)).astype(jnp.int32)
        counts = jnp.zeros(bins, jnp.int32).at[jnp.clip(places, 0, bins - 1)].add(positive)
        peak = jnp.exp(low + jnp.argmax(counts) * width)
        allowed &= (fixed <= 1.5 * peak) & (fixed >= jnp.log10(0.95 * peak))
    # Where none may start the tail, it is all positive values.
    first = jnp.argmin(jnp.where(allowed, distances, jnp.where(positive, 1, 2)))
    exponent, distance = tail(first, values)
    return exponent, values[first], distance
