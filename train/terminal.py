"""The terminal: where commands print, how wide, and what a closed pipe does."""

import os
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from papyrax.papers import Claim, Result
from papyrax.train.numbers import summary

PIPE_WIDTH = 160
"""Columns where nobody said how many: in a pipe, rich would cut everything to 80."""


class _Console(Console):
    """A console that leaves a closed pipe to the command line, which ends quietly."""

    def on_broken_pipe(self) -> None:
        raise


def console(*, stderr: bool = False, **kwargs: Any) -> Console:
    """A console on standard output, or on standard error.

    It is made anew at every call, so that it writes where `sys.stdout` points at that moment.

    Args:
      stderr: write to standard error: progress, warnings, everything that is not the answer.
      **kwargs: arguments of `rich.console.Console`.

    Returns:
      The console. Numbers and paths get no colour that was not asked for.
    """
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty() and "COLUMNS" not in os.environ:
        kwargs.setdefault("width", PIPE_WIDTH)
    return _Console(file=stream, highlight=False, **kwargs)


def warn(message: str) -> None:
    """One line on standard error that does not stop the command."""
    print(f"papyrax: warning: {message}", file=sys.stderr)


def measures(result: Result, claim: Claim) -> Table:
    """The measures of a result, a row each, under the names of method and baseline."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    compared = any(m.baseline for m in result.measures)
    table.add_column("measure", min_width=16)
    for name in (claim.method, claim.baseline) if compared else (claim.method,):
        table.add_column(Text(name), min_width=8)
    table.add_column("verdict", no_wrap=True)
    for m in result.measures:
        numbers = (m.method, m.baseline) if compared else (m.method,)
        cells = (Text(summary(n), no_wrap=True) for n in numbers)
        table.add_row(Text(m.name), *cells, verdict(m.holds))
    return table


def verdict(holds: bool | None) -> Text:
    """A verdict in one or two words; None is "not measured"."""
    if holds is None:
        return Text("not measured", style="dim")
    return Text("holds", style="green") if holds else Text("does not hold", style="red")
