"""A small streaming service whose truth is known: who lives in it, what it shows, and who would watch what.

A user watches what they look at and like. They look at slot s with probability s^-0.5. They like an item when

    appeal + mood + whim > 0,    mood ~ N(0, MOOD²) once a session,    whim ~ N(0, 1) once a row

so the expected watch probability is exactly look(s) · Φ(appeal / √(1 + MOOD²)): the truth, which `World.truth`
tells. Most of the taste is for genres, which a model can count; the rest is for factors that no column shows.

A world is a value. `found` makes its first day, `World.tomorrow` the next one, with the users that join and the
items that are released on it. Each day draws from its own seeded streams, so a day is the same however long the
run is.

With `Settings.drift` tastes move: each user's taste for genres, and what a device is good for, turn by so much a day,
as a point does on a circle. Every day is as hard to know as the first, but what was learned of it goes out of date.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtr

from flywheel.schema import TIME
from flywheel.simulator.population import (
    COUNTRIES,
    DEVICES,
    GENRES,
    HIDDEN,
    Floats,
    Ints,
    Items,
    Users,
    extend,
    joining,
    releasing,
    title,
)

DAY = 86_400
MOOD = 0.5
BASE, TASTE, HIDDEN_TASTE, QUALITY, KEENNESS = -0.9, 1.0, 0.5, 0.5, 0.5
LENGTH_ON = np.array([0.4, -0.4, 0.0])  # long items are for the tv, short ones for the phone
LENGTH_THEN = np.array([1.0, 1.0, -2.0]) * 0.4 / np.sqrt(3)  # and what that is a quarter of a turn later
NEW_ITEM, NEW_USER, HOUR_OF_GENRE = 0.5, 0.3, 0.25
BEST_HOUR = np.array([21, 19, 22, 20, 21, 9, 23, 16, 20, 22])  # of each genre, local time
_QUARTER = np.repeat([-1.0, 1.0], len(GENRES) // 2)  # with halves swapped: a taste for genres, a right angle on


@dataclass(frozen=True)
class Settings:
    """The size of a world: what is there on its first day, and what a day adds."""

    users: int = 800
    joins_per_day: float = 16.0
    items: int = 240
    releases_per_day: float = 1.0
    sessions_per_day: float = 0.15  # of a user
    shelf: int = 6  # items a session is shown
    drift: float = 0.0  # of tastes, in radians a day

    def __post_init__(self) -> None:
        if min(self.users, self.shelf) < 1 or self.items < self.shelf:
            raise ValueError(f"a world needs a user and as many items as a shelf holds: {self}")
        if min(self.joins_per_day, self.releases_per_day, self.sessions_per_day) < 0:
            raise ValueError(f"a world cannot shrink: {self}")


@dataclass(frozen=True)
class World:
    """A world on one of its days: everyone who joins and everything that is released up to its end."""

    settings: Settings
    start: datetime
    seed: int
    day: int
    users: Users
    items: Items

    def tomorrow(self, invited: float = 0.0) -> "World":
        """The same world a day later; `invited` is how many more than `joins_per_day` are expected to join."""
        day = self.day + 1
        begin = day * DAY
        rng, other = self.stream(day, "users"), self.stream(day, "items")
        joined = np.sort(begin + rng.integers(0, DAY, rng.poisson(self.settings.joins_per_day + invited)))
        released = np.full(other.poisson(self.settings.releases_per_day), begin)
        return replace(
            self,
            day=day,
            users=extend(self.users, joining(rng, joined)),
            items=extend(self.items, releasing(other, released)),
        )

    def stream(self, day: int, purpose: str) -> np.random.Generator:
        """The random numbers of one day for one purpose; the same however long the run is."""
        return _stream(self.seed, day, purpose)

    def hour(self, user: Ints, at: Ints) -> Ints:
        """The local hour, 0 to 23, at which these users live at `at` seconds since the start."""
        ahead = np.array(list(COUNTRIES.values()))[self.users.country[user]]
        return np.asarray((at // 3600 + ahead) % 24)

    def taste(self, user: Ints, at: Ints) -> Floats:
        """How much users like each genre at a time, the arguments' shape × GENRES."""
        return self._turned(self.users.taste[user], self._taste_then[user], np.asarray(at)[..., None])

    def appeal(self, user: Ints, item: Ints, *, device: Ints, at: Ints) -> Floats:
        """How much users like items on a device at a time, on the scale of a whim; arguments broadcast."""
        users, items = self.users, self.items
        taste = np.einsum("...g,...g->...", self.taste(user, at), items.genres[item])
        hidden = np.einsum("...f,...f->...", users.hidden[user], items.hidden[item]) / np.sqrt(HIDDEN)
        length_on = self._turned(LENGTH_ON[device], LENGTH_THEN[device], at)
        fit = length_on * (items.length[item] - 60) / 40
        off = (self.hour(user, at)[..., None] - BEST_HOUR) * (np.pi / 12)
        at_hour = np.einsum("...g,...g->...", np.cos(off), items.genres[item])
        new_item = np.exp(-np.maximum(at - items.released[item], 0) / (10 * DAY))
        new_user = np.exp(-np.maximum(at - users.joined[user], 0) / (7 * DAY))
        return np.asarray(
            BASE + TASTE * taste + HIDDEN_TASTE * hidden + QUALITY * items.quality[item]
            + KEENNESS * users.keenness[user] + fit + HOUR_OF_GENRE * at_hour
            + NEW_ITEM * new_item + NEW_USER * new_user
        )  # fmt: skip

    def truth(self, user: Ints, item: Ints, *, position: Ints, device: Ints, at: Ints) -> Floats:
        """The expected probability that users watch items in slots from 1 on; arguments broadcast.

        `device` indexes DEVICES, `at` is in seconds since the start. The mean over what a policy shows is its
        expected reward.
        """
        liked = ndtr(self.appeal(user, item, device=device, at=at) / np.sqrt(1 + MOOD**2))
        return np.asarray(look(position) * liked)

    def truth_of(self, events: pa.Table) -> Floats:
        """The truth of every row of a log of this world; the world must have lived as long as the log."""
        at = (events["ts"].cast(pa.int64()).to_numpy() // 1_000_000) - int(self.start.timestamp())
        return self.truth(
            _index(events["user_id"]),
            _index(events["item_id"]),
            position=events["position"].to_numpy().astype(np.int64),
            device=pc.index_in(events["device"], pa.array(DEVICES)).to_numpy().astype(np.int64),
            at=at,
        )

    @cached_property
    def _taste_then(self) -> Floats:
        """Each user's taste a quarter of a turn after the start."""
        return np.asarray(np.concatenate(np.split(self.users.taste, 2, -1)[::-1], -1) * _QUARTER)

    def _turned(self, first: Floats, quarter: Floats, at: Ints) -> Floats:
        """What was `first` at the start, and is `quarter` a quarter of a turn later."""
        if not self.settings.drift:
            return first
        angle = self.settings.drift * at / DAY
        return np.asarray(np.cos(angle) * first + np.sin(angle) * quarter)

    @cached_property
    def user_ids(self) -> pa.Array:
        """`u000000` and on, by index."""
        return pa.array([f"u{n:06d}" for n in range(len(self.users.joined))], pa.string())

    @cached_property
    def item_ids(self) -> pa.Array:
        """`i0000` and on, by index."""
        return pa.array([f"i{n:04d}" for n in range(len(self.items.released))], pa.string())

    @cached_property
    def genre_names(self) -> pa.Array:
        """Each item's genres as the product writes them: `Action|Comedy`."""
        names = ["|".join(GENRES[g] for g in np.flatnonzero(row)) for row in self.items.genres]
        return pa.array(names, pa.string())

    def moments(self, at: Ints) -> Ints:
        """Seconds since the start as microseconds since 1970 UTC."""
        return np.asarray((at + int(self.start.timestamp())) * 1_000_000)

    def times(self, at: Ints) -> pa.Array:
        """Seconds since the start as UTC timestamps."""
        return pa.array(self.moments(at), pa.int64()).cast(TIME)

    def user_table(self) -> pa.Table:
        """Users as the product knows them: `user_id, joined, country`."""
        country = pa.array(list(COUNTRIES)).take(pa.array(self.users.country))
        return pa.table({"user_id": self.user_ids, "joined": self.times(self.users.joined), "country": country})

    def item_table(self) -> pa.Table:
        """Items as the product knows them: `item_id, title, genres, length, released`; length in minutes."""
        return pa.table({
            "item_id": self.item_ids,
            "title": pa.array([title(n) for n in range(len(self.items.length))], pa.string()),
            "genres": self.genre_names,
            "length": pa.array(self.items.length, pa.int32()),
            "released": self.times(self.items.released),
        })  # fmt: skip


def found(settings: Settings, *, start: datetime, seed: int) -> World:
    """A world on its first day. The same settings, start and seed make the same world.

    >>> from datetime import UTC
    >>> world = found(Settings(users=3, items=6), start=datetime(2026, 1, 5, tzinfo=UTC), seed=1)
    >>> world.item_table().column_names
    ['item_id', 'title', 'genres', 'length', 'released']
    >>> len(world.tomorrow().users.joined) >= len(world.users.joined) == 3
    True

    Raises:
        ValueError: `start` is not a midnight in UTC, or the seed is negative.
    """
    if start.utcoffset() != timedelta(0) or int(start.timestamp()) % DAY or start.microsecond:
        raise ValueError(f"a world starts at a midnight in UTC, not at {start}")
    rng, other = _stream(seed, 0, "users"), _stream(seed, 0, "items")
    joined = np.sort(-rng.integers(1, 365 * DAY, settings.users))
    released = np.sort(-DAY * other.integers(0, 1500, settings.items))
    return World(settings, start, seed, 0, joining(rng, joined), releasing(other, released))


def look(position: Ints) -> Floats:
    """The probability of looking at a slot, counted from 1.

    >>> look(np.array([1, 4]))
    array([1. , 0.5])
    """
    return np.asarray(np.asarray(position, np.float64) ** -0.5)


def _index(ids: Any) -> Ints:
    return np.asarray(pc.utf8_slice_codeunits(ids, 1).cast(pa.int64()).to_numpy())


def _stream(seed: int, day: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, day, *purpose.encode()])
