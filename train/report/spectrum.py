"""A spectral density as a figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from papyrax.papers import Figure, Line


def spectral_density_figure(
    grid: Any,
    densities: Any,
    *,
    name: str = "Hessian",
    title: str = "Spectral density",
    x_label: str = "eigenvalue",
    floor: float = 1e-8,
) -> Figure:
    """The density of the eigenvalues of a curvature matrix, on a logarithmic axis.

    A few large eigenvalues lie far out and carry next to no mass, so they are seen on a
    logarithmic axis alone; there the tails of the smoothing kernel, which mean nothing, would fill
    the picture, so what is below `floor` times the peak is drawn at that height.

    Args:
      grid: eigenvalues at which the density is known [points].
      densities: the density, one row a seed or step [rows, points], or a single one [points]; or a
        mapping from names to such arrays, drawn as one line each.
      name: the line's name where `densities` is no mapping.
      title: the figure's title.
      x_label: name of the horizontal axis.
      floor: the lowest density that is told apart, relative to the peak.

    Returns:
      The figure. Values that are not finite stay so, and leave a gap where it is drawn.

    Raises:
      ValueError: for a grid that is not one row of numbers, densities of another length, or a floor
        that is not between 0 and 1.

    >>> figure = spectral_density_figure([0.0, 1.0, 2.0], [0.5, 0.25, 1e-30])
    >>> figure.y_log, figure.lines[0].y
    (True, ((0.5, 0.25, 5e-09),))
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor: got {floor}, takes a number between 0 and 1")
    x = np.asarray(grid, dtype=float)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"grid: got an array of shape {list(x.shape)}, takes [points]")
    named = densities if isinstance(densities, Mapping) else {name: densities}
    rows = {}
    for key, density in named.items():
        y = np.atleast_2d(np.asarray(density, dtype=float))
        if y.ndim != 2 or y.shape[1] != x.size:
            raise ValueError(
                f"densities: got {key!r} of shape {list(np.shape(density))}, takes [rows, points] "
                f"with {x.size} points as grid"
            )
        rows[key] = y
    finite = np.concatenate([y[np.isfinite(y)] for y in rows.values()] or [x[:0]])
    lowest = floor * finite.max() if finite.size and finite.max() > 0 else 0.0
    lines = tuple(Line(key, tuple(x), _rows(np.maximum(y, lowest))) for key, y in rows.items())
    return Figure(title, x_label, "density", lines, y_log=True)


def _rows(array: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in array.tolist())
