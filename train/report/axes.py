"""Axes: from numbers to positions, to ticks and to their labels."""

import dataclasses
import math
from collections.abc import Iterable

MINUS, TIMES, INFINITY = "\u2212", "\u00d7", "\u221e"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

LARGEST = 1e300
"""Beyond this a number is not drawn: its distance to another one overflows."""

SMALLEST = 1e-290
"""Numbers that are nearer to each other than this are drawn as one."""

PLAIN = range(-3, 5)
"""Decades that are written out, 0.001 to 10000; others are powers of ten."""

LABEL_ROOM = 40
"""Characters that fit side by side under a plot on a phone, the gaps between labels included."""


def power(exponent: int) -> str:
    """10 to an integer, in superscripts."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def number(value: float, digits: int = 4) -> str:
    """A number for a reader: `digits` significant digits, whole numbers whole.

    Args:
      value: any float.
      digits: significant digits; one less beside a power of ten, which takes room itself.

    Returns:
      Text such as "0.9472", "12", "3.14×10⁻⁷", "NaN" or "∞".
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    if value == 0:
        return "0"
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if size == int(size) and size < 1e6:
        return f"{sign}{int(size)}"
    exponent = int(f"{size:.{digits - 1}e}".split("e")[1])
    if exponent in PLAIN:
        return f"{sign}{size:.{max(digits - 1 - exponent, 0)}f}"
    mantissa, rounded = f"{size:.{digits - 2}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{sign}{mantissa}{TIMES}{power(int(rounded))}"


def median(numbers: Iterable[float]) -> float:
    """The median; NaN of none, and where one is NaN: a seed that was lost has no rank.

    >>> median([3.0, 1.0, math.inf]), median([1.0, 2.0]), median([1.0, math.nan])
    (3.0, 1.5, nan)
    """
    ordered = sorted(numbers)
    if not ordered or any(map(math.isnan, ordered)):
        return math.nan
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return ordered[middle - 1] / 2 + ordered[middle] / 2


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark on an axis.

    Attributes:
      at: its position, from 0 to 1.
      label: its text.
    """

    at: float
    label: str


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
      low: the number at position 0; its logarithm to base ten on a logarithmic axis.
      high: the number at position 1, likewise.
      log: whether the axis is logarithmic.
    """

    low: float
    high: float
    log: bool = False

    def draws(self, value: float) -> bool:
        """Whether a number has a place on such an axis: finite, positive where logarithmic."""
        return math.isfinite(value) and abs(value) <= LARGEST and (value > 0 or not self.log)

    def place(self, value: float) -> float:
        """The position of a number that the axis draws, 0 at the low end and 1 at the high end."""
        value = math.log10(value) if self.log else value
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 6, room: int | None = None) -> tuple[Tick, ...]:
        """Ticks at round numbers, none outside the axis.

        Args:
          count: about how many.
          room: characters that fit side by side; fewer ticks are made until their labels do.

        Returns:
          The ticks from low to high.
        """
        make = self._log_ticks if self.log else self._linear_ticks
        ticks: tuple[Tick, ...] = ()
        for wanted in range(count, 1, -1):
            ticks = make(wanted)
            if room is None or sum(len(t.label) + 2 for t in ticks) <= room:
                break
        return ticks

    def _linear_ticks(self, count: int) -> tuple[Tick, ...]:
        step = _round_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        labels = _labels(values, step)
        return tuple(
            Tick((value - self.low) / (self.high - self.low), label)
            for value, label in zip(values, labels)
        )

    def _log_ticks(self, count: int) -> tuple[Tick, ...]:
        decades = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
        if len(decades) >= 3:
            stride = -(-len(decades) // count)
            # Multiples of the stride, so that 10^0 is among them where it is on the axis.
            marks = [(1, d) for d in decades if d % stride == 0]
        else:
            around = range(math.floor(self.low), math.floor(self.high) + 1)
            for digits in ((1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
                every = [(m, d) for d in around for m in digits]
                marks = [(m, d) for m, d in every if self._inside(math.log10(m) + d)]
                if len(marks) >= 2:
                    break
            while len(marks) > count + 1:
                marks = marks[::2]
            if len(marks) < 2:
                return self._fine_log_ticks(count)
        plain = all(d in PLAIN for _, d in marks)
        return tuple(
            Tick(
                (math.log10(m) + d - self.low) / (self.high - self.low),
                _plain(m, d) if plain else power(d) if m == 1 else f"{m}{TIMES}{power(d)}",
            )
            for m, d in marks
        )

    def _fine_log_ticks(self, count: int) -> tuple[Tick, ...]:
        """The ticks of a linear axis over the same numbers: within a decade that is what helps."""
        low, high = 10**self.low, 10**self.high
        ticks = Axis(low, high)._linear_ticks(count)
        return tuple(Tick(self.place(low + t.at * (high - low)), t.label) for t in ticks)

    def _inside(self, value: float) -> bool:
        return self.low - 1e-9 <= value <= self.high + 1e-9


def axis(values: Iterable[float], *, log: bool = False, margin: float = 0.04) -> Axis:
    """The axis that shows all of the numbers that it can.

    Args:
      values: any floats; those that cannot be drawn are left aside.
      log: logarithmic.
      margin: what is left free at either end, as a part of the span.

    Returns:
      The axis; a single number sits in its middle.
    """
    empty = Axis(0.0, 1.0, log)
    shown = [v for v in values if empty.draws(v)]
    if not shown:
        return empty
    low, high = min(shown), max(shown)
    if log:
        low, high = math.log10(low), math.log10(high)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, SMALLEST):
        half = 0.5 if log else 0.1 * size if size > 10 * SMALLEST else 1.0
        low, high, margin = low - half, high + half, 0.0
    room = margin * (high - low)
    return Axis(low - room, high + room, log)


def _round_step(span: float) -> float:
    """The round number, 1, 2 or 5 times a power of ten, that is next above a span."""
    size = 10.0 ** math.floor(math.log10(span))
    return next(m * size for m in (1, 2, 5, 10) if m * size >= span * (1 - 1e-9))


def _labels(values: list[float], step: float) -> list[str]:
    """Labels with as many decimals as the step needs, and a common power of ten where it helps."""
    largest = max(map(abs, values), default=0.0)
    if largest == 0:
        return ["0" for _ in values]
    fine, size = math.floor(math.log10(step) + 1e-9), math.floor(math.log10(largest) + 1e-9)
    if fine >= -4 and size <= 4:
        decimals, shift, ending = max(-fine, 0), 1.0, ""
    else:
        decimals, shift, ending = max(size - fine, 0), 10.0**-size, f"{TIMES}{power(size)}"
    texts = []
    for value in values:
        text = f"{abs(value) * shift:.{decimals}f}"
        zero = not float(text)
        texts.append("0" if zero else (MINUS if value < 0 else "") + text + ending)
    return texts


def _plain(multiple: int, decade: int) -> str:
    return f"{multiple * 10.0**decade:.{max(-decade, 0)}f}"
