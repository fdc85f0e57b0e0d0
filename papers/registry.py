"""What a paper file declares, and what measuring its claim returns.

A paper module holds `PAPER = Paper(...)` and a function

    reproduce(budget="quick", seed=0, *, seeds=3, progress=silent) -> Result

that measures the claim on `seeds` seeds from `seed` on and returns the numbers of the method and of
the baseline, seed by seed. `Measure.holds` is computed there from the numbers by the rule
that `Measure.accept` says in words; nothing else decides a verdict.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Budget = Literal["quick", "full"]
Progress = Callable[[float, str], None]
"""`progress(fraction, what)`: how far a reproduction is, from 0 to 1, and what it does now."""


def silent(fraction: float, what: str) -> None:
    """A `Progress` that shows nothing."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the authors say and how it is measured here.

    Attributes:
      text: the claim, in one or two sentences.
      setup: how it is measured at this scale: data, model, seeds, budget.
      accept: the acceptance in words, with its numbers; a wrong implementation fails it.
      method: name of what the paper proposes, as the plots call it.
      baseline: name of what it is compared with.
    """

    text: str
    setup: str
    accept: str
    method: str
    baseline: str


@dataclasses.dataclass(frozen=True)
class Paper:
    """One paper: identity, idea and the parts of the library that are its own.

    Attributes:
      slug: its name in the catalogue and of its module.
      title: full title.
      authors: "A. Author, B. Author" as they are to be cited.
      year: year of publication.
      arxiv: arXiv number, or None.
      area: area of the catalogue.
      idea: one or two sentences.
      formula: the central formula in plain text (several lines are fine).
      parts: dotted public names, such as "papyrax.losses.stablemax_cross_entropy".
      claim: what is measured.
      venue: where it was published, or "arXiv".
      code: "owner/name" of the authors' repository, or None.
    """

    slug: str
    title: str
    authors: str
    year: int
    arxiv: str | None
    area: str
    idea: str
    formula: str
    parts: tuple[str, ...]
    claim: Claim
    venue: str = "arXiv"
    code: str | None = None


@dataclasses.dataclass(frozen=True)
class Measure:
    """One quantity, one number a seed for the method and for the baseline.

    Attributes:
      name: what it is, with its unit: "test accuracy", "loss after 100 steps".
      method: the method's numbers, one a seed.
      baseline: the baseline's numbers, one a seed; empty where the acceptance needs none.
      accept: the rule in words: "method >= 0.95 and baseline <= 0.2 on every seed".
      holds: whether the numbers meet the rule.
      better: "higher", "lower" or "equal" (to what the rule says).
    """

    name: str
    method: tuple[float, ...]
    accept: str
    holds: bool
    baseline: tuple[float, ...] = ()
    better: Literal["higher", "lower", "equal"] = "higher"

    def __post_init__(self) -> None:
        # Plain numbers, so that a result can be written as JSON whatever it was computed with.
        object.__setattr__(self, "method", tuple(float(v) for v in self.method))
        object.__setattr__(self, "baseline", tuple(float(v) for v in self.baseline))
        object.__setattr__(self, "holds", bool(self.holds))
        if not self.method:
            raise ValueError("method: got no numbers, takes one a seed")


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve of a figure: the same x for every seed, one row of y a seed.

    Attributes:
      name: the legend's name; the method's line comes first.
      x: positions [points].
      y: values [seeds][points].
    """

    name: str
    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", tuple(float(v) for v in self.x))
        object.__setattr__(self, "y", tuple(tuple(float(v) for v in row) for row in self.y))
        for row in self.y:
            if len(row) != len(self.x):
                raise ValueError(f"y: got a row of {len(row)} values, takes {len(self.x)} as x")


@dataclasses.dataclass(frozen=True)
class Figure:
    """The one figure of a reproduction.

    Attributes:
      title: one line.
      x_label: with unit.
      y_label: with unit.
      lines: the curves, the method's first.
      x_log: logarithmic x axis.
      y_log: logarithmic y axis.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_log: bool = False
    y_log: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """The measured claim.

    Attributes:
      slug: the paper.
      budget: "quick" or "full".
      seeds: the seeds that were run.
      measures: the numbers and their verdicts.
      figure: what is drawn.
      notes: what a reader must know beside the numbers; may be empty.
    """

    slug: str
    budget: Budget
    seeds: tuple[int, ...]
    measures: tuple[Measure, ...]
    figure: Figure
    notes: str = ""

    def __post_init__(self) -> None:
        for measure in self.measures:
            for numbers in (measure.method, measure.baseline):
                if len(numbers) not in (0, 1, len(self.seeds)):
                    raise ValueError(
                        f"measures: {measure.name!r} has {len(numbers)} numbers, takes 1 or "
                        f"{len(self.seeds)}, one a seed"
                    )
            # A rule that "holds" on a NaN is a rule that was not checked.
            if measure.holds and any(map(math.isnan, measure.method + measure.baseline)):
                raise ValueError(f"measures: {measure.name!r} holds on a NaN")

    @property
    def holds(self) -> bool:
        """Whether every measure meets its acceptance."""
        return all(measure.holds for measure in self.measures)

    def to_json(self) -> dict[str, Any]:
        """The result as plain dicts, lists, strings and numbers."""
        return {**dataclasses.asdict(self), "holds": self.holds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Result":
        """The inverse of `to_json`; unknown keys are left aside."""
        figure = data["figure"]
        lines = tuple(Line(n["name"], n["x"], n["y"]) for n in figure["lines"])
        return cls(
            slug=data["slug"],
            budget=data["budget"],
            seeds=tuple(data["seeds"]),
            measures=tuple(Measure(**measure) for measure in data["measures"]),
            figure=Figure(**{**figure, "lines": lines}),
            notes=data.get("notes", ""),
        )


def seed_range(seed: int, seeds: int) -> tuple[int, ...]:
    """The seeds that a reproduction runs: `seed, seed + 1, ...`."""
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}, takes 1 or more")
    return tuple(range(seed, seed + seeds))


def mean(numbers: Sequence[float]) -> float:
    """The mean of a few numbers; NaN of none."""
    return sum(numbers) / len(numbers) if numbers else math.nan
