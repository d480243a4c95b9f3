"""The closed loop from an empty workspace: a simulated product turns its wheel, beside two worlds that do not.

All three worlds have the same people, items and seed. In the first the wheel turns: every turn's champion serves. In
the second the model stays the first champion, while its windows go on closing and what it looks up stays fresh. The
third shows a random shelf. Nothing in the simulator knows which world it is in.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from flows import inspect, show, starting
from flows.products import InProcess, OverHttp
from flows.progress import listening, tell
from flows.run import Watch, tell_note
from flywheel.config import Config, parse
from flywheel.errors import ConfigError
from flywheel.events import Outcome
from flywheel.found import PAGE
from flywheel.infer.unseen import unseen
from flywheel.integrations import prefect_api
from flywheel.measure.picture import quality_against_data, worlds_apart
from flywheel.simulator.product import Answer, Arrival, Ask, due, shuffle
from flywheel.simulator.society import Figures, Society, begin, closed_example, history, live_day
from flywheel.workspace import Workspace

MARK = ".flywheel-demo"  # only a folder with this file in it is ever cleared
WEEK = 7
WHEEL, FROZEN, RANDOM = "the wheel", "frozen", "random shelf"
SECOND = 1_000_000  # microseconds


class Product(Protocol):
    """What a world's people use."""

    def __call__(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        """Answer one day's asks."""

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        """Take in what came of it."""

    def reload(self) -> None:
        """Serve what the registry says now."""

    def close(self) -> None:
        """Let go of what is held."""


@dataclass(frozen=True)
class Shuffled:
    """A product that shows a random shelf, and learns nothing."""

    seed: int

    def __call__(self, asks: Sequence[Ask]) -> Sequence[Answer]:
        """Answer one day's asks."""
        return shuffle(self.seed)(asks)

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        """Nobody listens."""

    def reload(self) -> None:
        """Nothing is served that could change."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class World:
    """One of the worlds as it goes on: its people, the product they use, and what has come of it so far."""

    society: Society
    product: Product
    waiting: list[Arrival] = field(default_factory=list)
    days: list[Figures] = field(default_factory=list)

    def live(self, days: int) -> None:
        """Let so many days pass; outcomes reach the product on the day on which they arrive."""
        for _ in range(days):
            day, self.society = live_day(self.society, self.product)
            self.days.append(day.figures)
            midnight = int((day.figures.start + timedelta(days=1)).timestamp()) * SECOND
            arrived, self.waiting = due([*self.waiting, *day.arrivals], midnight)
            self.product.receive([arrival.outcome for arrival in arrived])

    def fork(self, product: Product) -> "World":
        """The same world, from here on with another product."""
        return World(self.society, product, list(self.waiting), list(self.days))

    @property
    def weeks(self) -> list[Figures]:
        """The figures of every whole week."""
        return history(self.days[: len(self.days) // WEEK * WEEK], WEEK)


def demo_config() -> Config:
    """The `flywheel.toml` of the demo's product: what init proposes, with small models, for it is a small product."""
    proposed = unseen(name="streaming", numeric=["hour"], categorical=["device"], lists=["genres"])
    values = proposed.model_dump(mode="json", exclude_none=True)
    for counter in values["features"]["counters"]:
        counter["half_lives"] = ["forever"]  # nobody's taste changes in this world
    values["train"] |= {
        "rounds": 150,
        "early_stopping": 25,
        "min_rows": 2000,
        "params": {**values["train"]["params"], "max_depth": 4, "eta": 0.15},
    }
    values["gate"] |= {"margin": 0.005, "max_calibration_error": 0.08}  # exams of 2,000 rows cannot tell less
    return parse(values)


def run_demo(
    folder: Path,
    turns: int,
    seed: int,
    *,
    http: bool,
    say: Callable[[str], None],
    show_it: Callable[[object], None],
    on_progress: Watch,
) -> None:
    """Live the three worlds side by side, turn the wheel of the first every week, and draw what came of it.

    Raises:
        ConfigError: the folder holds something that is not an earlier demo.
    """
    clear(folder)
    booting = prefect_api.boot(folder / "wheel")
    starting.start_serving(folder / "wheel", demo_config())
    ws = Workspace.open(folder / "wheel")
    given = closed_example()
    given["seed"] = seed
    world = begin(**given)
    product = OverHttp if http else InProcess
    worlds = {WHEEL: World(world, product(ws)), RANDOM: World(world, Shuffled(seed))}
    say(f"Three worlds with the same {world.world.settings.users:,} people and the same seed.\n")
    with prefect_api.ready(booting) as prefect, on_progress() as listener, listening(listener):
        tell_note(prefect)
        for one in worlds.values():
            one.live(1)
        for week in range(turns):
            for one in worlds.values():
                one.live(WEEK)
            said = _turn(ws, worlds, folder / "frozen", product)
            say(_line(week, worlds, said))
            tell("turns", week + 1, turns)
    for one in worlds.values():
        one.product.close()
    _end(ws, worlds, folder, say, show_it)


def _turn(ws: Workspace, worlds: dict[str, World], frozen: Path, product: Callable[[Workspace], Product]) -> str:
    """Turn the wheel, and close the frozen world's windows; the frozen world begins when there is a first champion."""
    from flows.turn import collect_only, turn  # Prefect reads its settings at its first import

    wheel = worlds[WHEEL]
    as_of = wheel.days[-1].start + timedelta(days=1)
    if FROZEN in worlds:
        collect_only(frozen, as_of)
        worlds[FROZEN].product.reload()
    turned = turn(ws.root, as_of, trigger="demo")
    wheel.product.reload()
    if FROZEN not in worlds and turned.status == "promoted":
        shutil.copytree(ws.root, frozen, ignore=shutil.ignore_patterns("prefect", "lock", "lock.json"))
        worlds[FROZEN] = wheel.fork(product(Workspace.open(frozen)))
    number = f"generation {turned.generation} " if turned.generation and turned.status != "skipped" else ""
    return f"{number}{turned.status}: {turned.reason}"


def _line(week: int, worlds: dict[str, World], said: str) -> str:
    now = worlds[WHEEL].weeks[week]
    return f"week {week + 1:2}  {now.active:6,} users {now.rows:7,} rows {now.watch_rate:6.1%} watched  {said}"


def _end(
    ws: Workspace,
    worlds: dict[str, World],
    folder: Path,
    say: Callable[[str], None],
    show_it: Callable[[object], None],
) -> None:
    """The table, the pictures, and where to look next."""
    weeks = {name: worlds[name].weeks for name in (WHEEL, FROZEN, RANDOM) if name in worlds}
    made = inspect.generations(ws)
    say("")
    show_it(show.worlds(weeks))
    picture = folder / "three-worlds.png"
    worlds_apart(
        {
            name: {
                "users": [week.active for week in lived],
                "rows a week": [week.rows for week in lived],
                "share watched": [week.watch_rate for week in lived],
            }
            for name, lived in weeks.items()
        },
        "the wheel: what passes the gate serves next · frozen: the first champion serves on, from fresh state · "
        "random shelf: nothing is learned",
        picture,
    )
    quality_against_data(made, ws.config.metric, ws.config.product.name, folder / "quality-against-data.png")
    last = max(g.generation for g in made) if made else 1
    say(f"\nThe picture: {picture}")
    say(f"The page:    {ws.cache / PAGE}")
    say(f"Look on:     flywheel -C {ws.root} status        what became of every decision and outcome")
    say(f"             flywheel -C {ws.root} ui            quality against data, in MLflow's own chart")
    say(f"             flywheel -C {ws.root} explain {last}     where a generation came from, and why")
    say(f"             flywheel -C {ws.root} serve         answer people with the champion")


def clear(folder: Path) -> None:
    """Begin with an empty folder; an earlier demo is removed, anything else is left alone.

    Raises:
        ConfigError: the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise ConfigError(f"{folder} is not empty, and not an earlier demo", next="flywheel demo ANOTHER_FOLDER")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
