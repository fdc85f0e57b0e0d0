import json
import re

import fakes
import pytest

from papyrax import papers
from papyrax.papers import catalog, records, tables
from papyrax.papers.numbers import summary
from papyrax.train import cli

NAN = float("nan")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a README and no results."""
    (tmp_path / "papers" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(
        f"# papyrax\n\n{tables.BEGIN}\nWritten before.\n{tables.END}\n\nThe end.\n"
    )
    monkeypatch.setattr(records, "checkout", lambda: tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "papers" / "results")
    return tmp_path


def row(state="implemented", *, measures=(), claim="It is 5 | 6 times x_1.", slug="adahessian"):
    paper, result = None, None
    if state != "catalogued":
        paper = papers.Paper(
            slug=slug,
            title="T",
            authors="A",
            year=2020,
            arxiv=None,
            area="other",
            idea="I.",
            formula="f",
            parts=(),
            claim=papers.Claim(claim, "s", "a", "m", "b"),
        )
    if measures:
        result = papers.Result(slug, "quick", (0, 1), measures, papers.Figure("t", "x", "y", ()))
    return tables.Row(papers.find(slug), catalog.State(state), paper, result)


def test_the_committed_tables_are_fresh(capsys):
    assert cli.main(["tables", "--check"]) == 0, (
        f"{capsys.readouterr().out}run `papyrax tables` and commit the two files"
    )


def test_check_finds_stale_files_and_writes_nothing(checkout, capsys):
    before = (checkout / "README.md").read_text()
    assert cli.main(["tables", "--check"]) == 1
    assert capsys.readouterr().out == "README.md: stale\npapers/README.md: stale\n"
    assert (checkout / "README.md").read_text() == before
    assert not (checkout / "papers" / "README.md").exists()


def test_writes_once(checkout, capsys):
    assert cli.main(["tables"]) == 0
    assert capsys.readouterr().out == "README.md: written\npapers/README.md: written\n"
    assert cli.main(["tables"]) == 0
    assert capsys.readouterr().out == "README.md: fresh\npapers/README.md: fresh\n"
    assert cli.main(["tables", "--check"]) == 0
    readme = (checkout / "README.md").read_text()
    assert readme.startswith("# papyrax\n")
    assert readme.endswith("\n\nThe end.\n")
    assert "| **all** | 267 |" in readme
    assert "Written before." not in readme


def test_the_users_own_results_do_not_matter(checkout, tmp_path, monkeypatch):
    cli.main(["tables"])
    monkeypatch.setenv("PAPYRAX_RESULTS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    for entry in papers.index():
        (tmp_path / "mine" / f"{entry.slug}.json").write_text("{")
    assert cli.main(["tables", "--check"]) == 0


def test_every_paper_is_listed_with_its_links(checkout):
    cli.main(["tables"])
    text = (checkout / "papers" / "README.md").read_text()
    for entry in papers.index():
        assert text.count(f"`{entry.slug}`") == 1
        assert entry.url is None or text.count(f"]({entry.url})") == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        tables.BEGIN,
        tables.END,
        f"{tables.END}\n{tables.BEGIN}\n",
        f"{tables.BEGIN}\n{tables.END}\n" * 2,
    ],
)
def test_a_readme_without_markers_is_one_line_of_error(checkout, capsys, text):
    (checkout / "README.md").write_text(text)
    assert cli.main(["tables"]) == 2
    assert "README.md: takes a line <!-- coverage:begin -->" in capsys.readouterr().err
    assert (checkout / "README.md").read_text() == text


def test_without_a_checkout(monkeypatch, capsys):
    monkeypatch.setattr(records, "checkout", lambda: None)
    assert cli.main(["tables"]) == 2
    assert "source checkout" in capsys.readouterr().err


def test_a_broken_paper_is_not_dropped_from_the_tables(checkout, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "fakes"
    folder.mkdir()
    (folder / "good.py").write_text("import nothing_of_the_kind")
    fakes.listing(folder)
    fakes.install(folder, monkeypatch)
    before = (checkout / "README.md").read_text()
    for argv in (["tables"], ["tables", "--check"]):
        assert cli.main(argv) == 2
        assert "paper 'good': its module fails" in capsys.readouterr().err
    assert (checkout / "README.md").read_text() == before


def test_rows_in_words():
    holds = papers.Measure("accuracy", (0.95, 0.952), "a", True, (0.5, 0.6))
    fails = papers.Measure("loss_1", (12345.6, 12345.6), "a", False)
    lines = tables.coverage(
        [
            row("reproduced", measures=(holds,)),
            row("implemented", measures=(holds, fails)),
            row("implemented"),
            row("catalogued"),
        ]
    ).splitlines()
    assert "| second-order optimization | 4 | 3 | 1 |" in lines
    cells = [re.split(r"(?<!\\)\|", line) for line in lines if "adahessian" in line]
    assert [c[3:5] for c in cells] == [
        [" accuracy: 0.951 ± 0.001 *vs* 0.55 ± 0.07 ", " **holds** "],
        [" loss\\_1: 12346; 1 more ", " does not hold "],
        ["  ", " not measured "],
    ]
    assert cells[0][2] == r" It is 5 \| 6 times x\_1. "
    assert "[`adahessian`](papers/adahessian.py) · [arXiv](" in cells[0][1]
    assert "budget: quick." in lines[-1]
    text = tables.catalogue([row("implemented", measures=(holds, fails))])
    assert "| accuracy: 0.951 ± 0.001 *vs* 0.55 ± 0.07<br>loss\\_1: 12346 |" in text


def test_a_result_under_another_acceptance_is_not_shown(checkout, tmp_path, monkeypatch):
    folder = tmp_path / "fakes"
    folder.mkdir()
    fakes.write(folder, "good", accept="method >= 0.5")
    fakes.listing(folder)
    fakes.install(folder, monkeypatch)
    measure = papers.Measure("score", (1.0,), "method >= 0.5", True)
    figure = papers.Figure("t", "x", "y", ())
    result = papers.Result("good", "quick", (0,), (measure,), figure).to_json()
    path = checkout / "papers" / "results" / "good.json"
    path.write_text(json.dumps({**result, **fakes.run("method >= 0.5")}))
    (fresh,) = tables.rows()
    assert (fresh.state.status, fresh.result.holds) == ("reproduced", True)
    path.write_text(json.dumps({**result, **fakes.run("method >= 0")}))
    (stale,) = tables.rows()
    assert (stale.state.status, stale.result) == ("implemented", None)
    path.write_text("{")
    (damaged,) = tables.rows()
    assert (damaged.state.status, damaged.result) == ("implemented", None)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.951, 0.953, 0.955), "0.953 ± 0.002"),
        ((0.5, 0.5), "0.5"),
        ((12345.4,), "12345"),
        ((1.5e9,), "1.5e+09"),
        ((0.0,), "0"),
        ((-1.0, 1.0), "0 ± 1"),
        ((0.0006, 0.0003, 0.0009), "0.0006 ± 0.0003"),
        ((100.0, 100.0, 100.003), "100.001 ± 0.002"),
        ((1e-20, 1.0), "0.5 ± 0.7"),
        ((0.77688712, 0.77688713), "0.776887"),
        ((-2.0, -4.0), "-3 ± 1"),
        ((8.0, 26.0), "17 ± 10"),
        ((1000.0, 3000.0), "2000 ± 1000"),
        ((1e9, 3e9), "2e+09 ± 1e+09"),
        ((0.971, 0.991 - 2e-4), "0.98 ± 0.01"),
        ((float("inf"), 1.0), "inf"),
        ((-float("inf"), float("inf")), "NaN"),
        ((NAN, 1.0), "NaN"),
        ((), "-"),
    ],
)
def test_summary(numbers, text):
    assert summary(numbers) == text


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("a|b", r"a\|b"),
        ("x_1 * y", r"x\_1 \* y"),
        ("`x_1 | y` z_1", r"`x_1 \| y` z\_1"),
        ("a\n  b", "a b"),
        ("<br>", r"\<br\>"),
        ("an `odd one", "an 'odd one"),
        ("`a`", "`a`"),
    ],
)
def test_cell(text, out):
    assert tables.cell(text) == out
