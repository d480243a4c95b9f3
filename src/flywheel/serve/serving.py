"""What the door answers from: the ranker of the moment and where answers go, each behind a small protocol."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flywheel.errors import FlywheelError
from flywheel.events import Decision, Outcome, Request, Row

Clock = Callable[[], int]
"""Now, in microseconds since 1970 UTC."""


class Ranks(Protocol):
    """Orders candidates; a decision takes about a millisecond and is made in the loop's own thread."""

    def rank(self, request: Request, *, decision_id: str, now: int) -> Decision:
        """The ranked list and all it takes to know why; `now` in microseconds since 1970 UTC."""

    def scores(self, request: Request) -> Sequence[float]:
        """The champion's score of each candidate in order, unexplored; nothing is logged."""


class Fates(Protocol):
    """What became of what was written, in its order: "accepted", "duplicate", or "conflict": that id was another's."""

    @property
    def outcomes(self) -> Sequence[str]:
        """Of each outcome."""

    @property
    def rows(self) -> Sequence[str]:
        """Of each row."""


class Accepts(Protocol):
    """Takes events to disk, in groups, in a thread of its own."""

    def submit(
        self,
        decisions: Sequence[Decision],
        outcomes: Sequence[Outcome],
        rows: Sequence[Row],
        done: Callable[[Fates | FlywheelError], None],
    ) -> bool:
        """Queue events; False, and nothing else happens, where the queue is full.

        `done` is called once, in the writing thread: with what became of them, or with why none of it is on disk.
        """

    @property
    def waiting(self) -> int:
        """Events in the queue."""

    def close(self) -> None:
        """Write what is queued, call back, and end."""


@dataclass(frozen=True)
class Told:
    """What a ranker is: its generation (0 is the baseline), which share of users each arm has, what it looks up.

    `canary` is the generation that serves a share of people first; 0 is nobody.

    `state` is the window that features are looked up as of, and `closed` when that was over, None before there was
    one; `recipe` the fingerprint of how they are made. Times in microseconds since 1970 UTC.
    """

    generation: int
    shares: Mapping[str, float]
    state: str | None
    closed: int | None
    recipe: str
    loaded: int
    canary: int = 0


@dataclass(frozen=True)
class Served:
    """A ranker and what it is, together, so that no answer mixes two."""

    ranker: Ranks
    told: Told


class Serving:
    """The ranker that serves, when the registry was last heard of, and how often a new one came or could not.

    Any thread may call: each move is one assignment. `clock` gives now, and `new_id` an id for a decision made now.
    """

    def __init__(self, ranker: Ranks, told: Told, *, clock: Clock, new_id: Callable[[int], str] | None = None) -> None:
        self.clock, self.new_id = clock, new_id or time_ordered_id
        self.served = Served(ranker, told)
        self.looked = self.clock()
        self.reloads = {"ok": 0, "failed": 0}
        self.draining = False

    def swap(self, ranker: Ranks, told: Told) -> None:
        """Serve with another ranker from the next request on; those in flight end on the one they began with."""
        self.served = Served(ranker, told)
        self.reloads["ok"] += 1
        self.looked = self.clock()

    def staleness(self) -> float:
        """Seconds since the registry was last heard of."""
        return (self.clock() - self.looked) / 1e6

    def unchanged(self) -> None:
        """The registry was asked and names what serves already."""
        self.looked = self.clock()

    def kept(self) -> None:
        """There is a new generation and it could not be loaded; the last good one serves on."""
        self.reloads["failed"] += 1


def time_ordered_id(now: int) -> str:
    """A new id that sorts by `now`, to the microsecond: a UUID of version 7 (RFC 9562, method 3).

    >>> time_ordered_id(1_767_225_600_000_000)[:15]
    '019b76da-a800-7'
    """
    milliseconds, rest = divmod(now, 1000)
    drawn = int.from_bytes(os.urandom(8), "big")
    text = f"{milliseconds:012x}7{rest * 4096 // 1000:03x}{drawn & (1 << 62) - 1 | 1 << 63:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
