"""What a world's users do, as the product would log it: sessions, what a shelf shows them, what they watch.

The shelf is an argument: `random_shelf` here; a ranker, or an oracle that reads the truth, has the same
signature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.simulator.population import DEVICES, Floats, Ints
from flywheel.simulator.world import DAY, MOOD, Settings, World, found, look

ATTRIBUTION = timedelta(days=1)  # silence for so long means: not watched
_DELAY_MINUTES, _DELAY_SPREAD = 40.0, 1.3  # median, and sigma of its logarithm


@dataclass(frozen=True)
class Sessions:
    """The sessions of one day in order of time: who, when (seconds since the start), on which device."""

    user: Ints
    at: Ints
    device: Ints


Shelf = Callable[[World, Sessions, np.random.Generator], tuple[Ints, Floats]]
"""Chooses what each session is shown: (items, propensities), each sessions × slots, the best slot first.

A propensity is the probability with which this item is on this session's shelf, in whichever slot.
"""


class Log(NamedTuple):
    """The three tables a product would hand over; see `simulate`."""

    events: pa.Table
    items: pa.Table
    users: pa.Table


class Example(TypedDict):
    """The arguments of `simulate`."""

    settings: Settings
    start: datetime
    days: int
    seed: int


def example() -> Example:
    """The example product: eight weeks, about 60,000 rows.

    >>> example()["days"]
    56
    """
    return Example(settings=Settings(), start=datetime(2026, 1, 5, tzinfo=UTC), days=56, seed=7)


def simulate(settings: Settings, *, start: datetime, days: int, seed: int, shelf: Shelf | None = None) -> Log:
    """A log of `days` days. The same arguments give the same bytes; a longer run begins with the shorter one.

    Events, ordered by time: `event_id, ts, request_id, user_id, item_id, position` (from 1), `device, hour`
    (local), `genres` (`A|B`), `propensity` (of being on the shelf), `watched, watched_ts, minutes`. What was not
    watched is 0 from `ts` + ATTRIBUTION on, so that the log can be imported as history; `unanswered` takes that
    back. `minutes` is an outcome. Items: `item_id, title, genres, length, released`. Users: `user_id, joined,
    country`.

    >>> log = simulate(Settings(users=20, items=12), start=datetime(2026, 1, 5, tzinfo=UTC), days=2, seed=1)
    >>> log.events.column_names[:5]
    ['event_id', 'ts', 'request_id', 'user_id', 'item_id']
    """
    events, world = live(found(settings, start=start, seed=seed), days=days, shelf=shelf or random_shelf)
    return Log(events, world.item_table(), world.user_table())


def live(world: World, *, days: int, shelf: Shelf) -> tuple[pa.Table, World]:
    """Let `days` days pass, from the world's own day on: their events, and the world on the last of them.

    The world that comes back knows the truth of all these events. To go on, hand in its `tomorrow()`.

    Raises:
        ValueError: `days` is not positive.
    """
    if days < 1:
        raise ValueError(f"a run takes at least a day, not {days}")
    tables = [live_day(world, shelf)]
    for _ in range(days - 1):
        world = world.tomorrow()
        tables.append(live_day(world, shelf))
    return pa.concat_tables(tables), world


def live_day(world: World, shelf: Shelf) -> pa.Table:
    """The events of the world's day."""
    sessions = visits(world)
    items, propensity = shelf(world, sessions, world.stream(world.day, "shelf"))
    return _events(world, sessions, items, propensity)


