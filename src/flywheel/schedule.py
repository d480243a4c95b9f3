"""When the wheel turns by itself: the `[schedule]` section, and the instants that it means. All of it is UTC."""

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from flywheel.sections import Section
from flywheel.windows import format_duration, parse_duration

DAY = timedelta(days=1)
LEAST = timedelta(minutes=1)


def _every(value: object) -> object:
    """A duration of a minute at least, or "never"."""
    every = value if value == "never" else parse_duration(value) if isinstance(value, str) else value
    if isinstance(every, timedelta) and every < LEAST:
        raise ValueError("nothing is done more often than once a minute")
    return every


def _written(every: object) -> str:
    return format_duration(every) if isinstance(every, timedelta) else "never"


Every = Annotated[timedelta | Literal["never"], BeforeValidator(_every), PlainSerializer(_written, return_type=str)]
At = Annotated[time, PlainSerializer(lambda at: f"{at:%H:%M}", return_type=str)]


class Schedule(Section):
    """When the wheel turns by itself, in UTC; "never" leaves it to people."""

    collect: Every = Field(timedelta(hours=1), description="how often windows are closed")
    turn: Every = Field(DAY, description="how often the wheel turns")
    at: At = Field(time(3), description="when in its day the turn falls, as 03:00 UTC")
    monitor: Every = Field(timedelta(hours=1), description="how often it is seen whether the champion does harm")
    growth: float = Field(
        0.2, ge=0, description="and it turns when training rows grew by this share since the last generation; 0: not"
    )

    def anchor(self, name: str) -> datetime:
        """An instant at which a deployment is due: a turn at `at`, the monitor at half past, others on the hour."""
        hour, minute = (self.at.hour, self.at.minute) if name == "turn" else (0, 30 if name == "monitor" else 0)
        return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)

    def every(self, name: str) -> timedelta | None:
        """How often a deployment is due; None where that is left to people.

        >>> Schedule(turn="never").every("turn") is None
        True
        """
        every = getattr(self, name, None)
        return every if isinstance(every, timedelta) else None

    def next(self, name: str, after: datetime) -> datetime | None:
        """The first instant after `after` at which a deployment is due.

        >>> Schedule().next("turn", datetime(2026, 3, 29, 3, tzinfo=UTC)).isoformat()
        '2026-03-30T03:00:00+00:00'
        """
        every = self.every(name)
        if every is None:
            return None
        anchor = self.anchor(name)
        return anchor + ((after - anchor) // every + 1) * every


def grown(rows: int, before: int) -> float:
    """The share by which training rows grew since the last generation; infinite where there was none.

    >>> grown(1200, 1000)
    0.2
    """
    return (rows - before) / before if before else float("inf")
