"""The tables of README.md and of papers/README.md, as text made from the catalogue and the results.

The text depends on the checkout alone: on the catalogue, the paper modules and the results that the
package ships, not on the machine, the day or the user's own results.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import catalog, records
from .numbers import summary
from .registry import Measure, Paper, Result

BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"
GENERATED = "<!-- Written by `papyrax tables`; changes by hand are lost. -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """What the tables say of one paper.

    Attributes:
      entry: the paper.
      state: its status and what is wrong with it.
      paper: what its module declares; None where there is none that works.
      result: its shipped result, if it was measured under the present acceptance.
    """

    entry: catalog.Entry
    state: catalog.State
    paper: Paper | None
    result: Result | None


def rows() -> tuple[Row, ...]:
    """All papers with what is shipped of them, by area and slug."""
    found = []
    for entry in sorted(catalog.index(), key=lambda entry: (entry.area, entry.slug)):
        state = catalog.derive(entry.slug, records.SHIPPED)
        paper, result = None, None
        if state.status != "catalogued":
            paper = catalog.load(entry.slug).PAPER
            result = _result(entry.slug, paper)
        found.append(Row(entry, state, paper, result))
    return tuple(found)


def _result(slug: str, paper: Paper) -> Result | None:
    try:
        record: Mapping[str, Any] | None = records.recorded(slug, records.SHIPPED)
    except ValueError:  # `state.problem` says so
        return None
    if record is None or record["acceptance"] != paper.claim.accept:
        return None
    return Result.from_json(record)


def coverage(papers: Sequence[Row]) -> str:
    """The tables of README.md: papers by area, and what was measured.

    Args:
      papers: what `rows` returns.

    Returns:
      Markdown, with a line end after it.
    """
    lines = ["| area | papers | implemented | reproduced |", "|---|--:|--:|--:|"]
    for area, group in _areas(papers):
        lines.append(_counts(catalog.area_name(area), group))
    lines += [_counts("**all**", papers), ""]
    done = [row for row in papers if row.paper is not None]
    if done:
        lines += ["| paper | claim | measured here | verdict |", "|---|---|---|---|"]
        lines += [_short_line(row, "papers/") for row in done]
        lines += [
            "",
            f"{_legend(done)} Of several measures the first one is shown, or the first that does "
            "not hold; [papers/README.md](papers/README.md) has all.",
            "",
        ]
    return "\n".join(lines)


def catalogue(papers: Sequence[Row]) -> str:
    """The whole of papers/README.md: every paper, by area.

    Args:
      papers: what `rows` returns.

    Returns:
      Markdown, with a line end after it.
    """
    done = [row for row in papers if row.paper is not None]
    held = sum(row.state.status == "reproduced" for row in papers)
    lines = [
        "# Papers",
        "",
        GENERATED,
        "",
        f"{len(papers)} papers, {len(done)} of them implemented and {held} reproduced. A paper is "
        "implemented when its module and all of its parts can be imported, and reproduced when its "
        "recorded result meets the acceptance that its module states. `papyrax show PAPER` says "
        "more of each; `papyrax reproduce PAPER` measures it.",
        "",
    ]
    if done:
        lines += [_legend(done), ""]
    for area, group in _areas(papers):
        name = catalog.area_name(area)
        lines += [
            f"## {name[0].upper()}{name[1:]}",
            "",
            "| paper | claim or idea | measured here | verdict |",
            "|---|---|---|---|",
            *(_line(row, "") for row in group),
            "",
        ]
    return "\n".join(lines)


def replace(text: str, inside: str) -> str:
    """Puts new tables between the markers of README.md.

    Args:
      text: the old README.md.
      inside: what `coverage` returns.

    Returns:
      The new README.md.

    Raises:
      ValueError: where it does not have each marker once, in order.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or not pattern.search(text):
        raise ValueError(f"takes a line {BEGIN} and, below it, a line {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{GENERATED}\n\n{inside}{END}", text)


def _areas(papers: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for area, group in itertools.groupby(papers, key=lambda row: row.entry.area):
        yield area, list(group)


def _counts(name: str, papers: Iterable[Row]) -> str:
    status = [row.state.status for row in papers]
    implemented = len(status) - status.count("catalogued")
    return f"| {name} | {len(status)} | {implemented} | {status.count('reproduced')} |"


def _legend(done: Sequence[Row]) -> str:
    text = (
        "Numbers are means and standard deviations over seeds, of the method and, after *vs*, of "
        "the baseline"
    )
    budgets = sorted({row.result.budget for row in done if row.result is not None})
    return text + (f"; budget: {', '.join(budgets)}." if budgets else ".")


def _links(row: Row, folder: str) -> str:
    slug, url = f"`{row.entry.slug}`", row.entry.url
    links = [slug if row.paper is None else f"[{slug}]({folder}{row.entry.slug}.py)"]
    return " · ".join([*links, f"[arXiv]({url})"] if url else links)


def _line(row: Row, folder: str) -> str:
    entry = row.entry
    name = f"{cell(entry.title)} ({entry.year})<br>{_links(row, folder)}"
    text = cell(row.paper.claim.text if row.paper else entry.idea)
    return f"| {name} | {text} | {_measured(row)} | {_verdict(row)} |"


def _short_line(row: Row, folder: str) -> str:
    text = cell(row.paper.claim.text if row.paper else row.entry.idea)
    return f"| {_links(row, folder)} | {text} | {_headline(row)} | {_verdict(row)} |"


def _headline(row: Row) -> str:
    if row.result is None:
        return ""
    measures = row.result.measures
    shown = next((measure for measure in measures if not measure.holds), measures[0])
    more = f"; {len(measures) - 1} more" if len(measures) > 1 else ""
    return _measure(shown) + more


def _measured(row: Row) -> str:
    if row.result is None:
        return ""
    return "<br>".join(_measure(measure) for measure in row.result.measures)


def _measure(measure: Measure) -> str:
    text = f"{cell(measure.name)}: {summary(measure.method)}"
    return f"{text} *vs* {summary(measure.baseline)}" if measure.baseline else text


def _verdict(row: Row) -> str:
    if row.paper is None:
        return ""
    if row.result is None:
        return "not measured"
    return "**holds**" if row.result.holds else "does not hold"


def cell(text: str) -> str:
    """Plain text as one cell of a Markdown table; what stands in backticks stays as it is."""
    pieces = " ".join(text.split()).split("`")
    plain = [re.sub(r"([\\*_\[\]<>~$])", r"\\\1", piece) for piece in pieces[::2]]
    code = pieces[1::2]
    if len(plain) == len(code):  # a backtick without its partner
        return cell(text.replace("`", "'"))
    merged = itertools.chain.from_iterable(itertools.zip_longest(plain, code, fillvalue=""))
    out = "`".join(list(merged)[: len(pieces)])
    return out.replace("|", "\\|")
