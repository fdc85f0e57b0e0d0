"""Papers that exist for a test only: modules in a folder, and a catalogue that lists them.

Run as a program, it is `papyrax` with these papers: `python fakes.py FOLDER COMMAND ...`. Processes
that the command spawns import this file again, so they see the same papers.
"""

import json
import os
import pathlib
import sys

from papyrax import papers
from papyrax.papers import catalog
from papyrax.train import cli

MODULE = '''
"""A paper of a test."""
import os, signal, sys, time
from papyrax.papers import Claim, Figure, Line, Measure, Paper, Result, seed_range, silent

PAPER = Paper(
    slug="{slug}", title="On {slug}", authors="A. Author, B. Author", year=2024, arxiv="2401.00001",
    area="fake", idea="It works.", formula="y = x", parts=("papyrax.numerics.upcast",),
    claim=Claim("It works.", "It is run.", "{accept}", "ours", "theirs"),
)

def reproduce(budget="quick", seed=0, *, seeds=3, progress=silent):
    progress(0.5, "half way")
    with open({calls!r}, "a") as file:
        file.write("{slug}\\n")
    {body}
    run = seed_range(seed, seeds)
    value = {value}
    rule = Measure("score", (value,) * seeds, "{accept}", value >= 0.5, (0.25,) * seeds)
    lines = (Line("ours", (0.0, 1.0), tuple((0.0, value) for _ in run)),)
    progress(1.0, "done")
    return Result("{slug}", budget, run, (rule,), Figure("t", "x", "y", lines))
'''


def write(
    folder: pathlib.Path,
    slug: str,
    *,
    body: str = "pass",
    value: str = "0.75",
    accept: str = "method >= 0.5",
) -> None:
    """Writes a paper: `body` runs before it measures `value`."""
    calls = str(folder / "calls")
    text = MODULE.format(slug=slug, body=body, value=value, accept=accept, calls=calls)
    (folder / f"{slug}.py").write_text(text)


def calls(folder: pathlib.Path) -> list[str]:
    """The papers that were measured, in order."""
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []


def listing(folder: pathlib.Path, *unwritten: str) -> pathlib.Path:
    """Writes the catalogue of the papers in a folder, and of some that have no module."""
    slugs = sorted({path.stem for path in folder.glob("*.py")} | set(unwritten))
    rows = [
        {
            "slug": slug,
            "title": f"On {slug}",
            "year": 2024,
            "arxiv": None,
            "area": "fake",
            "idea": "It works.",
            "repo": None,
        }
        for slug in slugs
    ]
    path = folder / "catalog.json"
    path.write_text(json.dumps(rows))
    return path


def run(acceptance: str) -> dict[str, object]:
    """What a record says of its run, beside the result."""
    return {
        "acceptance": acceptance,
        "seconds": 1.5,
        "versions": {"jax": "0.10.2"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "commit": None,
        "date": "2026-01-01T00:00:00+00:00",
    }


def install(folder: pathlib.Path, monkeypatch) -> None:
    """Puts the papers of a folder in the place of the real ones, in this process."""
    monkeypatch.setattr(catalog, "CATALOG", folder / "catalog.json")
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(folder)])
    # A file that is written again within the second would be read from the old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for path in folder.glob("*.py"):
        # Set, so that what an import puts there is taken away when the test ends.
        monkeypatch.setitem(sys.modules, f"papyrax.papers.{path.stem}", None)
        monkeypatch.setattr(papers, path.stem, None, raising=False)
        forget(path.stem)


def forget(slug: str) -> None:
    """Makes the next import of a paper read its file again."""
    del sys.modules[f"papyrax.papers.{slug}"]


if __name__ in ("__main__", "__mp_main__"):
    FOLDER = pathlib.Path(os.environ.setdefault("PAPYRAX_FAKES", sys.argv[1]))
    catalog.CATALOG = FOLDER / "catalog.json"
    papers.__path__.append(str(FOLDER))

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[2:]))
