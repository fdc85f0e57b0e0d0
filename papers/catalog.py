"""The catalogue: every paper, and what stands for it in the library.

`catalog.json` says what a paper is. What the library has of it is never written down: it is derived
from the module that exists, the parts that can be imported and the result that was recorded.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import json
import pathlib
import types
from typing import Any, Literal, NamedTuple

from . import records
from .registry import Paper, Result

Status = Literal["catalogued", "implemented", "reproduced"]
STATUSES: tuple[Status, ...] = ("catalogued", "implemented", "reproduced")
AREA_NAMES = {
    "benchmark": "benchmarks",
    "generative_other": "generative models",
    "peft": "parameter-efficient fine-tuning",
    "reinforcement": "reinforcement learning",
    "second_order": "second-order optimization",
    "self_supervised": "self-supervised learning",
    "transport": "optimal transport",
}
"""Areas whose name is more than their word in the catalogue."""
CATALOG = pathlib.Path(__file__).with_name("catalog.json")


class State(NamedTuple):
    """What the library has of a paper.

    Attributes:
      status: `catalogued`: nothing that works; `implemented`: its module can be imported and so can
        every part it names; `reproduced`: besides, the recorded result meets its acceptance.
      problem: what keeps a paper that has a module from a better status, or None.
    """

    status: Status
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One paper of the catalogue.

    Attributes:
      slug: its name, and that of its module.
      title: full title.
      year: year of publication.
      arxiv: arXiv number, or None.
      area: its area.
      idea: one sentence.
      repo: "owner/name" of the authors' repository, or None.
    """

    slug: str
    title: str
    year: int
    arxiv: str | None
    area: str
    idea: str
    repo: str | None

    @functools.cached_property
    def state(self) -> State:
        """What the library has of it, worked out when it is first asked for."""
        return derive(self.slug)

    @property
    def status(self) -> Status:
        """`catalogued`, `implemented` or `reproduced`."""
        return self.state.status

    @property
    def problem(self) -> str | None:
        """What is wrong with the module or the record of the paper, or None."""
        return self.state.problem

    @property
    def url(self) -> str | None:
        """Its page on arXiv, or None."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None


def area_name(area: str) -> str:
    """The name of an area in words.

    >>> from papyrax.papers.catalog import area_name
    >>> area_name("linear_algebra"), area_name("second_order")
    ('linear algebra', 'second-order optimization')
    """
    return AREA_NAMES.get(area, area.replace("_", " "))


def index() -> tuple[Entry, ...]:
    """All papers, by slug.

    It reads one file and imports no paper; an entry's `status` imports that paper's module, where
    there is one.

    >>> len(papyrax.papers.index())
    267
    """
    return tuple(Entry(**fields) for fields in json.loads(CATALOG.read_text(encoding="utf-8")))


def find(slug: str) -> Entry:
    """The entry of a paper.

    Args:
      slug: its name in the catalogue.

    Returns:
      The entry.

    Raises:
      ValueError: for a name that is not in the catalogue, with the names that are near.

    >>> papyrax.papers.find("adahessian").arxiv
    '2006.00719'
    """
    entries = {entry.slug: entry for entry in index()}
    if slug not in entries:
        near = [name for name in entries if len(slug) > 2 and slug.lower() in name]
        near += difflib.get_close_matches(slug.lower().replace("-", "_"), entries, n=3)
        names = ", ".join(dict.fromkeys(near[:4]))
        hint = f"near it: {names}" if near else "`papyrax papers` lists them"
        raise ValueError(f"no paper {slug!r} in the catalogue; {hint}")
    return entries[slug]


def has_module(slug: str) -> bool:
    """Whether the paper has a module; it is not imported, so it may still fail to."""
    return importlib.util.find_spec(f"{__package__}.{slug}") is not None


def load(slug: str) -> types.ModuleType:
    """The module of a paper, with its `PAPER` and `reproduce`.

    Args:
      slug: its name in the catalogue.

    Returns:
      The module.

    Raises:
      ValueError: for a name that is not in the catalogue, and for a paper that has no module yet.
    """
    find(slug)
    if not has_module(slug):
        raise ValueError(f"paper {slug!r} is catalogued but not implemented yet")
    return importlib.import_module(f"{__package__}.{slug}")


def resolve(name: str) -> Any:
    """What a dotted name means to a reader: `papyrax.optim.adahessian` as Python would read it.

    Args:
      name: the name, from `papyrax` on.

    Returns:
      The object.

    Raises:
      ImportError: where there is nothing of that name.

    >>> from papyrax.papers.catalog import resolve
    >>> resolve("papyrax.numerics.upcast") is papyrax.numerics.upcast
    True
    """
    first, *rest = name.split(".")
    value: Any = importlib.import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        # The attribute before the module of the same name: `optim.x` is the function that
        # `optim/x.py` defines.
        value = getattr(value, part, None) or importlib.import_module(path)
    return value


def missing_parts(paper: Paper) -> tuple[str, ...]:
    """The names of `paper.parts` that cannot be imported, or are only modules."""
    return tuple(name for name in paper.parts if not _resolves(name))


def _resolves(name: str) -> bool:
    try:
        return not isinstance(resolve(name), types.ModuleType)
    except Exception:  # whatever a broken room raises: the part cannot be used
        return False


def derive(slug: str, folder: pathlib.Path | None = None) -> State:
    """What the library has of a paper.

    Args:
      slug: its name in the catalogue.
      folder: where its result is looked for; as `recorded` does by default.

    Returns:
      The status, and what stands in the way of a better one. A module that fails does not raise
      here: one broken paper must not hide the others.
    """
    if not has_module(slug):
        return State("catalogued")
    try:
        paper = load(slug).PAPER
        if paper.slug != slug:
            raise ValueError(f"PAPER.slug is {paper.slug!r}")
    except (Exception, SystemExit) as error:
        return State("catalogued", f"its module fails: {type(error).__name__}: {error}")
    if missing := missing_parts(paper):
        return State("catalogued", f"parts that cannot be imported: {', '.join(missing)}")
    try:
        record = records.recorded(slug, folder)
    except ValueError as error:
        return State("implemented", str(error))
    if record is None:
        return State("implemented")
    if record["acceptance"] != paper.claim.accept:
        # The verdict answers a question that is no longer the one being asked.
        return State("implemented", "its record was measured under another acceptance")
    return State("reproduced" if Result.from_json(record).holds else "implemented")
