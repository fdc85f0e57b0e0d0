import doctest
import json
import keyword
import math
import pathlib
import re
import subprocess
import sys

import fakes
import pytest

import papyrax
from papyrax import papers
from papyrax.papers import catalog, numbers, records

FIELDS = {"slug": str, "title": str, "year": int, "area": str, "idea": str}
OURS = {"__init__", "catalog", "numbers", "records", "registry", "results", "tables", "toys"}
CLAIM = papers.Claim("It works.", "It is run.", "method >= 0.5", "ours", "theirs")
MODULE = """
from papyrax.papers import Claim, Paper
PAPER = Paper("{slug}", "T", "A. Author", 2020, None, "other", "I.", "f", {parts},
              Claim("It works.", "It is run.", "method >= 0.5", "ours", "theirs"))
"""


@pytest.fixture
def rows():
    return json.loads(catalog.CATALOG.read_text(encoding="utf-8"))


def test_267_papers_in_order(rows):
    slugs = [row["slug"] for row in rows]
    assert len(set(slugs)) == 267
    assert slugs == sorted(slugs)


def test_one_paper_a_line(rows):
    lines = catalog.CATALOG.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line.removesuffix(",")) for line in lines[1:-1]] == rows


def test_fields(rows):
    for row in rows:
        assert set(row) == {*FIELDS, "arxiv", "repo"}
        for name, kind in FIELDS.items():
            assert type(row[name]) is kind, (row["slug"], name)
        assert row["slug"].isidentifier()
        assert not keyword.iskeyword(row["slug"])
        assert re.fullmatch(r"[a-z0-9_]+", row["slug"])
        assert 2000 <= row["year"] <= 2030
        assert row["title"] == " ".join(row["title"].split()) != ""
        assert row["arxiv"] is None or re.fullmatch(r"\d{4}\.\d{4,5}", row["arxiv"])
        assert row["repo"] is None or re.fullmatch(r"[\w.-]+/[\w.-]+", row["repo"])
        assert re.fullmatch(r"[a-z_]+", row["area"])


def test_ideas_are_one_sentence(rows):
    for row in rows:
        idea = row["idea"]
        assert idea[0].isupper() or not idea[0].isalpha(), row["slug"]
        assert idea.endswith(".")
        assert not idea.endswith("..")
        assert "…" not in idea
        assert 20 < len(idea) <= 150
    assert len({row["idea"] for row in rows}) == 267


def test_arxiv_numbers_and_titles_are_unique(rows):
    for name in ("arxiv", "title"):
        values = [row[name] for row in rows if row[name]]
        assert len(values) == len(set(values))


def test_no_slug_hides_a_module_of_ours(rows):
    slugs = {row["slug"] for row in rows}
    assert not slugs & (OURS | set(papers.__all__))


def test_every_paper_module_is_catalogued(rows):
    slugs = {row["slug"] for row in rows}
    found = {path.stem for path in pathlib.Path(papers.__file__).parent.glob("*.py")} - OURS
    assert found <= slugs


def test_modules_agree_with_the_catalogue():
    for entry in papers.index():
        if catalog.has_module(entry.slug):
            paper = papers.load(entry.slug).PAPER
            for name in ("slug", "title", "year", "arxiv", "area"):
                assert getattr(paper, name) == getattr(entry, name), (entry.slug, name)


def test_no_module_has_a_problem():
    assert {e.slug: e.problem for e in papers.index() if e.problem} == {}


