"""`papyrax show`: one paper."""

import dataclasses
import inspect
import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from papyrax import papers
from papyrax.papers.catalog import area_name, resolve
from papyrax.train import terminal
from papyrax.train.errors import UserError
from papyrax.train.numbers import duration
from papyrax.train.report.cite import bibtex


@dataclasses.dataclass(frozen=True)
class Show:
    """Show one paper: its idea, formula, parts, claim, last result, citation and links."""

    slug: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAPER")]
    """The paper, by its name in the catalogue."""

    def run(self) -> int:
        """Prints the paper."""
        try:
            entry = papers.find(self.slug)
        except ValueError as error:
            raise UserError(str(error)) from None
        if entry.problem:
            terminal.warn(f"paper {entry.slug!r}: {entry.problem}")
        out = terminal.console()
        out.print(_head(entry))
        for title, body in _sections(entry):
            out.print(Text(f"\n{title}", style="bold"))
            if isinstance(body, str):  # to be copied: no line is broken
                out.print(Text(textwrap.indent(body, "  ")), soft_wrap=True)
            else:
                out.print(Padding(body, (0, 0, 0, 2), expand=False))
        return 0


def _head(entry: papers.Entry) -> RenderableType:
    status = entry.status if entry.status != "catalogued" else "catalogued, not implemented yet"
    line = f"{entry.slug} · {entry.year} · {area_name(entry.area)} · {status}"
    return Group(Text(entry.title, style="bold"), Text(line))


def _sections(entry: papers.Entry) -> Iterator[tuple[str, RenderableType]]:
    paper = _paper(entry)
    if paper is None:
        yield "Idea", Text(entry.idea)
        yield "Links", "\n".join(_links(entry, None)) or "none known"
        return
    yield "Idea", Text(paper.idea)
    yield "Formula", inspect.cleandoc(paper.formula)
    yield "Parts", Group(*(_part(name) for name in paper.parts))
    claim = paper.claim
    yield "Claim", Text(claim.text)
    yield "Measured here as", Text(claim.setup)
    yield "Accepted if", Text(claim.accept)
    try:
        record = papers.recorded(entry.slug)
    except ValueError:  # the warning has said so
        record = None
    if record is None:
        yield "Last result", Text(f"none; `papyrax reproduce {entry.slug}` measures it")
    else:
        yield "Last result", result(record, paper)
    yield "Cite", bibtex(paper)
    yield "Links", "\n".join(_links(entry, paper))


def _paper(entry: papers.Entry) -> papers.Paper | None:
    try:
        paper: papers.Paper = papers.load(entry.slug).PAPER
    except Exception:  # not there, or broken, which the warning has said
        return None
    return paper


def _links(entry: papers.Entry, paper: papers.Paper | None) -> list[str]:
    links = [("paper", entry.url)]
    code = (paper.code if paper else None) or entry.repo
    links.append(("authors' code", f"https://github.com/{code}" if code else None))
    if paper:
        links.append(("measured in", _file(entry.slug)))
    return [f"{name + ':':15}{link}" for name, link in links if link]


def _file(slug: str) -> str:
    path = pathlib.Path(str(papers.load(slug).__file__))
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _part(name: str) -> RenderableType:
    try:
        value = resolve(name)
    except Exception:
        return Text(f"{name}  (cannot be imported)", style="yellow")
    first = (inspect.getdoc(value) or "").split("\n", 1)[0]
    return Group(
        Text(name + signature(value)), Padding(Text(first, style="dim"), (0, 0, 0, 2), expand=False)
    )


def signature(value: Any) -> str:
    """The arguments of a part and their defaults, without types; empty for what is not callable."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    if inspect.isclass(value) and list(found.parameters) == ["args", "kwargs"]:
        # Classes that are made by a metaclass, as those of flax.nnx, say it of their `__init__`.
        found = inspect.signature(value.__init__)
        found = found.replace(parameters=list(found.parameters.values())[1:])
    empty = inspect.Parameter.empty
    parameters = [p.replace(annotation=empty) for p in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def result(record: Mapping[str, Any], paper: papers.Paper) -> RenderableType:
    """A recorded result: one line a measure, the verdict, and where it was measured."""
    measured = papers.Result.from_json(record)
    device, versions = record["device"], record["versions"]
    seeds = ", ".join(map(str, measured.seeds))
    lines = [
        f"{measured.budget} budget, seeds {seeds}, {duration(record['seconds'])}, "
        f"{record['date'][:10]}",
        f"{device['count']} x {device['kind']} ({device['platform']}), jax {versions['jax']}, "
        f"commit {_commit(record['commit'])}",
    ]
    if measured.notes:
        lines.append(" ".join(measured.notes.split()))
    if record["acceptance"] != paper.claim.accept:
        lines.append(f"measured under another acceptance: {record['acceptance']}")
    return Group(terminal.measures(measured, paper.claim), Text("\n".join(lines)))


def _commit(commit: str | None) -> str:
    if commit is None:
        return "unknown"
    sha, *changes = commit.partition("+")
    return sha[:10] + "".join(changes)
