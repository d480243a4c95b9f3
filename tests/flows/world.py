"""A small product whose wheel turns in a second: its log, its workspace, and what a test compares of one."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from flows import deciding, inspect, starting
from flows import turn as turning
from flywheel import config as settings
from flywheel.data import dataset
from flywheel.errors import FlywheelError
from flywheel.fingerprint import sha256
from flywheel.integrations import dvc_data, mlflow_registry
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.records import Generation
from flywheel.scaffold import render
from flywheel.simulator.deliveries import write_deliveries, write_table
from flywheel.simulator.log import Log, simulate
from flywheel.simulator.world import Settings
from flywheel.workspace import Workspace

SPAN = timedelta(days=3)
START = datetime(2026, 1, 5, tzinfo=UTC)
SETTINGS = Settings(users=110, joins_per_day=2, items=30, releases_per_day=0.2, sessions_per_day=0.35)
ROLES: dict[str, Any] = {
    "timestamp": "ts",
    "label": "watched",
    "user": "user_id",
    "item": "item_id",
    "request": "request_id",
    "event_id": "event_id",
    "label_time": "watched_ts",
    "outcomes": ("minutes",),
}
QUICK: dict[str, dict[str, Any]] = {
    "windows": {"every": "3d", "attribution": "1d"},
    "features": {
        "counters": [
            {"key": ["user"]},
            {"key": ["item"], "half_lives": ["14d", "forever"]},
            {"key": ["user", "genres"], "backoff": "user"},
            {"key": ["genres"]},
        ]
    },
    "train": {
        "rounds": 40,
        "early_stopping": 0,
        "min_rows": 100,
        "min_per_class": 5,
        "params": {"max_depth": 2, "eta": 0.2},
    },
    "exam": {"windows": 1, "rows": 300},
    # promotes whatever is not clearly worse: these tests are about what moves, not about how well it is chosen
    "gate": {
        "margin": 0.9,
        "superiority": 0.5,
        "min_rows": 100,
        "min_users": 10,
        "slice_margin": 0.9,
        "max_calibration_error": 0.9,
    },
}


FIRST, SECOND = 8, 10  # windows after which generation 1 beats the baseline, and generation 2 beats it


def closes(count: int) -> datetime:
    """The instant at which so many windows may be closed."""
    return START + count * SPAN + timedelta(days=1)


@cache
def log(days: int = 36) -> Log:
    return simulate(SETTINGS, start=START, days=days, seed=4)


def days(first: int, last: int) -> pa.Table:
    """The events from one day up to and without another, counted from 0."""
    events = log().events
    day = (events["ts"].cast(pa.int64()).to_numpy() // 1_000_000 - int(START.timestamp())) // 86_400
    return events.filter(pa.array((day >= first) & (day < last)))


def put(table: pa.Table, **columns: Any) -> pa.Table:
    """The table with other columns: each an array, a value for all rows, or None to leave it out."""
    for name, value in columns.items():
        at = table.column_names.index(name) if name in table.column_names else None
        if value is None:
            table = table.drop_columns([name])
            continue
        held = value if isinstance(value, list | pa.Array | pa.ChunkedArray) else [value] * table.num_rows
        table = table.append_column(name, pa.array(held)) if at is None else table.set_column(at, name, pa.array(held))
    return table


def deliver(ws: Workspace, table: pa.Table, name: str = "more.csv") -> Path:
    """Add a file to the source."""
    path = ws.root / "log" / name
    write_table(table, path)
    return path


def found(root: Path, url: str, **given: Any) -> Workspace:
    """What `flywheel init --from` makes, with settings that turn fast."""
    starting.start(root, url, {**ROLES, **given})
    return amend(root, **QUICK)


def amend(root: Path, **sections: Mapping[str, Any] | float | bool) -> Workspace:
    """Write other settings into flywheel.toml, key by key."""
    held = Workspace.open(root).config.model_dump(mode="json", exclude_none=True)
    for name, section in sections.items():
        held[name] = {**held[name], **section} if isinstance(section, Mapping) else section
    (root / "flywheel.toml").write_text(render(settings.parse(held)), encoding="utf-8")
    return Workspace.open(root)


def rewrite(root: Path, held: dict[str, Any]) -> Workspace:
    """Write all settings."""
    (root / "flywheel.toml").write_text(render(settings.parse(held)), encoding="utf-8")
    return Workspace.open(root)


def build(root: Path) -> Workspace:
    """A workspace with a month of deliveries, a file a week, in `log/`, none of them collected."""
    write_deliveries(root / "log", days(0, 30))
    return found(root, str(root / "log" / "*"))


def copy(root: Path, target: Path) -> Workspace:
    shutil.copytree(root, target, symlinks=True)
    return Workspace.open(target)


def turn(ws: Workspace, count: int, **options: Any) -> turning.Turned:
    """A turn as of when `count` windows may be closed: the real flow, without a history."""
    with ready(Booting(fault="a test needs no history")):
        return turning.turn(ws.root, closes(count), trigger="test", **options)


def refused(ws: Workspace, error: type[FlywheelError], count: int = SECOND) -> FlywheelError:
    """What a turn is refused with; nothing of the workspace has moved."""
    before = ends(ws)
    with pytest.raises(error) as caught:
        turn(ws, count)
    assert ends(ws) == before
    told_well(f"flywheel: {caught.value}\n")
    return caught.value


def told_well(said: str) -> None:
    """A message for people: short, with the next command, and nothing of the libraries below."""
    assert len(said.splitlines()) <= 6, said
    assert said.startswith("flywheel: "), said
    assert "\n  next:  " in said, said
    for noise in ("Traceback", "prefect", "Prefect", "Finished in state", 'File "'):
        assert noise not in said, said


@dataclass(frozen=True)
class Ends:
    """All that a turn may leave behind: what a rerun must make equal."""

    files: dict[str, str]
    data: str
    generations: tuple[Any, ...]
    aliases: tuple[int, int, int]
    moves: tuple[tuple[str, int, int], ...]
    totals: str


def ends(ws: Workspace) -> Ends:
    store = deciding.open_store(ws)
    state = mlflow_registry.state(store)
    pointer = dvc_data.pointer(ws.root)
    return Ends(
        {str(p.relative_to(ws.data)): sha256(p) for p in sorted(ws.data.rglob("*")) if p.is_file()},
        pointer.md5 if pointer else "",
        tuple(_said(g) for g in inspect.generations(ws)),
        (state.champion, state.previous, state.challenger),
        tuple((m.action, m.before, m.after) for m in mlflow_registry.moves(store)),
        str(dataset.totals(ws.ledger())),
    )


def _said(made: Generation) -> tuple[Any, ...]:
    told = (made.metrics, made.baseline, made.difference, made.verdict, made.reason, made.dataset, made.turn_id)
    return (made.generation, made.train_rows, made.exam_rows, made.alias, json.dumps(made.tags["matrix_hash"]), *told)