def test_index_imports_no_paper():
    code = (
        "import sys; from papyrax import papers; before = set(sys.modules); papers.index();"
        "print(sorted(m for m in set(sys.modules) - before if m.startswith('papyrax')));"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_url():
    assert papers.find("adahessian").url == "https://arxiv.org/abs/2006.00719"
    assert next(e for e in papers.index() if e.arxiv is None).url is None


@pytest.mark.parametrize("name", ["adahesian", "AdaHessian", "ada-hessian"])
def test_unknown_names_say_what_is_near(name):
    with pytest.raises(ValueError, match=r"in the catalogue; near it: .*adahessian"):
        papers.load(name)


@pytest.mark.parametrize("name", ["", "zzzzzzzz", "registry", "os.path"])
def test_unknown_names_without_neighbours(name):
    with pytest.raises(ValueError, match="in the catalogue"):
        papers.load(name)


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Puts a module in the place of a catalogued paper; returns the function that writes it."""
    slug = next(e.slug for e in papers.index() if not catalog.has_module(e.slug))
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])
    monkeypatch.setenv("PAPYRAX_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()

    def write(text=MODULE, parts=("papyrax.numerics.upcast",)):
        (tmp_path / f"{slug}.py").write_text(text.format(slug=slug, parts=parts))
        return papers.find(slug)

    yield write
    sys.modules.pop(f"papyrax.papers.{slug}", None)
    if hasattr(papers, slug):
        delattr(papers, slug)


def record(value, holds, accept=CLAIM.accept):
    measure = papers.Measure("score", (value,), accept, holds)
    figure = papers.Figure("t", "x", "y", ())
    result = papers.Result("any", "quick", (0,), (measure,), figure)
    return {**result.to_json(), **fakes.run(accept)}


def write_record(slug, data):
    path = papers.results_dir() / f"{slug}.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_without_a_module(paper):
    entry = next(e for e in papers.index() if not catalog.has_module(e.slug))
    assert (entry.status, entry.problem) == ("catalogued", None)
    with pytest.raises(ValueError, match="catalogued but not implemented yet"):
        papers.load(entry.slug)


def test_implemented(paper):
    entry = paper()
    assert (entry.status, entry.problem) == ("implemented", None)
    assert papers.load(entry.slug).PAPER.claim == CLAIM
    assert papers.recorded(entry.slug) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("PAPERS = 1", "AttributeError: .*PAPER"),
        (MODULE.replace("{slug}", "other"), "ValueError: PAPER.slug is 'other'"),
    ],
)
def test_a_module_that_fails_is_only_catalogued(paper, text, problem):
    entry = paper(text)
    assert entry.status == "catalogued"
    assert re.search(f"its module fails: {problem}", entry.problem)
    assert len(papers.index()) == 267


@pytest.mark.parametrize(
    "part",
    [
        "papyrax.numerics.nothing",
        "papyrax.numerics.safe",
        "papyrax.nothing.upcast",
        "nothing",
        "not a name",
    ],
)
def test_a_part_that_does_not_exist(paper, part):
    entry = paper(parts=("papyrax.numerics.upcast", part))
    assert entry.status == "catalogued"
    assert entry.problem == f"parts that cannot be imported: {part}"


def test_reproduced(paper):
    entry = paper()
    write_record(entry.slug, record(0.75, True))
    assert papers.find(entry.slug).state == ("reproduced", None)


def test_a_failed_acceptance_is_not_reproduced(paper):
    entry = paper()
    write_record(entry.slug, record(0.25, False))
    assert papers.find(entry.slug).state == ("implemented", None)


def test_the_verdict_comes_from_the_measures(paper):
    entry = paper()
    write_record(entry.slug, {**record(0.25, False), "holds": True})
    assert papers.find(entry.slug).status == "implemented"


def test_a_record_of_another_acceptance_does_not_count(paper):
    entry = paper()
    write_record(entry.slug, record(0.75, True, accept="method >= 0"))
    state = papers.find(entry.slug).state
    assert state == ("implemented", "its record was measured under another acceptance")


@pytest.mark.parametrize("text", ["", '{"slug": "a', "[]", "3", "{}", '{"figure": {"lines": []}}'])
def test_a_damaged_record(paper, text):
    entry = paper()
    path = write_record(entry.slug, text)
    with pytest.raises(ValueError, match="not a recorded result"):
        papers.recorded(entry.slug)
    state = papers.find(entry.slug).state
    assert state.status == "implemented"
    assert str(path) in state.problem


@pytest.mark.parametrize("name", list(records.RUN))
def test_a_record_says_how_it_was_measured(paper, name):
    entry = paper()
    write_record(entry.slug, {**record(0.75, True), name: []})
    with pytest.raises(ValueError, match=rf"not a recorded result \(ValueError: {name} is \[\]"):
        papers.recorded(entry.slug)


def test_recorded_falls_back_to_what_is_shipped(paper, tmp_path, monkeypatch):
    entry = paper()
    monkeypatch.setattr(records, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / f"{entry.slug}.json").write_text(json.dumps(record(0.75, True)))
    assert papers.recorded(entry.slug)["holds"] is True
    assert papers.recorded(entry.slug, tmp_path / "results") is None
    write_record(entry.slug, record(0.25, False))
    assert papers.recorded(entry.slug)["holds"] is False


def test_numbers_that_are_not_finite_are_read(paper):
    entry = paper()
    data = record(0.25, False)
    data["measures"][0]["method"] = ["NaN"]
    write_record(entry.slug, data)
    result = papers.Result.from_json(papers.recorded(entry.slug))
    assert math.isnan(result.measures[0].method[0])


def test_results_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPYRAX_RESULTS", str(tmp_path))
    assert papers.results_dir() == tmp_path
    monkeypatch.delenv("PAPYRAX_RESULTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(records, "checkout", lambda: None)
    assert papers.results_dir() == tmp_path / "data" / "papyrax" / "results"
    monkeypatch.setattr(records, "checkout", lambda: tmp_path)
    assert papers.results_dir() == records.SHIPPED


def test_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", tmp_path / "papers")
    assert records.checkout() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert records.checkout() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "papyrax"\n')
    assert records.checkout() == tmp_path


@pytest.mark.parametrize("module", [catalog, numbers])
def test_doctests(module):
    done = doctest.testmod(module, extraglobs={"papyrax": papyrax})
    assert done.attempted >= 3
    assert not done.failed
