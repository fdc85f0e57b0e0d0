"""What the report shows: every paper of the catalogue with its record."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from papyrax import papers
from papyrax.papers import Paper, Result, catalog, records

Verdict = Literal["holds", "fails", "stale", "implemented", "catalogued"]
VERDICTS: dict[Verdict, str] = {
    "holds": "Holds",
    "fails": "Does not hold",
    "stale": "Measure again",
    "implemented": "Not measured",
    "catalogued": "Catalogued",
}
"""Every verdict and its words, the order of the page."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One paper of the report.

    Attributes:
      entry: the paper in the catalogue.
      paper: its record in the library, or None.
      result: the measured claim, or None.
      record: how it was measured: seconds, device, versions, commit, acceptance.
      problem: what is wrong with its module or with its record, or None.
    """

    entry: papers.Entry
    paper: Paper | None = None
    result: Result | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    problem: str | None = None

    @property
    def verdict(self) -> Verdict:
        """What stands for the paper."""
        if self.paper is None:
            return "catalogued"
        if self.result is None:
            return "implemented"
        if self.record.get("acceptance", self.paper.claim.accept) != self.paper.claim.accept:
            return "stale"
        return "holds" if self.result.holds else "fails"


def collect(folder: str | os.PathLike[str] | None = None) -> tuple[Item, ...]:
    """All papers of the catalogue with the results recorded in a folder.

    Args:
      folder: where results are looked for; as `papyrax.papers.recorded` does by default.

    Returns:
      The papers by slug. A module or a record that is broken is told in `problem`.
    """
    place = None if folder is None else pathlib.Path(folder)
    return tuple(_item(entry, place) for entry in papers.index())


def _item(entry: papers.Entry, folder: pathlib.Path | None) -> Item:
    state = catalog.derive(entry.slug, folder)
    if state.status == "catalogued":
        return Item(entry, problem=state.problem)
    paper = papers.load(entry.slug).PAPER
    try:
        record = records.recorded(entry.slug, folder)
    except ValueError:
        record = None
    if record is None:
        return Item(entry, paper, problem=state.problem)
    return Item(entry, paper, Result.from_json(record), record, state.problem)
