"""Numbers as a person writes them, in sentences, tables and charts alike."""

from collections.abc import Sequence
from datetime import datetime
from math import floor, isfinite, log10

from flywheel.evidence import Estimate

NONE = "—"
COMPACT = ((1e9, "B"), (1e6, "M"), (1e4, "k"))  # from so many on, in units of a thousandth of the next


def number(value: float | None, places: int = 3, *, sign: bool = False) -> str:
    """A number to so many places, with a real minus; a dash where there is none.

    >>> number(-0.0184), number(0.0184, 2, sign=True), number(float("nan")), number(-0.0001)
    ('−0.018', '+0.02', '—', '0.000')
    """
    if value is None or not isfinite(value):
        return NONE
    text = f"{abs(value):,.{places}f}"
    nothing = not text.strip("0.,")
    return ("" if nothing else "−" if value < 0 else "+" if sign else "") + text


def count(value: float) -> str:
    """A whole number with its thousands marked."""
    return number(value, 0)


def share(value: float | None, places: int = 0, *, sign: bool = False) -> str:
    """A share as a percentage.

    >>> share(0.974, 1), share(-0.2, sign=True)
    ('97.4\\xa0%', '−20\\xa0%')
    """
    said = number(None if value is None else 100 * value, places, sign=sign)
    return said if said == NONE else f"{said}\N{NO-BREAK SPACE}%"


def portion(part: float, whole: float) -> str:
    """A part of a whole as a percentage that is 100.0 of nothing less than all, and shows two figures of the small.

    >>> portion(9_999, 10_000), portion(12, 98_014), portion(0, 0)
    ('99.9\\xa0%', '0.012\\xa0%', '—')
    """
    if not whole:
        return NONE
    if 0 < part / whole < 0.001:
        return share(part / whole, min(4, places(100 * part / whole)))
    return share(floor(1000 * part / whole) / 1000, 1)


def places(width: float) -> int:
    """So many places as show two figures of an interval this wide, from none to five.

    >>> places(0.034), places(7.0), places(1200.0)
    (3, 1, 0)
    """
    return min(5, max(0, 1 - floor(log10(width)))) if width > 0 and isfinite(width) else 3


def estimate(found: Estimate, *, sign: bool = False, like: Sequence[Estimate] = ()) -> str:
    """An estimate and its interval, to as many places as the narrowest of those that stand beside it takes.

    >>> estimate(Estimate(0.0231, 0.011, 0.036), sign=True)
    '+0.023 (+0.011 to +0.036)'
    """
    said = max(places(e.high - e.low) for e in (found, *(e for e in like if e.high > e.low)))
    value, low, high = (number(x, said, sign=sign) for x in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def compact(value: float) -> str:
    """A number short enough for an axis.

    >>> [compact(v) for v in (0.25, 1500.0, 12000.0, 2500000.0, -0.5)]
    ['0.25', '1,500', '12k', '2.5M', '−0.5']
    """
    for least, unit in COMPACT:
        if abs(value) >= least:
            return compact(value / (1e3 if unit == "k" else least)) + unit
    text = f"{abs(value):,.6f}".rstrip("0").rstrip(".")
    return ("−" if value < 0 and text != "0" else "") + text


def compacts(values: Sequence[float]) -> list[str]:
    """The numbers along an axis, with as many places as the longest.

    >>> compacts([0.66, 0.7, 0.74]), compacts([0.0, 0.5]), compacts([5000.0, 10000.0])
    (['0.66', '0.70', '0.74'], ['0', '0.5'], ['5,000', '10k'])
    """
    said = [compact(v) for v in values]
    if any(name[-1:].isalpha() for name in said):
        return said
    most = max((len(name.partition(".")[2]) for name in said), default=0)
    return [number(v, most) if v else "0" for v in values]


def day(at: datetime) -> str:
    """A day as 2026-03-02."""
    return f"{at:%Y-%m-%d}"


def named(generation: int) -> str:
    """A generation by its number; 0 is the baseline."""
    return f"generation {generation}" if generation else "the baseline"


def plural(value: int, one: str, many: str = "") -> str:
    """A count and what it counts.

    >>> plural(1, "turn"), plural(1200, "turn")
    ('1 turn', '1,200 turns')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def short(text: str, most: int) -> str:
    """Text in at most so many characters.

    >>> short("a long name", 8)
    'a long …'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
