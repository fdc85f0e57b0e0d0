"""Measured numbers in words."""

import math
import statistics
from collections.abc import Sequence


def summary(numbers: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, in the digits that mean something.

    >>> from papyrax.papers.numbers import summary
    >>> summary([0.951, 0.953, 0.955]), summary([12345.0]), summary([3e-9, 8e-9])
    ('0.953 ± 0.002', '12345', '5.5e-09 ± 4e-09')
    >>> summary([0.5, float("inf")]), summary([float("nan"), 1.0]), summary([])
    ('inf', 'NaN', '-')
    """
    if not numbers:
        return "-"
    if not all(map(math.isfinite, numbers)):
        # A mean over the others would hide the seed that diverged.
        return short(sum(numbers))
    mean = statistics.fmean(numbers)
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    if spread == 0.0:
        return short(mean)
    if spread < 1e-6 * abs(mean):
        return short(mean, 6)
    spread = float(f"{spread:.1g}")
    digits = _magnitude(mean) - _magnitude(spread) + 1
    deviation = f"{spread:.0f}" if 1 <= spread < 1e6 else f"{spread:g}"
    return f"{short(mean, min(max(digits, 2), 6))} ± {deviation}"


def short(number: float, digits: int = 4) -> str:
    """A number in a few significant digits; in full between 1000 and a million.

    >>> from papyrax.papers.numbers import short
    >>> short(0.123456), short(0.123456, 2), short(123456.7), short(1.5e9), short(float("nan"))
    ('0.1235', '0.12', '123457', '1.5e+09', 'NaN')
    """
    if math.isnan(number):
        return "NaN"
    return f"{number:.0f}" if 1e3 <= abs(number) < 1e6 else f"{number:.{digits}g}"


def _magnitude(number: float) -> int:
    return math.floor(math.log10(abs(number))) if number else 0
