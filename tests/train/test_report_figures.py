"""Figures of results: where curves lie, what is not finite, ticks and numbers."""

import math
import re

import numpy as np
import pytest
from pages import Page, figure, result

from papyrax.papers import Measure
from papyrax.train import report
from papyrax.train.report import axes, plot


def points(svg):
    """The numbers of points of the curves of a figure, and all of their coordinates."""
    counts, coordinates = [], []
    for path in re.findall(r"M(\d[^M\"]*l[^M\"]*)", svg):
        start, steps = path.split("l")
        at = np.array(start.split(), dtype=int)
        moves = np.array(re.findall(r"-?\d+", steps), dtype=int).reshape(-1, 2)
        track = np.concatenate([at[None], at + np.cumsum(moves, axis=0)])
        counts.append(len(track))
        coordinates.append(track)
    return counts, coordinates


def test_curves_are_placed_on_the_axes():
    svg = report.figure_html(figure([("ours", [0, 1, 2], [[0, 10, 5]])]))
    ((track,)) = points(svg)[1]
    x, y = track.T
    width, height = plot.WIDTH, plot.HEIGHT
    assert x[0] < 0.03 * width
    assert x[2] > 0.97 * width
    assert x[1] == width // 2
    assert y[1] < y[2] < y[0], "up is more"
    np.testing.assert_allclose((y[0] - y[2]) / (y[0] - y[1]), 0.5, atol=0.005)
    assert np.all((track >= 0) & (track <= (width, height)))


def test_logarithmic_axes_are_straight_for_powers():
    x = [2.0**k for k in range(12)]
    svg = report.figure_html(figure([("ours", x, [[v**2 for v in x]])], x_log=True, y_log=True))
    ((track,)) = points(svg)[1]
    assert np.ptp(np.diff(track[:, 0])) <= 1
    assert np.ptp(np.diff(track[:, 1])) <= 1
    assert "loss (log scale)" in svg
    assert "10⁶" in svg


def test_many_points_are_thinned_and_spikes_kept():
    y = np.zeros(20_000)
    y[10_864] = 1.0
    svg = report.figure_html(figure([("ours", np.arange(y.size), [y])]))
    counts, tracks = points(svg)
    assert max(counts) <= 300
    x, height = tracks[0][np.argmin(tracks[0][:, 1])]
    assert height < 0.1 * plot.HEIGHT, "the spike is gone"
    assert abs(x / plot.WIDTH - 0.543) < 0.02
    seeds = report.figure_html(figure([("ours", np.arange(y.size), [y] * 9)] * 2))
    assert sum(points(seeds)[0]) <= plot.POINT_BUDGET


def test_a_curve_that_turns_back_keeps_its_course():
    t = np.linspace(0, 2 * np.pi, 5000)
    svg = report.figure_html(figure([("circle", np.cos(t), [np.sin(t)])]))
    counts, tracks = points(svg)
    assert counts[0] <= 300
    jumps = np.abs(np.diff(tracks[0], axis=0)).max()
    assert jumps < 0.1 * plot.WIDTH
    radius = np.hypot(*(2 * tracks[0] / (plot.WIDTH, plot.HEIGHT) - 1).T)
    assert np.all(radius > 0.8)


def test_values_that_are_not_finite_leave_a_gap_and_are_counted():
    y = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0]
    svg = report.figure_html(figure([("ours", range(7), [y])]))
    counts, _ = points(svg)
    assert counts == [2, 2]  # what is alone is a dot
    assert svg.count("<circle") == 5
    assert "2 values are not finite and left out" in svg
    log = report.figure_html(figure([("ours", range(3), [[0.0, 1.0, 10.0]])], y_log=True))
    assert "1 value is not finite or not positive and left out" in log


def test_the_median_stops_where_a_seed_is_lost():
    y = [[1, 2, 3, 4], [1, 2, math.nan, math.nan], [1, 2, 3, 4]]
    svg = report.figure_html(figure([("ours", range(4), y)]))
    thick = re.findall(r'<path class="m" d="M[^l]*l([^"]*)"', svg)
    assert len(re.findall(r"-?\d+", thick[0])) == 2, "one step: two points"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [math.nan] * 3,
        [math.inf, -math.inf],
        [0.5] * 3,
        [0.0] * 3,
        [-1.0] * 2,
        [1e-320, 5e-324],
        [1e308, -1e308, 1e299, -1e299],
        [1e299],
        [1.0, 1.0 + 1e-15],
        [1e9, 1e9 + 1],
        [1e-12, 1e12],
        [1e-300, 1e300],
    ],
)
def test_any_values_are_drawn(values, log):
    lines = [("ours", range(len(values)), [values, values])]
    text = report.figure_html(figure(lines, y_log=log))
    Page(text)
    assert not re.search(r"\bnan\b|\binf\b", text)
    for track in points(text)[1]:
        assert np.all((track >= 0) & (track <= (plot.WIDTH, plot.HEIGHT)))
    Page(report.figure_html(figure([("ours", values, [values])], x_log=log, y_log=log)))
    if values:
        Page(plot.strip_html(Measure("m", tuple(values), "any", False, tuple(values))))