def visits(world: World, left: Ints | None = None) -> Sessions:
    """The sessions of the world's day, none by users who `left`; whoever joins on it comes at that very moment."""
    rng = world.stream(world.day, "sessions")
    users, begin = world.users, world.day * DAY
    regular = np.flatnonzero(users.joined < begin)
    regular = regular if left is None else np.setdiff1d(regular, left)
    user = np.repeat(regular, rng.poisson(world.settings.sessions_per_day * users.activity[regular]))
    local = np.rint(rng.normal(users.peak_hour[user], 3)).astype(np.int64)
    ahead = world.hour(user, np.full(len(user), begin))  # the local hour of midnight in UTC
    at = begin + (local - ahead) % 24 * 3600 + rng.integers(0, 3600, len(user))
    newcomers = np.flatnonzero(users.joined >= begin)
    user, at = np.concatenate([user, newcomers]), np.concatenate([at, users.joined[newcomers]])
    order = np.lexsort((user, at))
    user, at = user[order], at[order]
    device = (rng.random((len(user), 1)) > users.devices[user].cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Sessions(user, at, device)


def random_shelf(world: World, sessions: Sessions, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Every released item is equally likely in every slot, none twice."""
    released, slots = len(world.items.released), world.settings.shelf
    items = draw(rng, (len(sessions.user), slots), released)
    return items, np.full(items.shape, slots / released)


def draw(rng: np.random.Generator, shape: tuple[int, int], among: int) -> Ints:
    """Numbers below `among` in uniformly random order, none twice in a row of the result.

    Source: R. W. Floyd's sampling without replacement (J. Bentley, "Programming pearls: a sample of
    brilliance", CACM 30(9), 1987), for all rows at once; its order is not uniform, hence the permutation.
    """
    drawn = np.empty(shape, np.int64)
    for place, top in enumerate(range(among - shape[1], among)):
        number = rng.integers(0, top + 1, len(drawn))
        taken = (drawn[:, :place] == number[:, None]).any(axis=1)
        drawn[:, place] = np.where(taken, top, number)
    return rng.permuted(drawn, axis=1)


def unanswered(events: pa.Table) -> pa.Table:
    """The same log before silence speaks: no label and no label time where nothing was watched.

    >>> events = simulate(**example() | {"days": 1}).events
    >>> sorted(pc.unique(unanswered(events)["watched"]).to_pylist(), key=str)
    [1, None]
    """
    heard = pc.equal(events["watched"], 1)
    for name in ("watched", "watched_ts"):
        column = pc.if_else(heard, events[name], pa.scalar(None, events.schema.field(name).type))
        events = events.set_column(events.column_names.index(name), name, column)
    return events


def _events(world: World, sessions: Sessions, items: Ints, propensity: Floats) -> pa.Table:
    requests, slots = items.shape
    watched, known_after, minutes = watch(world, sessions, items)
    request = np.repeat(np.arange(requests), slots)
    position = np.tile(np.arange(1, slots + 1, dtype=np.int32), requests)
    user, at, device = sessions.user[request], sessions.at[request], sessions.device[request]
    item = pa.array(items.ravel())
    names = pa.array([f"r{world.day:04d}-{n:06d}" for n in range(requests)], pa.string())
    request_id = names.take(pa.array(request))
    return pa.table({
        "event_id": pc.binary_join_element_wise(request_id, pa.array(position).cast(pa.string()), "-"),
        "ts": world.times(at),
        "request_id": request_id,
        "user_id": world.user_ids.take(pa.array(user)),
        "item_id": world.item_ids.take(item),
        "position": position,
        "device": pa.array(DEVICES).take(pa.array(device)),
        "hour": world.hour(user, at).astype(np.int32),
        "genres": world.genre_names.take(item),
        "propensity": propensity.ravel(),
        "watched": watched.ravel().astype(np.int32),
        "watched_ts": world.times(at + known_after.ravel()),
        "minutes": minutes.ravel().astype(np.int32),
    })  # fmt: skip


def watch(world: World, sessions: Sessions, items: Ints) -> tuple[Ints, Ints, Ints]:
    """Watched or not, seconds until that is known, minutes watched: each sessions × slots, as the items shown."""
    rng = world.stream(world.day, "outcomes")
    slots = np.arange(1, items.shape[1] + 1)
    user, at, device = sessions.user[:, None], sessions.at[:, None], sessions.device[:, None]
    mood = rng.normal(0, MOOD, (len(items), 1))
    liked = world.appeal(user, items, device=device, at=at) + mood + rng.normal(size=items.shape) > 0
    watched = liked & (rng.random(items.shape) < look(slots))
    share = rng.beta(4, 1.5, items.shape)
    minutes = np.where(watched, np.ceil(share * world.items.length[items]), 0).astype(np.int64)
    known_after = np.where(watched, _delays(rng, items.shape), int(ATTRIBUTION.total_seconds()))
    return watched.astype(np.int64), known_after, minutes


def _delays(rng: np.random.Generator, shape: tuple[int, ...]) -> Ints:
    """Seconds from being shown to being known as watched: log-normal, at most ATTRIBUTION."""
    seconds = rng.lognormal(np.log(60 * _DELAY_MINUTES), _DELAY_SPREAD, shape).astype(np.int64)
    return np.clip(seconds, 60, int(ATTRIBUTION.total_seconds()) - 1)
