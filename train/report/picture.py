"""Results as a picture for a README."""

import io
import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from papyrax.papers import Figure, Result
from papyrax.train.files import write_atomic

from .axes import axis

COLOURS = ("#0a5fb4", "#b8500a", "#15795a", "#7547b3", "#a8326b", "#5d6570")
STYLES = ("-", (0, (4, 2)), (0, (1, 2)), "-.", (0, (3, 2)), (0, (1, 1)))
INK, DIM, GRID = "#1b1e23", "#59616c", "#e3e6ea"
WIDTH, HEIGHT = 10.0, 3.9
"""Inches: at the usual 160 dots an inch, text of 12 points is 13 pixels at a width of 800."""


def save_figure(
    results: Sequence[Result], path: str | os.PathLike[str], *, titles: Sequence[str] = ()
) -> None:
    """Draws the figures of a few results side by side.

    Thin lines are seeds, the thick one their median, as in the report. The background is white.
    The same results give the same file.

    Args:
      results: one to four results; three fit a README.
      path: the file to write; its ending says the format, ".png" or ".svg".
      titles: one title a panel; the figures' own by default.

    Raises:
      ValueError: for no results, for more than four, for titles of another number, and for another
        ending.
      OSError: where the file cannot be written.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"path: got the ending {path.suffix!r}, takes .png or .svg")
    if not 1 <= len(results) <= 4:
        raise ValueError(f"results: got {len(results)}, takes 1 to 4")
    if titles and len(titles) != len(results):
        raise ValueError(f"titles: got {len(titles)}, takes {len(results)}, one a result")

    # A figure of its own, without pyplot: no window, no state left behind.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = {
        "font.size": 11.5,
        "font.family": "DejaVu Sans",
        "axes.titlesize": 12.5,
        "axes.edgecolor": DIM,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": DIM,
        "ytick.color": DIM,
        "svg.hashsalt": "papyrax",
        "svg.fonttype": "path",
    }
    with matplotlib.rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.06, wspace=0.04)
        canvas = Canvas(figsize=(WIDTH, HEIGHT), dpi=160, layout=layout, facecolor="white")
        FigureCanvasAgg(canvas)
        for index, result in enumerate(results):
            panel = canvas.add_subplot(1, len(results), index + 1)
            _draw(panel, result.figure, titles[index] if titles else result.figure.title)
        metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None}
        file = io.BytesIO()
        canvas.savefig(file, format=kind, metadata=metadata)
    write_atomic(path, file.getvalue())


def _draw(panel: Any, figure: Figure, title: str) -> None:
    for index, line in enumerate(figure.lines):
        look: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)]}
        above = 3 + len(figure.lines) - index
        rows = np.array(line.y, dtype=float).reshape(len(line.y), len(line.x))
        rows[~np.isfinite(rows)] = np.nan
        if len(rows) > 1:
            panel.plot(line.x, rows.T, linewidth=0.7, alpha=0.35, zorder=above, **look)
        if len(rows):
            panel.plot(
                line.x,
                np.median(rows, axis=0),
                linewidth=2.0,
                linestyle=STYLES[index % len(STYLES)],
                marker="o" if len(line.x) <= 16 else "",
                markersize=4,
                label="\n".join(textwrap.wrap(line.name, 34)),
                zorder=above + 0.5,
                **look,
            )
    if figure.x_log:
        panel.set_xscale("log")
        xs = sorted({x for line in figure.lines for x in line.x if x > 0})
        if xs and xs[-1] < 20 * xs[0]:
            # Within a decade or so matplotlib labels every multiple, one over the other.
            few = xs if len(xs) <= 5 else [xs[0], xs[len(xs) // 2], xs[-1]]
            panel.set_xticks(few, [f"{x:g}" for x in few])
            panel.set_xticks([], minor=True)
    if figure.y_log:
        panel.set_yscale("log")
    values = [v for line in figure.lines for row in line.y for v in row]
    shown = axis(values, log=figure.y_log)
    ends = (shown.low, shown.high)
    panel.set_ylim(*(10**end for end in ends) if figure.y_log else ends)
    panel.set_title("\n".join(textwrap.wrap(title, 22)), loc="left", weight="bold")
    panel.set_xlabel("\n".join(textwrap.wrap(figure.x_label, 36)))
    panel.set_ylabel("\n".join(textwrap.wrap(figure.y_label, 30)))
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(which="both", length=3)
    if panel.get_legend_handles_labels()[0]:
        # Under the panel, where no curve runs.
        panel.legend(
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.25),
            frameon=False,
            handlelength=1.8,
            borderaxespad=0.0,
            labelspacing=0.3,
            fontsize=11,
        )
