"""Measured numbers in words."""

import math
import statistics
from collections.abc import Sequence


def summary(numbers: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, in as many digits as mean something.

    >>> from papyrax.train.numbers import summary
    >>> summary([0.951, 0.953, 0.955]), summary([12345.0]), summary([0.5, float("inf")])
    ('0.953 ± 0.002', '12345', 'inf')
    >>> summary([])
    '-'
    """
    if not numbers:
        return "-"
    if not all(map(math.isfinite, numbers)):
        # A mean would hide the seed that diverged.
        return "NaN" if any(map(math.isnan, numbers)) else f"{sum(numbers):g}"
    mean = statistics.fmean(numbers)
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    if spread == 0.0:
        return short(mean)
    return f"{short(mean)} ± {spread:.1g}" if spread < 100 else f"{short(mean)} ± {spread:.0f}"


def short(number: float) -> str:
    """Four digits, or all of those before the point."""
    if abs(number) >= 1e4 and abs(number) < 1e7:
        return f"{number:.0f}"
    return f"{number:.4g}"


def duration(seconds: float) -> str:
    """A time that a reader takes in at a glance.

    >>> from papyrax.train.numbers import duration
    >>> duration(0.42), duration(42.4), duration(75.0), duration(7500.0)
    ('0.4 s', '42 s', '1 min 15 s', '2 h 05 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
