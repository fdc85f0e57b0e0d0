import doctest
import importlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from papyrax.papers import Claim, Entry, Figure, Line, Measure, Paper, Result
from papyrax.train import cli, report
from papyrax.train.report import axes, plot

VOID = {"meta", "link", "input", "br", "hr", "img"}
HOSTILE = '<script>alert("1")</script> & \'friends\' "quoted"'


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def words(self):
        return "".join(t for tag, t in self.text if tag not in ("script", "style"))


def figure(lines=None, **options):
    if lines is None:
        lines = [
            ("ours", [1, 2, 3], [[3, 2, 1], [3, 2.5, 1.5]]),
            ("theirs", [1, 2, 3], [[3, 3, 3]]),
        ]
    return Figure("A figure", "step", "loss", tuple(Line(*line) for line in lines), **options)


def result(slug, holds=True, drawn=None, **options):
    measures = (
        Measure("test accuracy", (0.95, 0.96), "method >= 0.9", holds, (0.5, 0.75)),
        Measure("error", (1e-9,), "<= 1e-6", True),
    )
    return Result(slug, "quick", (0, 1), measures, drawn or figure(), **options)


def paper(slug, title="A title", **options):
    claim = Claim("It is better.", "On digits.", "method >= 0.9", "ours", "theirs")
    texts = {"authors": "A. One, B. Two", "idea": "An idea.", "formula": "y = x < 1 & z"}
    texts |= options
    return Paper(
        slug,
        title,
        year=2024,
        arxiv="2401.00001",
        area="attention",
        parts=(f"papyrax.attention.{slug}",),
        claim=claim,
        **texts,
    )


def entry(slug, title="A title", area="attention"):
    return Entry(slug, title, 2024, "2401.00001", area, f"The idea of {slug}.", "owner/name")


RECORD = {
    "acceptance": "method >= 0.9",
    "seconds": 75.0,
    "device": {"platform": "gpu", "kind": "Great GPU", "count": 2},
    "versions": {"python": "3.12.1", "jax": "0.11.0"},
    "commit": "0123456789abcdef",
    "date": "2026-01-01T00:00:00+00:00",
}


def item(slug, title="A title", holds=True, area="attention", **options):
    return report.Item(
        entry(slug, title, area), paper(slug, title), result(slug, holds, **options), RECORD
    )


@pytest.fixture(scope="module")
def items():
    stale = item("stale")
    return [
        item("good"),
        item("bad", holds=False, area="second_order"),
        item("hostile", HOSTILE, drawn=figure([(HOSTILE, [1], [[1]])]), notes=HOSTILE),
        report.Item(
            stale.entry, stale.paper, stale.result, {**RECORD, "acceptance": "an old rule"}
        ),
        report.Item(entry("written"), paper("written"), problem=f"broken: {HOSTILE}"),
        report.Item(entry("listed", HOSTILE, area="vision")),
    ]


@pytest.fixture(scope="module")
def html(items):
    return report.render(items, lambda i: f"papers/{i.entry.slug}.py")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_paper_is_on_the_page_once_with_its_verdict(page, items):
    found = {a["id"]: a for _, a in page.elements if "data-verdict" in a}
    assert {slug: a["data-verdict"] for slug, a in found.items()} == {
        "good": "holds",
        "bad": "fails",
        "hostile": "holds",
        "stale": "stale",
        "written": "implemented",
        "listed": "catalogued",
    }
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert found["bad"]["data-area"] == "second_order"
    assert len(page.all("article")) == 4
    shelf = [a for _, a in page.elements if (a.get("class") or "").startswith("k-") and "href" in a]
    assert sorted(a["href"] for a in shelf) == sorted(f"#{i.entry.slug}" for i in items)


def test_everything_is_escaped(page, html):
    assert len(page.all("script")) == 1, "a script of a title became one of the page"
    assert html.count("<script") == 1
    assert page.words().count(HOSTILE) >= 5  # title, legend, note, problem, list
    labels = [a["aria-label"] for _, a in page.elements if "aria-label" in a]
    assert any(HOSTILE in label for label in labels)
    assert "y = x < 1 & z" in page.words()


def test_the_page_loads_nothing(page, html):
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "poster", "action", "data", "background", "xlink:href"):
            assert name not in attributes, f"<{tag} {name}=...>"
        if tag == "link":
            assert attributes["href"] == "data:,"
        assert tag not in {"iframe", "object", "embed", "base", "image", "use"}
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"url\(|@import|http", style)
    assert "http" not in html[html.index("<script>") :]
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy
    links = {a["href"] for a in page.all("a")}
    assert {"https://arxiv.org/abs/2401.00001", "https://github.com/owner/name"} <= links
    assert "papers/good.py" in links