def test_a_figure_without_lines_is_drawn():
    assert "no finite values" in report.figure_html(figure([]))
    Page(report.figure_html(figure([("ours", [], [])])))


def test_strips_show_every_finite_number():
    measure = Measure("m", (1.0, 2.0, math.nan), "any", False, (3.0,))
    text = plot.strip_html(measure)
    assert text.count("<circle") == 3
    assert "1 value is not finite" in text


@pytest.mark.parametrize(
    ("low", "high", "log", "labels"),
    [
        (0.0, 1.0, False, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-2.0, 2.0, False, ["−2", "−1", "0", "1", "2"]),
        (0.0, 4e-7, False, ["0", "1×10⁻⁷", "2×10⁻⁷", "3×10⁻⁷", "4×10⁻⁷"]),
        (0.0, 250_000.0, False, None),
        (-2.0, 1.0, True, ["0.01", "0.1", "1", "10"]),
        (-8.0, 0.0, True, ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"]),
        (0.0, 1.0, True, ["1", "2", "5", "10"]),
        (math.log10(1.31), math.log10(1.39), True, None),
    ],
)
def test_ticks_are_round_and_where_they_say(low, high, log, labels):
    scale = axes.Axis(low, high, log)
    ticks = scale.ticks(6)
    if labels is not None:
        assert [t.label for t in ticks] == labels
    assert 2 <= len(ticks) <= 8
    for tick in ticks:
        assert -1e-9 <= tick.at <= 1 + 1e-9
        value = _read(tick.label)
        np.testing.assert_allclose(scale.place(value), tick.at, atol=1e-6)
    few = scale.ticks(6, room=24)
    assert len(few) < len(ticks) or sum(len(t.label) + 2 for t in ticks) <= 24


def _read(label):
    """The number that a label says."""
    plain = label.replace("−", "-").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
    if plain.startswith("10") and label[2:3] in "⁰¹²³⁴⁵⁶⁷⁸⁹⁻" and len(label) > 2:
        return 10.0 ** int(plain[2:])
    if "×10" in plain:
        mantissa, exponent = plain.split("×10")
        return float(mantissa) * 10.0 ** int(exponent)
    return float(plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3.0, "3"),
        (-12345.0, "−12345"),
        (0.94716, "0.9472"),
        (0.99999999, "1.000"),
        (12.3456, "12.35"),
        (0.00123456, "0.001235"),
        (1e-7, "1×10⁻⁷"),
        (2.5e9, "2.5×10⁹"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_for_readers(value, text):
    assert axes.number(value) == text


def test_spectral_density_figure():
    grid = np.linspace(-1, 5, 50)
    density = np.exp(-0.5 * (grid[None] / 0.02) ** 2) + np.array([[1e-3], [2e-3]])
    drawn = report.spectral_density_figure(grid, density, name="H")
    (line,) = drawn.lines
    assert (line.name, len(line.y), drawn.y_log) == ("H", 2, True)
    np.testing.assert_allclose(line.y, density)
    both = report.spectral_density_figure(grid, {"start": density, "end": density[0] * 0})
    assert [n.name for n in both.lines] == ["start", "end"]
    np.testing.assert_allclose(both.lines[1].y, 1e-8 * density.max())
    assert "no finite" not in report.figure_html(both)
    for bad in ({"densities": density[:, 1:]}, {"floor": 0.0}, {"grid": grid[None]}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            report.spectral_density_figure(**{"grid": grid, "densities": density, **bad})


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_save_figure(tmp_path, ending):
    log = figure([("ours", [1, 10], [[1e-3, 1], [math.nan, 2]])], x_log=True, y_log=True)
    results = [result("a"), result("b", drawn=log), result("c", drawn=figure([("x", [1], [[2]])]))]
    files = [tmp_path / f"{name}{ending}" for name in "ab"]
    for file in files:
        report.save_figure(results, file, titles=["A", "B < C", "D"])
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert sorted(tmp_path.iterdir()) == files
    if ending == ".png":
        assert first.startswith(b"\x89PNG")
        assert int.from_bytes(first[16:20], "big") == 1600
    else:
        assert b"<svg" in first


def test_save_figure_says_what_it_takes(tmp_path):
    for path, results, titles, word in [
        ("a.pdf", [result("a")], (), "path"),
        ("a.png", [], (), "results"),
        ("a.png", [result("a")], ("A", "B"), "titles"),
    ]:
        with pytest.raises(ValueError, match=word):
            report.save_figure(results, tmp_path / path, titles=titles)
