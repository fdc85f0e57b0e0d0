"""Figures and measures as inline SVG.

An SVG here is the plotting area alone, as wide as its place allows: positions are in percent and
curves in a stretched inner coordinate system, so text keeps its size on a phone and on a wide
screen. Margins, title, legend and axis names are HTML around it.
"""

import html
import math
from collections.abc import Iterator, Sequence

from papyrax.papers import Figure, Line, Measure

from .axes import LABEL_ROOM, LARGEST, Axis, axis, median

WIDTH, HEIGHT = 1200, 600
"""Units of the inner coordinate system."""

MOST_POINTS = 300
"""Points of a drawn curve."""

POINT_BUDGET = 960
"""Points of all curves of a figure together; many curves get fewer points each."""

FEWEST_POINTS = 40
MARKED = 16
"""A curve of at most so many points shows them as dots."""

COLOURS = 6

Segment = list[tuple[int, int]]


def escape(text: object) -> str:
    """Text for the inside of an element or of a quoted attribute."""
    return html.escape(str(text), quote=True)


def figure_html(figure: Figure) -> str:
    """A figure: thin lines for the seeds, a thick one for their median, axes and legend.

    Args:
      figure: what to draw. Numbers that are not finite, or not positive on a logarithmic axis,
        leave a gap, and a note says how many they are.

    Returns:
      A `figure` element.
    """
    x_axis = axis((x for line in figure.lines for x in line.x), log=figure.x_log, margin=0.015)
    y_axis = axis(_all_values(figure), log=figure.y_log)
    rows = sum(len(line.y) + (len(line.y) > 1) for line in figure.lines)
    most = min(MOST_POINTS, max(FEWEST_POINTS, POINT_BUDGET // max(rows, 1)))

    body, missing, drawn = [], 0, 0
    # The method comes first and is drawn last, on top.
    for index, line in reversed(list(enumerate(figure.lines))):
        curves, dots, left_out = _line(line, x_axis, y_axis, most)
        missing += left_out
        drawn += bool(curves or dots)
        body.append(
            f'<g class="c{index % COLOURS}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'preserveAspectRatio="none">{curves}</svg>{dots}</g>'
        )
    if not drawn:
        body.append('<text class="empty" x="50%" y="50%">no finite values to draw</text>')

    y_ticks = y_axis.ticks(6) if drawn else ()
    x_ticks = x_axis.ticks(6, room=LABEL_ROOM) if drawn else ()
    grid = [
        f'<line class="grid" x2="100%" y1="{_percent(1 - t.at)}" y2="{_percent(1 - t.at)}"/>'
        f'<text class="yt" x="-8" y="{_percent(1 - t.at)}" dy=".32em">{t.label}</text>'
        for t in y_ticks
    ]
    for t in x_ticks:
        at = _percent(t.at)
        grid.append(
            f'<svg class="xt" x="{at}" y="100%"><path d="M0 0v5"/>'
            f'<text y="19">{t.label}</text></svg>'
        )
    left = 14 + 7 * max((len(t.label) for t in y_ticks), default=0)
    x_name, y_name = _axis_name(figure.x_label, x_axis), _axis_name(figure.y_label, y_axis)
    names = ", ".join(line.name for line in figure.lines)
    label = escape(f"{figure.title}. {y_name} against {x_name}: {names}.")
    seeds = any(len(line.y) > 1 for line in figure.lines)
    notes = ["thin: one line a seed; thick: their median"] if seeds and drawn else []
    if missing:
        reason = "not finite or not positive" if figure.x_log or figure.y_log else "not finite"
        notes.append(f"{_count(missing)} {reason} and left out")
    note = f'<p class="note">{escape("; ".join(notes))}</p>' if notes else ""
    return (
        f'<figure class="plot"><figcaption>{escape(figure.title)}</figcaption>'
        f"{_legend(figure.lines)}"
        f'<p class="yl">{escape(y_name)}</p>'
        f'<div class="area" style="padding-left:{left}px"><svg role="img" aria-label="{label}">'
        f"{''.join(grid)}{''.join(body)}"
        f'<line class="base" x2="100%" y1="100%" y2="100%"/></svg></div>'
        f'<p class="xl">{escape(x_name)}</p>{note}</figure>'
    )


def strip_html(measure: Measure) -> str:
    """The numbers of a measure as dots on one scale, a row for the method and one for the baseline.

    Args:
      measure: the numbers, one a seed; a note says how many are not finite.

    Returns:
      An `svg` element and the note. Readers who hear the page have the table: the picture is hidden
      from them.
    """
    numbers = measure.method + measure.baseline
    finite = [v for v in numbers if math.isfinite(v) and abs(v) <= LARGEST]
    log = bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)
    scale = axis(finite, log=log, margin=0.06)
    rows = [values for values in (measure.method, measure.baseline) if values]
    parts: list[str] = []
    lost = 0
    for index, values in enumerate(rows):
        y = 11 + 20 * index
        shown = [v for v in values if scale.draws(v)]
        lost += len(values) - len(shown)
        parts.append(f'<g class="c{index}"><line class="guide" x2="100%" y1="{y}" y2="{y}"/>')
        if scale.draws(median(values)):
            middle = _percent(scale.place(median(values)))
            parts.append(
                f'<line class="median" x1="{middle}" x2="{middle}" y1="{y - 8}" y2="{y + 8}"/>'
            )
        parts += [f'<circle cx="{_percent(scale.place(v))}" cy="{y}" r="4.5"/>' for v in shown]
        parts.append("</g>")
    y = 11 + 20 * len(rows)
    parts.append(f'<line class="base" x2="100%" y1="{y}" y2="{y}"/>')
    for t in scale.ticks(4, room=30) if finite else ():
        parts.append(
            f'<svg class="xt" x="{_percent(t.at)}" y="{y}"><path d="M0 0v4"/>'
            f'<text y="17">{t.label}</text></svg>'
        )
    note = f'<p class="note">{_count(lost)} not finite and left out</p>' if lost else ""
    return f'<svg class="strip" aria-hidden="true" height="{y + 22}">{"".join(parts)}</svg>{note}'


def swatch(index: int) -> str:
    """The sample of a line that stands before its name."""
    return f'<i class="s c{index % COLOURS}"></i>'


def _legend(lines: Sequence[Line]) -> str:
    items = "".join(f"<li>{swatch(i)}{escape(line.name)}</li>" for i, line in enumerate(lines))
    return f'<ul class="legend">{items}</ul>'


def _axis_name(name: str, scale: Axis) -> str:
    told = "log" in name.lower().split()
    return f"{name} (log scale)" if scale.log and not told else name


def _count(values: int) -> str:
    return f"{values} value is" if values == 1 else f"{values} values are"


def _all_values(figure: Figure) -> Iterator[float]:
    for line in figure.lines:
        for row in line.y:
            yield from row


def _percent(part: float) -> str:
    return f"{100 * part:.2f}".rstrip("0").rstrip(".") + "%"


def _line(line: Line, x_axis: Axis, y_axis: Axis, most: int) -> tuple[str, str, int]:
    """The paths of a line, its dots, and how many values have no place."""
    paths, dots, missing = [], [], 0
    rows = [(row, "t") for row in line.y] if len(line.y) > 1 else []
    if line.y:
        rows.append((tuple(median(column) for column in zip(*line.y)), "m"))
    for row in line.y:
        missing += sum(not (x_axis.draws(x) and y_axis.draws(y)) for x, y in zip(line.x, row))
    marked = len(line.x) <= MARKED
    for row, weight in rows:
        segments = _segments(line.x, row, x_axis, y_axis)
        path = "".join(_path(part) for part in _thin(segments, most))
        if path:
            paths.append(f'<path class="{weight}" d="{path}"/>')
        if weight == "m":
            points = [p for part in segments for p in part if marked or len(part) == 1]
        else:
            points = [part[0] for part in segments if len(part) == 1]
        dots += [
            f'<circle class="{weight}" cx="{_percent(x / WIDTH)}" cy="{_percent(y / HEIGHT)}" '
            f'r="{3.2 if weight == "m" else 1.8}"/>'
            for x, y in points[:MOST_POINTS]
        ]
    return "".join(paths), "".join(dots), missing


def _segments(x: Sequence[float], y: Sequence[float], x_axis: Axis, y_axis: Axis) -> list[Segment]:
    """The points of a curve in inner units, cut wherever a value has no place."""
    segments: list[Segment] = [[]]
    for a, b in zip(x, y):
        if x_axis.draws(a) and y_axis.draws(b):
            point = round(WIDTH * x_axis.place(a)), round(HEIGHT * (1 - y_axis.place(b)))
            segments[-1].append(point)
        elif segments[-1]:
            segments.append([])
    return [part for part in segments if part]


def _thin(segments: list[Segment], most: int) -> list[Segment]:
    """At most `most` points in all, spikes kept.

    The points of one column of the picture are replaced by its lowest and its highest, in the
    order they come in. A curve that turns back is cut into columns by its course instead.
    """
    total = sum(map(len, segments))
    if total <= most:
        return segments
    thinned, left = [], most
    for part in segments:
        share = min(max(2, most * len(part) // total), left)
        if share < 2:
            break
        xs = [x for x, _ in part]
        if xs != sorted(xs):
            xs = list(range(len(part)))
        columns, span = max(share // 2 - 1, 1), xs[-1] - xs[0] + 1
        low: dict[int, int] = {}
        high: dict[int, int] = {}
        for i in range(1, len(part) - 1):
            column = (xs[i] - xs[0]) * columns // span
            if part[i][1] < part[low.setdefault(column, i)][1]:
                low[column] = i
            if part[i][1] > part[high.setdefault(column, i)][1]:
                high[column] = i
        inner = sorted({*low.values(), *high.values()}) if share >= 4 else []
        kept = [part[i] for i in sorted({0, *inner, len(part) - 1})]
        thinned.append(kept)
        left -= len(kept)
    return thinned


def _path(points: Segment) -> str:
    """A path of relative steps, without the spaces that SVG does not need."""
    if len(points) < 2:
        return ""
    (x, y), steps = points[0], []
    text = f"M{x} {y}l"
    for a, b in points[1:]:
        if (a, b) != (x, y):
            steps += [a - x, b - y]
        x, y = a, b
    if not steps:
        return ""
    return text + " ".join(map(str, steps)).replace(" -", "-")
