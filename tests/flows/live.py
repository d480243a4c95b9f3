"""A small product that answers its people: its world, its workspace, and a week of it at a time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from flows import starting
from flows import turn as turning
from flows.demo import WEEK, World
from flows.products import InProcess
from flywheel.config import Config, parse
from flywheel.infer.unseen import unseen
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.simulator.society import Habits, Society, begin
from flywheel.simulator.world import Settings
from flywheel.workspace import Workspace
from tests.flows.world import QUICK

START = datetime(2026, 1, 5, tzinfo=UTC)
SETTINGS = Settings(users=90, joins_per_day=1, items=30, releases_per_day=0.5, sessions_per_day=0.3)
# Long half-lives need no windows of their own; "late" in the week a state is one that closed within it.
CHANGES: dict[str, Any] = {
    "windows": {"every": "7d", "attribution": "1d", "silence": 0},
    "train": QUICK["train"],
    "exam": {"windows": 1, "rows": 300},
    "gate": QUICK["gate"],
}


class Lived(NamedTuple):
    """A workspace that served for weeks, the last of them by a champion, and the world that it served."""

    ws: Workspace
    world: World


def config(**sections: Any) -> Config:
    made = unseen(name="live", numeric=["hour"], categorical=["device"], lists=["genres"])
    return parse(made.model_dump(mode="json", exclude_none=True) | CHANGES | sections)


def people(seed: int = 3) -> Society:
    return begin(SETTINGS, Habits(candidates=12), start=START, seed=seed)


def build(root: Path, **sections: Any) -> Workspace:
    starting.start_serving(root, config(**sections))
    return Workspace.open(root)


def turn(ws: Workspace, world: World) -> turning.Turned:
    """A turn on the morning after what was lived: the real flow, without a history."""
    with ready(Booting(fault="a test needs no history")):
        return turning.turn(ws.root, now(world), trigger="test")


def now(world: World) -> datetime:
    return world.days[-1].start + timedelta(days=1)


def live(ws: Workspace, weeks: int) -> tuple[World, list[turning.Turned]]:
    """Weeks of life, with a turn after the first day of each next one; the inbox is closed at the end."""
    product = InProcess(ws)
    world = World(people(), product)
    world.live(1)
    turned = []
    for _ in range(weeks):
        world.live(WEEK)
        turned.append(turn(ws, world))
        product.reload()
    product.close()
    return world, turned
