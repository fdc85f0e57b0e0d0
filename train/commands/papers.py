"""`papyrax papers`: the catalogue and what stands for each paper."""

import collections
import dataclasses
import itertools
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text

from papyrax import papers
from papyrax.papers import catalog
from papyrax.train import files, terminal
from papyrax.train.errors import UserError

STYLES = {"catalogued": "dim", "implemented": "yellow", "reproduced": "green"}


@dataclasses.dataclass(frozen=True)
class Papers:
    """List the papers of the catalogue, and what the library has of each.

    A paper is catalogued; implemented, when its module and all of its parts can be imported; and
    reproduced, when besides the recorded result meets its acceptance.
    """

    area: Annotated[str | None, tyro.conf.arg(metavar="AREA", help_behavior_hint="")] = None
    """Only the papers of this area."""
    status: Annotated[papers.Status | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Only the papers of exactly this status."""
    search: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """Only the papers that have every word of this in their name, title, idea or arXiv number."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Prints the papers."""
        entries = [entry for entry in select(self.area) if self._matches(entry)]
        for entry in entries:
            if entry.problem:
                terminal.warn(f"paper {entry.slug!r}: {entry.problem}")
        if self.json:
            rows = [{**dataclasses.asdict(e), "status": e.status} for e in entries]
            print(files.to_json(rows), end="")
        elif not entries:
            print("No paper matches.")
        else:
            _print(entries)
        return 0

    def _matches(self, entry: papers.Entry) -> bool:
        text = f"{entry.slug} {entry.title} {entry.idea} {entry.arxiv}".lower()
        found = all(word in text for word in (self.search or "").lower().split())
        return found and self.status in (None, entry.status)


def select(area: str | None) -> tuple[papers.Entry, ...]:
    """The papers of an area, or all of them.

    Args:
      area: the area, or None.

    Returns:
      The entries, by slug.

    Raises:
      UserError: for an area that does not exist, with those that do.
    """
    entries = papers.index()
    if area is None:
        return entries
    areas = sorted({entry.area for entry in entries})
    if area not in areas:
        raise UserError(f"no area {area!r}; there are: {', '.join(areas)}")
    return tuple(entry for entry in entries if entry.area == area)


def _print(entries: list[papers.Entry]) -> None:
    """One table an area; names are never cut, since they are what other commands take."""
    out = terminal.console()
    names = max(len(entry.slug) for entry in entries)
    states = max(len(entry.status) for entry in entries)
    titles = max(20, out.width - names - states - 4 - 3 * 2)
    for area, group in itertools.groupby(sorted(entries, key=_by_area), key=_by_area):
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(min_width=names, no_wrap=True, style="bold")
        table.add_column(min_width=4, no_wrap=True)
        table.add_column(min_width=states, no_wrap=True)
        table.add_column(max_width=titles, no_wrap=True, overflow="ellipsis")
        members = list(group)
        for e in members:
            status = Text(e.status, style=STYLES[e.status])
            table.add_row(e.slug, str(e.year), status, Text(e.title))
        name = catalog.area_name(area)
        key = "" if name == area else f"{area}, "  # what --area takes
        out.print(Text(f"{name} ({key}{len(members)})", style="underline"))
        out.print(table)
        out.print()
    out.print(_counts(entries))


def _by_area(entry: papers.Entry) -> str:
    return entry.area


def _counts(entries: list[papers.Entry]) -> str:
    counts = collections.Counter(entry.status for entry in entries)
    split = ", ".join(f"{counts[status]} {status}" for status in reversed(catalog.STATUSES))
    return f"{len(entries)} {'paper' if len(entries) == 1 else 'papers'}: {split}"
