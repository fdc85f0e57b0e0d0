"""The page of all results, and the command that writes it."""

import doctest
import importlib
import json
import re

import numpy as np
import pytest
from pages import Page, figure, result

from papyrax.papers import Claim, Entry, Paper
from papyrax.train import cli, report

HOSTILE = '<script>alert("1")</script> & \'friends\' "quoted"'
RECORD = {
    "acceptance": "method >= 0.9",
    "seconds": 75.0,
    "device": {"platform": "gpu", "kind": "Great GPU", "count": 2},
    "versions": {"python": "3.12.1", "jax": "0.11.0"},
    "commit": "0123456789abcdef",
    "date": "2026-01-01T00:00:00+00:00",
}


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
