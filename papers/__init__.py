"""One module a paper: what it says, which parts are its own, and its measured claim."""

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
    "Figure",
    "Line",
    "Measure",
    "Paper",
    "Progress",
    "Result",
    "seed_range",
    "silent",
]
