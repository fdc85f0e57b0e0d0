"""Numbers and times in words."""

from papyrax.papers.numbers import short, summary

__all__ = ["duration", "short", "summary"]


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
