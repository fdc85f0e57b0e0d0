import json
import os
import subprocess
import sys

import fakes
import pytest
from flax import nnx

from papyrax import papers
from papyrax.train import cli
from papyrax.train.commands import show


def test_lists_every_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["papers"]) == 0
    out, _ = capsys.readouterr()
    words = out.split()
    for entry in papers.index():  # names are never cut, however narrow
        assert entry.slug in words
    assert "267 papers:" in out
    assert max(map(len, out.splitlines())) <= 80


def test_area_and_search(capsys):
    assert cli.main(["papers", "--area", "second_order"]) == 0
    out = capsys.readouterr().out
    assert "adahessian" in out
    assert "mala" not in out
    assert cli.main(["papers", "--search", "HESSIAN 2006.00719"]) == 0
    out = capsys.readouterr().out
    assert "1 paper:" in out
    assert "adahessian" in out
    assert cli.main(["papers", "--search", "xyzzy"]) == 0
    assert capsys.readouterr().out == "No paper matches.\n"


def test_unknown_area_lists_the_areas(capsys):
    assert cli.main(["papers", "--area", "cooking"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for entry in papers.index():
        assert entry.area in err


def test_json(capsys):
    assert cli.main(["papers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["slug"] for row in rows] == [entry.slug for entry in papers.index()]
    assert {row["status"] for row in rows} <= {"catalogued", "implemented", "reproduced"}


def test_statuses_and_warnings(fake_papers, capsys):
    assert cli.main(["reproduce", "good", "bad"]) == 1
    (fake_papers / "crash.py").write_text("import nothing_of_the_kind")
    capsys.readouterr()
    assert cli.main(["papers"]) == 0
    out, err = capsys.readouterr()
    status = {line.split()[0]: line.split()[2] for line in out.splitlines() if "On " in line}
    assert status == {
        "absent": "catalogued",
        "bad": "implemented",
        "crash": "catalogued",
        "fine": "implemented",
        "good": "reproduced",
    }
    assert err.startswith("papyrax: warning: paper 'crash': its module fails: ModuleNotFoundError")
    assert err.count("\n") == 1
    assert "5 papers: 1 reproduced, 2 implemented, 2 catalogued" in out
    assert cli.main(["papers", "--status", "implemented", "--json"]) == 0
    assert [p["slug"] for p in json.loads(capsys.readouterr().out)] == ["bad", "fine"]


def test_a_closed_pipe_is_quiet():
    code = "import sys; from papyrax.train.cli import main; sys.exit(main(['papers']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (cli.BROKEN_PIPE, b"")


def test_show_what_is_only_catalogued(fake_papers, capsys):
    assert cli.main(["show", "absent"]) == 0
    out = capsys.readouterr().out
    assert "On absent" in out
    assert "not implemented yet" in out
    assert "It works." in out
    assert "none known" in out


def test_show(fake_papers, capsys):
    assert cli.main(["show", "good"]) == 0
    out = capsys.readouterr().out
    assert "none; `papyrax reproduce good` measures it" in out
    cli.main(["reproduce", "good"])
    capsys.readouterr()
    assert cli.main(["show", "good"]) == 0
    out, err = capsys.readouterr()
    assert not err
    for text in (
        "On good",
        "reproduced",
        "y = x",
        "papyrax.numerics.upcast(",
        "It is run.",
        "method >= 0.5",
        "0.75",
        "0.25",
        "holds",
        "quick budget, seeds 0, 1, 2",
        "@misc{good,",
        "A. Author and B. Author",
        f"{fake_papers}/good.py",
    ):
        assert text in out, text
    first = papers.load("good").PAPER.parts[0].rsplit(".")[-1]
    from papyrax import numerics

    assert getattr(numerics, first).__doc__.splitlines()[0] in out


def test_show_where_the_terminal_knows_only_ascii():
    code = "import sys; from papyrax.train.cli import main; sys.exit(main(['show', 'adahessian']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "adahessian ? 2020" in done.stdout


def test_show_a_broken_paper(fake_papers, capsys):
    (fake_papers / "good.py").write_text("import nothing_of_the_kind")
    assert cli.main(["show", "good"]) == 0
    out, err = capsys.readouterr()
    assert "On good" in out
    assert "its module fails" in err


def test_show_a_record_of_another_acceptance(fake_papers, capsys):
    cli.main(["reproduce", "good"])
    fakes.write(fake_papers, "good", accept="method >= 0.5 [really]")
    fakes.forget("good")
    capsys.readouterr()
    assert cli.main(["show", "good"]) == 0
    out, err = capsys.readouterr()
    assert "measured under another acceptance: method >= 0.5" in out
    assert "method >= 0.5 [really]" in out
    assert "another acceptance" in err


def test_show_an_unknown_paper(capsys):
    assert cli.main(["show", "adahesian"]) == 2
    assert capsys.readouterr().err == (
        "papyrax: error: no paper 'adahesian' in the catalogue; near it: adahessian\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda x, *, scale=None: x, "(x, *, scale=None)"),
        (3, ""),
        (lambda: 0, "()"),
        (papers.Line, "(name, x, y)"),
    ],
)
def test_signature(value, text):
    assert show.signature(value) == text


def test_signature_of_a_flax_module():
    text = show.signature(nnx.LayerNorm)
    assert text.startswith("(num_features, *, epsilon=1e-06, ")
