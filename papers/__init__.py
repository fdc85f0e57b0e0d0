"""One module a paper: what it says, which parts are its own, and its measured claim."""

from .catalog import Entry, State, Status, find, index, load
from .records import recorded, results_dir
from .registry import (
    Budget,
    Claim,
    Figure,
    Line,
    Measure,
    Paper,
    Progress,
    Result,
    seed_range,
    silent,
)

__all__ = [
    "Budget",
    "Claim",
    "Entry",
    "Figure",
    "Line",
    "Measure",
    "Paper",
    "Progress",
    "Result",
    "State",
    "Status",
    "find",
    "index",
    "load",
    "recorded",
    "results_dir",
    "seed_range",
    "silent",
]
