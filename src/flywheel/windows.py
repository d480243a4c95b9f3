"""Event time, cut into windows.

A window is a half-open span `[start, end)` of UTC time and is known by its integer index, counted from the
origin; its name is its start. Everything about when a window may close, and which state a decision in it could
have been served from, is decided here and nowhere else.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday, so that windows of 7 or 28 days begin on one
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `90s`, `15m`, `6h`, `28d` or `2w`.

    >>> parse_duration("28d")
    datetime.timedelta(days=28)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and one of s, m, h, d, w, as in 28d")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def format_duration(span: timedelta) -> str:
    """Write a duration in the largest unit that divides it, as `parse_duration` reads it.

    >>> format_duration(timedelta(hours=36))
    '36h'
    """
    seconds = span.total_seconds()
    for unit in "dhms":
        if seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:g}s"


@dataclass(frozen=True)
class Windows:
    """The grid that cuts event time, with the waits after which a window may close.

    >>> grid = Windows(every=timedelta(days=7), attribution=timedelta(days=14))
    >>> grid.name(grid.index(datetime(2014, 12, 2, tzinfo=UTC)))
    '2014-12-01'
    >>> grid.lag
    3
    """

    every: timedelta
    attribution: timedelta = timedelta(0)
    lateness: timedelta = timedelta(0)
    origin: datetime = EPOCH

    @property
    def lag(self) -> int:
        """Windows between the one being decided in and the newest state that could serve it."""
        return 1 + math.ceil((self.attribution + self.lateness) / self.every)

    def index(self, at: datetime) -> int:
        """The window that `at` falls into."""
        return (at - self.origin) // self.every

    def start(self, index: int) -> datetime:
        """The first instant of a window."""
        return self.origin + index * self.every

    def end(self, index: int) -> datetime:
        """The first instant after a window."""
        return self.start(index + 1)

    def closes_at(self, index: int) -> datetime:
        """The earliest `as_of` at which the window may be closed."""
        return self.end(index) + self.attribution + self.lateness

    def last_closed(self, as_of: datetime) -> int:
        """The newest window that may be closed at `as_of`."""
        return self.index(as_of - self.attribution - self.lateness) - 1

    def watermark(self, as_of: datetime) -> datetime:
        """The end of the newest window that may be closed at `as_of`."""
        return self.end(self.last_closed(as_of))

    def name(self, index: int) -> str:
        """A window's name: its start, to the day where days suffice, else to the second."""
        whole_days = self.every % timedelta(days=1) == timedelta(0) == (self.origin - EPOCH) % timedelta(days=1)
        return self.start(index).strftime("%Y-%m-%d" if whole_days else "%Y-%m-%dT%H%M%S")

    def parse(self, name: str) -> int:
        """The index of the window called `name`."""
        form = "%Y-%m-%d" if len(name) == len("2014-12-02") else "%Y-%m-%dT%H%M%S"
        return self.index(datetime.strptime(name, form).replace(tzinfo=UTC))
