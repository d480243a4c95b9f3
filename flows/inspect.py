"""What people ask of a workspace: where it stands, which generations it has, where one came from."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import deciding, replaying
from flows.standing import Status as Status
from flows.standing import status as status
from flywheel import trial
from flywheel.data import dataset
from flywheel.errors import ConfigError
from flywheel.integrations import mlflow_registry, mlflow_tracking
from flywheel.records import Finding, Generation, Move
from flywheel.sources.spool import Spool
from flywheel.trial import Trial
from flywheel.workspace import Workspace

TABLE_KEYS = ("generation", "as_of", "train_rows", "train_users", "exam_rows", "metrics", "verdict", "reason", "alias")


@dataclass(frozen=True)
class Closed:
    """What windows that were just closed came to, and why rows were quarantined, the most frequent reason first."""

    windows: int
    totals: dataset.Totals
    reasons: dict[str, int]


@dataclass(frozen=True)
class Ahead:
    """What a turn would do with what is in the inbox already; deliveries not yet taken may add to it."""

    windows: list[str]
    events: int
    champion: int


@dataclass(frozen=True)
class Explained:
    """Where a generation came from, and why it was decided as it was."""

    generation: Generation
    findings: list[Finding]
    importance: dict[str, float]
    moves: list[Move]
    trial: Trial


@dataclass(frozen=True)
class Compared:
    """Two generations side by side: what differs between them, by name."""

    a: int
    b: int
    differences: dict[str, tuple[Any, Any]]


def ahead(ws: Workspace, as_of: datetime) -> Ahead:
    """What a turn at `as_of` would close; nothing is read from the source, and nothing is written."""
    grid = ws.config.windows.grid
    ledger = ws.ledger()
    consumed = frozenset(shard for line in ledger for shard in line.shards)
    waiting = Spool(ws.inbox, grid).still_open(consumed)
    known = [grid.parse(line.window) + 1 for line in ledger[-1:]] or [grid.parse(name) for name in waiting][:1]
    windows = [grid.name(w) for first in known for w in range(first, grid.last_closed(as_of) + 1)]
    events = sum(count for name, count in waiting.items() if grid.parse(name) <= grid.last_closed(as_of))
    return Ahead(windows, events, deciding.champion(ws))


def closed(ws: Workspace, count: int) -> Closed:
    """The newest `count` closed windows together."""
    lines = ws.ledger()[-count:] if count else ()
    held = [dataset.read_quarantine(ws.data, line.window) for line in lines if line.quarantined]
    reasons = [reason for table in held if table for row in table.column("reasons").to_pylist() for reason in row]
    against = Counter(reason.partition(": ")[0] for reason in reasons)  # what follows is the row's own value
    return Closed(len(lines), dataset.totals(lines), dict(against.most_common()))


def generations(ws: Workspace) -> list[Generation]:
    """Every generation, by number."""
    return mlflow_tracking.generations(deciding.open_store(ws))


def as_json(made: Generation) -> dict[str, Any]:
    """A generation as `--json` tells it."""
    told = dict(made.__dict__) | {"difference": made.difference.__dict__ if made.difference else None}
    return {key: told[key] for key in (*TABLE_KEYS, "dataset")} | told


def findings(ws: Workspace, made: Generation) -> list[dict[str, Any]]:
    """The evidence of a generation's verdict, as a table."""
    found: list[dict[str, Any]] = json.loads(mlflow_tracking.artifact(deciding.open_store(ws), made, "findings.json"))
    return found


def explain(ws: Workspace, number: int) -> Explained:
    """From which rows, by which code, to which decision and why."""
    made = deciding.generation(ws, number)
    store = deciding.open_store(ws)
    nan = float("nan")
    found = [
        Finding(**f | {key: nan if f[key] is None else f[key] for key in ("value", "threshold")})
        for f in findings(ws, made)
    ]
    importance = json.loads(mlflow_tracking.artifact(store, made, "importance.json"))
    moves = [move for move in mlflow_registry.moves(store) if number in (move.before, move.after)]
    return Explained(made, found, importance, moves, trial.read(made.tags))


def compare(ws: Workspace, a: int, b: int) -> Compared:
    """What differs between two generations: data, recipe, exam, metrics."""
    one, other = (as_json(deciding.generation(ws, n)) for n in (a, b))
    left = {**one, **{f"metrics.{k}": v for k, v in one["metrics"].items()}}
    right = {**other, **{f"metrics.{k}": v for k, v in other["metrics"].items()}}
    hidden = {"metrics", "baseline", "tags", "run_id", "difference", "generation"}
    keys = [k for k in left | right if k not in hidden and left.get(k) != right.get(k)]
    return Compared(a, b, {key: (left.get(key), right.get(key)) for key in keys})


def replay(ws: Workspace, window: str, now: datetime) -> str:
    """Put a window's quarantined rows back into the inbox as a delivery of their own.

    Raises:
        ConfigError: the window is not closed, or has no quarantine.
    """
    held = dataset.read_quarantine(ws.data, window)
    if held is None:
        closed = [line.window for line in ws.ledger() if line.quarantined]
        why = f"windows with one: {', '.join(closed[-10:]) or 'none'}"
        raise ConfigError(f"window {window} has no quarantine", why=why, next="flywheel status")
    return replaying.replay(ws, window, held, now)


def data_docs(ws: Workspace, last: int) -> Path:
    """Great Expectations' own pages for the newest closed windows; the first page."""
    from flywheel.integrations import gx_suites  # 4 s, for this command alone

    names = [line.window for line in ws.ledger()[-last:]]
    suites = [gx_suites.read(path) for path in sorted(ws.expectations.glob("*.json"))]
    frames = {name: dataset.read_window(ws.data, name).to_pandas() for name in names}
    return gx_suites.data_docs(ws.cache / "docs", suites, frames)