def test_numbers_rules_and_how_it_was_measured_are_told(page):
    text = page.words()
    for part in ("0.9500", "0.9600", "0.9550", "0.5000", "0.6250", "1×10⁻⁹", "method >= 0.9"):
        assert part in text, part
    for part in ("quick budget", "1 min 15 s", "2 × Great GPU", "jax 0.11.0", "commit 0123456789"):
        assert part in text, part
    assert "✗ does not hold" in text
    assert "✓ holds" in text
    assert "an old rule" in text
    assert "@misc{good," in text
    assert [a for a in page.all("button") if a.get("class") == "copy"]


def test_a_table_has_one_column_a_seed(html):
    (table,) = re.findall(r"<table[^>]*>.*?</table>", html[html.index('id="good"') :])[:1]
    assert re.findall(r"<th scope=\"col\">(.*?)</th>", table) == ["seed 0", "seed 1", "median"]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert rows == [["0.9500", "0.9600", "0.9550"], ["0.5000", "0.7500", "0.6250"]]


def test_equal_items_give_the_same_page_in_any_order(items, html):
    again = report.render(items[::-1], lambda i: f"papers/{i.entry.slug}.py")
    assert again == html


@pytest.mark.parametrize("count", [0, 1])
def test_few_papers(count):
    page = Page(report.render([item("good")][:count]))
    assert len(page.all("article")) == count
    assert ("papyrax reproduce" in page.words()) == (count == 0)


def test_the_page_of_the_whole_catalogue_stays_small():
    rng = np.random.default_rng(0)
    steps = np.arange(300)
    lines = [
        (name, steps, np.exp(-steps / 200 + 0.2 * rng.normal(size=(3, steps.size))))
        for name in ("ours", "theirs")
    ]
    drawn = figure(lines, y_log=True)
    many = [item(f"paper_{i}", drawn=drawn) for i in range(267)]
    assert len(report.render(many).encode()) < 3e6


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


def test_bibtex():
    text = report.bibtex(
        paper(
            "key", "Fast & Safe: 100% of $x_1$", authors="A. One, B. Two et al.", venue="ICML 2024"
        )
    )
    assert text.startswith("@inproceedings{key,\n")
    assert r"{{Fast \& Safe: 100\% of \$x\_1\$}}" in text
    assert "{A. One and B. Two and others}" in text
    assert "booktitle     = {ICML 2024}" in text
    assert text.count("{") == text.count("}")
    journal = report.bibtex(
        paper("key", authors="A. One and B. Two", venue="IEEE Transactions on X")
    )
    assert journal.startswith("@article{key,")
    assert "{A. One and B. Two}" in journal


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


def test_report_command(fake_papers, results, tmp_path, capsys):
    assert cli.main(["reproduce", "good", "bad", "fine", "--seeds", "2"]) == 1
    record = results / "fine.json"
    record.write_text(record.read_text().replace('"acceptance": "method', '"acceptance": "old'))
    capsys.readouterr()
    out = tmp_path / "new folder" / "page.html"
    assert cli.main(["report", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert "3 measured, 1 hold, 5 in all" in told.err
    assert "fine" in told.err
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    verdicts = {a["id"]: a["data-verdict"] for _, a in page.elements if "data-verdict" in a}
    assert verdicts == {
        "absent": "catalogued",
        "bad": "fails",
        "crash": "implemented",
        "fine": "stale",
        "good": "holds",
    }
    links = [a["href"] for a in page.all("a") if a["href"].endswith("good.py")]
    assert [(out.parent / link).resolve() for link in links] == [fake_papers / "good.py"]
    assert cli.main(["report", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == text
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_report_command_reads_the_folder_it_is_given(fake_papers, results, tmp_path, capsys):
    assert cli.main(["reproduce", "good", "--seeds", "1"]) == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "bad.json").write_text(json.dumps({"slug": "bad"}))
    out = tmp_path / "page.html"
    capsys.readouterr()
    assert cli.main(["report", "--out", str(out), "--results", str(empty)]) == 0
    told = capsys.readouterr().err
    assert "0 measured" in told
    assert "not a recorded result" in told
    assert cli.main(["report", "--results", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_report_that_cannot_be_written(fake_papers, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "page.html", tmp_path):
        assert cli.main(["report", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("papyrax: error: cannot write")
        assert error.count("\n") == 1


def test_report_opens_the_page(fake_papers, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) == 1)
    out = tmp_path / "page.html"
    assert cli.main(["report", "--out", str(out), "--open"]) == 0
    assert opened == [out.as_uri()]
    assert "no browser" not in capsys.readouterr().err
    assert cli.main(["report", "--out", str(out), "--open"]) == 0
    assert "no browser" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["axes", "cite", "spectrum"])
def test_doctests(name):
    module = importlib.import_module(f"papyrax.train.report.{name}")
    done = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted
    assert not done.failed
