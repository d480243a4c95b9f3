"""From values to places on a drawing: scales, and the round numbers that stand along them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Drawing = Callable[[float], str]  # an SVG of a given width in pixels


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to pixels from `start` to `end`; `log` spaces equal ratios equally.

    >>> Scale(0, 10, 100, 200)(2.5), Scale(1, 100, 0, 200, log=True)(10)
    (125.0, 100.0)
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; what is infinite stands at the edge."""
        if math.isinf(value):
            return self.end if value > 0 else self.start
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)


def around(values: Sequence[float], *, air: float = 0.06, zero: bool = False) -> tuple[float, float]:
    """The span of the finite values with some air on both sides; with `zero`, 0 lies within it.

    >>> around([1.0, 2.0], air=0.5), around([]), around([3.0, 4.0], air=0, zero=True)
    ((0.5, 2.5), (0.0, 1.0), (0.0, 4.0))
    """
    finite = [v for v in values if math.isfinite(v)] + ([0.0] if zero else [])
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    wide = (high - low) or abs(high) or 1.0
    below, above = low - air * wide, high + air * wide
    return (0.0 if zero and low == 0 else below), (0.0 if zero and high == 0 else above)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round values within a span, at most so many, equally far apart.

    >>> ticks(0, 10, 6), ticks(0.712, 0.748, 4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.72, 0.73, 0.74])
    """
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1 > most:
        lead = round(step / 10 ** math.floor(math.log10(step) + 1e-9))
        step *= 2.5 if lead == 2 else 2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = max(0, 1 - math.floor(math.log10(step)))
    return [round(n * step, places) for n in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values within a span, at most so many, spaced by ratio.

    >>> log_ticks(900, 120_000, 4), log_ticks(20, 40, 4)
    ([1000.0, 10000.0, 100000.0], [20.0, 30.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [
            lead * 10.0**d for d in decades for lead in leads if low <= lead * 10.0**d * (1 + 1e-9) <= high * 1.001
        ]
        if len(found) <= most and len(found) > 1:
            return found
    if len(found) < 2:  # less than a decade
        return [v for v in ticks(low, high, most) if v > 0]
    return found[:: math.ceil(len(found) / most)]


def apart(wanted: Sequence[float], least: float, most: float) -> list[float]:
    """Places near the wanted ones, in their order, at least so far apart and none beyond `most`.

    >>> apart([10, 12, 50], 10, 100)
    [10, 20, 50]
    >>> apart([95, 99], 10, 100)
    [90, 100]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + least)
    if placed and placed[-1] > most:
        placed[-1] = most
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - least)
    back = dict(zip(order, placed, strict=True))
    return [back[i] for i in range(len(wanted))]
