"""`papyrax reproduce`: measures claims and records the results."""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from papyrax import papers
from papyrax.papers.catalog import has_module
from papyrax.train import files, measure, pool, terminal
from papyrax.train.commands.papers import select
from papyrax.train.errors import UserError
from papyrax.train.numbers import duration


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Measure the claims of papers, record the results and print the verdicts.

    Name the papers, or choose them with --area or --all. A paper that was measured before with the
    same budget, seeds and acceptance is not measured again, so a run that was stopped goes on where
    it was when it is started again. The exit status is 0 when every claim holds, and 1 when one
    does not or a paper crashes.
    """

    slugs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PAPER...", help_behavior_hint=""),
    ] = ()
    """Papers, by their names in the catalogue."""
    area: Annotated[str | None, tyro.conf.arg(metavar="AREA", help_behavior_hint="")] = None
    """Every implemented paper of this area."""
    all: bool = False
    """Every implemented paper."""
    budget: papers.Budget = "quick"
    """"quick" takes a minute or two a paper on a laptop; "full" is closer to the paper."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """How many seeds."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """The first seed."""
    jobs: Annotated[int, tyro.conf.arg(metavar="N", aliases=["-j"])] = 1
    """Papers at once; more than one run each in a process of its own."""
    fresh: bool = False
    """Measure again what is recorded already."""
    json: bool = False
    """Print one JSON document on standard output, and everything else on standard error."""
    out: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Where results are recorded. By default $PAPYRAX_RESULTS; or papers/results of the source
    checkout; or the user's data folder."""

    def run(self) -> int:
        """Measures the papers."""
        slugs = self._choose()
        for name, least in (("seeds", 1), ("seed", 0), ("jobs", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}: got {getattr(self, name)}, takes {least} or more")
        folder = self.out if self.out is not None else papers.results_dir()
        _require_writable(folder)
        settings = measure.Settings(self.budget, self.seed, self.seeds, folder)
        start = time.perf_counter()
        outcomes = self._measure(slugs, settings)
        outcomes.sort(key=lambda outcome: slugs.index(outcome.slug))
        if self.json:
            print(files.to_json(self._document(outcomes, folder)), end="")
        else:
            _print(outcomes, folder, time.perf_counter() - start)
        return 0 if all(outcome.holds for outcome in outcomes) else 1

    def _choose(self) -> list[str]:
        ways = [bool(self.slugs), self.area is not None, self.all]
        if sum(ways) != 1:
            raise UserError("name one or more papers, or choose them with --area AREA or --all")
        if self.slugs:
            for slug in self.slugs:
                try:
                    papers.find(slug)
                except ValueError as error:
                    raise UserError(str(error)) from None
                if not has_module(slug):
                    raise UserError(f"paper {slug!r} is catalogued but not implemented yet")
            return list(dict.fromkeys(self.slugs))
        chosen = [entry.slug for entry in select(self.area) if has_module(entry.slug)]
        if not chosen:
            where = f"of area {self.area!r} " if self.area else ""
            raise UserError(f"no paper {where}is implemented yet")
        return chosen

    def _measure(self, slugs: Sequence[str], settings: measure.Settings) -> list[pool.Outcome]:
        outcomes = []
        with _Display(len(slugs)) as display:
            stream = pool.run(slugs, settings, display.follow, jobs=self.jobs, fresh=self.fresh)
            with contextlib.closing(stream):
                for outcome in stream:
                    outcomes.append(outcome)
                    display.done(outcome)
        return outcomes

    def _document(self, outcomes: list[pool.Outcome], folder: pathlib.Path) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "seeds": list(papers.seed_range(self.seed, self.seeds)),
            "folder": str(folder),
            "holds": all(outcome.holds for outcome in outcomes),
            "papers": [
                {
                    "slug": outcome.slug,
                    "state": outcome.state,
                    "holds": outcome.holds if outcome.record is not None else None,
                    "error": outcome.error,
                    "log": None if outcome.log is None else str(outcome.log),
                    "record": outcome.record,
                }
                for outcome in outcomes
            ],
        }


def _require_writable(folder: pathlib.Path) -> None:
    """Fails now rather than after an hour of measuring."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable"):
            pass
    except OSError as error:
        raise UserError(f"cannot write results to {folder}: {error.strerror}") from None


class _Display:
    """Progress on standard error: bars in a terminal, plain lines elsewhere."""

    def __init__(self, papers_in_all: int) -> None:
        self.console = terminal.console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.fields[slug]}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[what]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.left, self.total = papers_in_all, papers_in_all

    def __enter__(self) -> "_Display":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def follow(self, slug: str, fraction: float, what: str) -> None:
        """Shows how far a paper is."""
        if slug not in self.tasks:
            if not self.console.is_terminal:
                self.console.print(Text(f"{slug}: measuring"))
            self.tasks[slug] = self.bars.add_task("", total=1.0, slug=slug, what="")
        what = " ".join(what.split())[:32]
        self.bars.update(self.tasks[slug], completed=min(max(fraction, 0.0), 1.0), what=what)

    def done(self, outcome: pool.Outcome) -> None:
        """Takes the bar of a paper away and prints its one line."""
        if outcome.slug in self.tasks:
            self.bars.remove_task(self.tasks[outcome.slug])
        self.left -= 1
        count = f"[{self.total - self.left}/{self.total}] " if self.total > 1 else ""
        line = Text(f"{count}{outcome.slug}: ")
        if outcome.record is None:
            line.append("crashed", style="red").append(f": {outcome.error}; see {outcome.log}")
        else:
            line.append(terminal.verdict(outcome.holds))
            if outcome.state == "recorded":
                line.append(", recorded before; --fresh measures again")
            else:
                line.append(f", {duration(outcome.record['seconds'])}")
        self.console.print(line, soft_wrap=True)


def _print(outcomes: list[pool.Outcome], folder: pathlib.Path, seconds: float) -> None:
    out = terminal.console()
    for outcome in outcomes:
        out.print()
        if outcome.record is None:
            out.print(Text(outcome.slug, style="bold").append(" crashed", style="not bold red"))
            message = f"  {outcome.error}; see {outcome.log}"
            out.print(Text(message), soft_wrap=True)
            continue
        result = papers.Result.from_json(outcome.record)
        out.print(Text(outcome.slug, style="bold"))
        claim = papers.load(outcome.slug).PAPER.claim
        out.print(Padding(terminal.measures(result, claim), (0, 0, 0, 2), expand=False))
        for m in result.measures:
            if not m.holds:
                out.print(Padding(Text(f"{m.name}: accepted if {m.accept}"), (0, 0, 0, 2)))
    held = sum(outcome.holds for outcome in outcomes)
    line = f"\n{held} of {len(outcomes)} hold · {duration(seconds)} · results in {folder}"
    out.print(Text(line), soft_wrap=True)
