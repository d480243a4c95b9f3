"""The people of a world and what the product's lists do to them: they remember, they leave, they tell others.

Every visit gives something: the number of items on its list that were watched. A user remembers an exponentially
weighted mean of that, the satisfaction S. At the end of a day on which they came,

    they leave for good with probability leave · exp(-S / patience),
    else they tell others how far S is above what they had hoped for: telling · max(0, S - hope) of these are
    expected to join tomorrow.

A society is a value, as its world is: `begin` makes its first day, `live_day` asks the product what to show, and
gives what came of it and the society of the next day. What the product is, a society cannot know: only the lists
count. As for a world, each day draws from its own seeded streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, TypedDict

import numpy as np

from flywheel.events import Candidate, Request
from flywheel.simulator.log import Sessions, draw, visits, watch
from flywheel.simulator.population import DEVICES, GENRES, Floats, Ints
from flywheel.simulator.post import post
from flywheel.simulator.product import Answer, Arrival, Ask, Rank
from flywheel.simulator.world import DAY, Settings, World, found


@dataclass(frozen=True)
class Habits:
    """How people take what they are shown, and what becomes of their outcomes on the way."""

    candidates: int = 40  # items drawn at random for each visit, of which the product shows the best
    hope: float = 2.0  # the satisfaction that someone comes with
    memory: float = 0.15  # weight of the newest visit in it
    leave: float = 0.15  # probability of leaving after a day, at satisfaction 0
    patience: float = 1.0  # satisfaction at which that is smaller by the factor e
    telling: float = 0.5  # who joins, for each visitor of a day and unit of satisfaction above hope
    lost: float = 0.01  # outcomes that never arrive
    twice: float = 0.01  # outcomes that arrive twice

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.patience <= 0:
            raise ValueError(f"people choose among some candidates, and have some patience: {self}")
        if not all(0 <= share <= 1 for share in (self.memory, self.leave, self.lost, self.twice)):
            raise ValueError(f"memory, leave, lost and twice are shares: {self}")
        if min(self.hope, self.telling) < 0:
            raise ValueError(f"hope and telling are not negative: {self}")


@dataclass(frozen=True)
class Figures:
    """What a span of days came to: people at its end, what happened in it, and what was to be expected of its lists."""

    start: datetime
    active: int
    joined: int
    left: int
    visits: int
    rows: int
    watched: int
    expected: float  # watched rows that the truth expects of these lists

    @property
    def watch_rate(self) -> float:
        """The share of rows that was watched; NaN where nothing was shown."""
        return self.watched / self.rows if self.rows else float("nan")

    @property
    def reward(self) -> float:
        """The expected watch rate of what was shown: the truth; NaN where nothing was shown."""
        return self.expected / self.rows if self.rows else float("nan")


class Day(NamedTuple):
    """A day as it was lived: what was asked and answered, the outcomes on their way, and its figures."""

    asks: list[Ask]
    answers: list[Answer]
    arrivals: list[Arrival]
    figures: Figures


@dataclass(frozen=True)
class Society:
    """The people of a world on the morning of its day: how satisfied each is, and who has left (by index, sorted)."""

    world: World
    habits: Habits
    satisfaction: Floats
    left: Ints

    @cached_property
    def sessions(self) -> Sessions:
        """Who comes on this day, when and on which device."""
        return visits(self.world, self.left)

    @cached_property
    def asks(self) -> list[Ask]:
        """What the product is asked on this day, in order of time."""
        world, sessions = self.world, self.sessions
        catalogue = _catalogue(world)
        among = min(self.habits.candidates, len(catalogue))
        drawn = draw(world.stream(world.day, "candidates"), (len(sessions.user), among), len(catalogue))
        users = world.user_ids.take(sessions.user).to_pylist()
        hours = world.hour(sessions.user, sessions.at).tolist()
        devices = [DEVICES[device] for device in sessions.device.tolist()]
        return [
            Ask(ts, Request(user, tuple(catalogue[i] for i in row), {"device": device, "hour": hour}, k))
            for ts, user, row, device, hour, k in zip(
                world.moments(sessions.at).tolist(),
                users,
                drawn.tolist(),
                devices,
                map(float, hours),
                [world.settings.shelf] * len(users),
                strict=True,
            )
        ]

    def shown(self, answers: Sequence[Answer]) -> Ints:
        """The items of these answers by index, sessions × slots.

        Raises:
            ValueError: an answer shows other than what was asked for: as many items as a shelf holds, all of them
                candidates.
        """
        for ask, answer in zip(self.asks, answers, strict=True):
            asked, k = {candidate.item for candidate in ask.request.candidates}, ask.request.k
            if not len(set(answer.items) & asked) == len(answer.items) == k:
                raise ValueError(f"{answer.decision} shows {answer.items}, asked for {k} of {sorted(asked)}")
        items = [[int(item[1:]) for item in answer.items] for answer in answers]
        return np.array(items, np.int64).reshape(len(items), self.world.settings.shelf)

    def expected(self, items: Ints) -> Floats:
        """The probability that each item of these lists is watched, sessions × slots: the truth of any policy."""
        sessions = self.sessions
        user, device, at = (column[:, None] for column in (sessions.user, sessions.device, sessions.at))
        return self.world.truth(user, items, position=np.arange(1, items.shape[1] + 1), device=device, at=at)


class Example(TypedDict):
    """The arguments of `begin`."""

    settings: Settings
    habits: Habits
    start: datetime
    seed: int


def closed_example() -> Example:
    """The world of the demo.

    >>> closed_example()["settings"].shelf
    6
    """
    settings = Settings(users=300, joins_per_day=1.0, items=300, releases_per_day=3.0, sessions_per_day=0.2)
    return Example(settings=settings, habits=Habits(), start=datetime(2026, 1, 5, tzinfo=UTC), seed=7)


def begin(settings: Settings, habits: Habits, *, start: datetime, seed: int) -> Society:
    """A society on its first day. The same arguments make the same society.

    Raises:
        ValueError: `start` is not a midnight in UTC, the seed is negative, or candidates do not fill a shelf.
    """
    if habits.candidates < settings.shelf:
        raise ValueError(f"{habits.candidates} candidates do not fill a shelf of {settings.shelf}")
    world = found(settings, start=start, seed=seed)
    return Society(world, habits, np.full(settings.users, habits.hope), np.empty(0, np.int64))


def live_day(society: Society, rank: Rank) -> tuple[Day, Society]:
    """Let the day pass: the product answers whoever comes; and the society on the next morning.

    >>> from flywheel.simulator.product import shuffle
    >>> day, society = live_day(begin(**closed_example()), shuffle(seed=1))
    >>> day.figures.visits == len(day.asks) == len(day.answers), society.world.day
    (True, 1)

    Raises:
        ValueError: an answer shows other than what was asked for.
    """
    answers = list(rank(society.asks))
    items = society.shown(answers)
    world, habits, at = society.world, society.habits, society.sessions.at
    watched, delays, _ = watch(world, society.sessions, items)
    arrivals = post(world, at, answers, watched=watched, delays=delays, lost=habits.lost, twice=habits.twice)
    tomorrow, leaving = _overnight(society, watched.sum(axis=1))
    figures = Figures(
        start=world.start + timedelta(days=world.day),
        active=len(society.satisfaction) - len(tomorrow.left),
        joined=int((world.users.joined >= world.day * DAY).sum()),
        left=leaving,
        visits=len(answers),
        rows=items.size,
        watched=int(watched.sum()),
        expected=float(society.expected(items).sum()),
    )
    return Day(society.asks, answers, arrivals, figures), tomorrow


def history(days: Sequence[Figures], every: int = 7) -> list[Figures]:
    """The figures of each span of `every` days, the last one perhaps shorter."""
    spans = [days[at : at + every] for at in range(0, len(days), every)]
    return [
        Figures(
            start=span[0].start,
            active=span[-1].active,
            joined=sum(day.joined for day in span),
            left=sum(day.left for day in span),
            visits=sum(day.visits for day in span),
            rows=sum(day.rows for day in span),
            watched=sum(day.watched for day in span),
            expected=sum(day.expected for day in span),
        )
        for span in spans
    ]


def _catalogue(world: World) -> list[Candidate]:
    genres = [[GENRES[g] for g in np.flatnonzero(row)] for row in world.items.genres]
    return [Candidate(item, {"genres": names}) for item, names in zip(world.item_ids.to_pylist(), genres, strict=True)]


def _overnight(society: Society, gave: Ints) -> tuple[Society, int]:
    """The society on the next morning, and how many left this evening."""
    world, habits, user = society.world, society.habits, society.sessions.user
    satisfaction = _remembered(society.satisfaction, user, gave, habits.memory)
    came = np.unique(user)
    chance = habits.leave * np.exp(-satisfaction[came] / habits.patience)
    leaving = world.stream(world.day, "leaving").random(len(satisfaction))[came] < chance
    beyond = np.maximum(satisfaction[came[~leaving]] - habits.hope, 0)
    world = world.tomorrow(habits.telling * float(beyond.sum()))
    newcomers = np.full(len(world.users.joined) - len(satisfaction), habits.hope)
    left = np.union1d(society.left, came[leaving])
    tomorrow = replace(society, world=world, satisfaction=np.concatenate([satisfaction, newcomers]), left=left)
    return tomorrow, int(leaving.sum())


def _remembered(satisfaction: Floats, user: Ints, gave: Ints, memory: float) -> Floats:
    """Satisfaction after these visits, taken one after the other."""
    after = satisfaction.copy()
    order = np.argsort(user, kind="stable")
    starts = np.searchsorted(user[order], user[order])
    nth = np.empty(len(user), np.int64)
    nth[order] = np.arange(len(user)) - starts
    for turn in range(int(nth.max(initial=-1)) + 1):
        now = nth == turn
        after[user[now]] += memory * (gave[now] - after[user[now]])
    return after
