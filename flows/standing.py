"""Where a wheel stands, by its own records: told in a second, also while everything is down."""

import json
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flows import evidence, journal, lock
from flywheel.data import dataset
from flywheel.errors import DataError, IntegrityError, RegistryError, SourceError
from flywheel.integrations.mlflow_glance import Glance, glance
from flywheel.learn.plan import plan
from flywheel.records import Move
from flywheel.schedule import grown
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_reading import Account, account
from flywheel.sources.inbox_source import demand_marks
from flywheel.sources.spool import Spool
from flywheel.trial import Trial
from flywheel.watched import Watched
from flywheel.workspace import Workspace

UP = "up.json"


@dataclass(frozen=True)
class Status:
    """Where a wheel stands. `growth` is of training rows since the last generation; None where there was none."""

    product: str
    windows: int
    newest_window: str
    totals: dataset.Totals
    still_open: int
    waiting_rejected: int
    outcomes: Account | None
    generations: int
    unfinished: int
    champion: int
    previous: int
    moves: list[Move]
    canary: int = 0
    waiting: int = 0
    trial: Trial = field(default_factory=Trial)
    patience: timedelta = timedelta()
    registry: str = ""
    inbox: str = ""
    now: str = ""
    killed: str = ""
    last_turn: dict[str, Any] | None = None
    up: dict[str, Any] | None = None
    next_turn: datetime | None = None
    snapshot: dict[str, Any] | None = None
    watched: Watched | None = None
    growth: float | None = None
    asks_at: float = field(default=0.0)


def status(ws: Workspace) -> Status:
    """Where the wheel stands, by its own records.

    What cannot be read of the registry is said in `registry`, and what outcomes cannot be accounted for by in `inbox`.
    """
    ledger = ws.ledger()
    consumed = frozenset(shard for line in ledger for shard in line.shards)
    spool = Spool(ws.inbox, ws.config.windows.grid)
    held, unreadable = _registry(ws)
    note, is_held = lock.holder(ws.cache)
    elsewhere = "" if unreadable else lock.held_elsewhere(ws.root)  # no second wait for a server that is away
    lines = journal.read(ws.cache)
    up = running_up(ws)
    rows = growth(ws, held)
    accounted, unaccounted = _outcomes(ws, spool, consumed)
    return Status(
        product=ws.config.product.name,
        windows=len(ledger),
        newest_window=ledger[-1].window if ledger else "",
        totals=dataset.totals(ledger),
        still_open=sum(spool.still_open(consumed).values()),
        waiting_rejected=spool.rejected_open(consumed),
        outcomes=accounted,
        inbox=unaccounted,
        generations=held.generations,
        unfinished=held.unfinished,
        champion=held.champion,
        previous=held.previous,
        moves=list(held.moves),
        canary=held.canary,
        waiting=held.waiting,
        trial=held.trial,
        patience=ws.config.gate.approval_timeout,
        registry=unreadable,
        now=lock.named(note) if is_held and note else "a command has just begun" if is_held else elsewhere,
        killed=lock.named(note) if note and not is_held else "",
        last_turn=journal.last(lines, "turn"),
        up=up,
        next_turn=ws.config.schedule.next("turn", datetime.now(UTC)) if up else None,
        snapshot=_snapshot(ws),
        watched=evidence.kept(ws, Watched),
        growth=None if rows == float("inf") else rows,
        asks_at=ws.config.schedule.growth,
    )


def _outcomes(ws: Workspace, spool: Spool, consumed: frozenset[str]) -> tuple[Account | None, str]:
    """What became of every outcome that ever arrived, None where nobody is served; and why that cannot be told."""
    if ws.config.serve is None:
        return None, ""
    try:
        demand_marks(spool, consumed)
        with closing(Inbox.open(ws.config.inbox_url, ws.root)) as inbox:
            return account(inbox, [taken.mark for taken in spool.deliveries()]), ""
    except (IntegrityError, SourceError) as error:
        return None, "; ".join(part for part in (error.what, error.why, error.next) if part)


def growth(ws: Workspace, held: Glance | None = None) -> float:
    """The share by which training rows grew since the last generation; infinite where there was none and could be one.

    0 where nothing could be trained on now.
    """
    known = _registry(ws)[0] if held is None else held
    try:
        rows = plan(ws.ledger(), ws.config, datetime.now(UTC)).train_rows
    except DataError:
        return 0.0
    return 0.0 if rows < ws.config.train.min_rows else grown(rows, known.train_rows)


def by(share: float) -> str:
    """Growth in words.

    >>> by(0.25), by(float("inf"))
    ('growth by 25 %', 'the first generation')
    """
    return "the first generation" if share == float("inf") else f"growth by {share:.0%}".replace("%", " %")


def running_up(ws: Workspace) -> dict[str, Any] | None:
    """What `flywheel up` says of itself, if it runs."""
    if not lock.is_held(ws.cache / "up.lock"):
        return None
    try:
        said: dict[str, Any] = json.loads((ws.cache / UP).read_text())
    except (OSError, ValueError):
        return {}
    return said


def _registry(ws: Workspace) -> tuple[Glance, str]:
    """What the registry holds, and why that cannot be told."""
    try:
        if ws.config.registry is None:
            return glance(ws.root, ws.config.product.name), ""
        return _asked(ws), ""
    except RegistryError as error:
        return Glance(), f"{error.what}; {error.next}"


def _asked(ws: Workspace) -> Glance:
    """The same of a registry on a server."""
    from flows import deciding  # seconds, for want of a file to look at
    from flywheel import trial
    from flywheel.integrations import mlflow_registry, mlflow_tracking

    store = deciding.open_store(ws)
    state = mlflow_registry.state(store)
    made = mlflow_tracking.generations(store)
    tried = state.canary or state.waiting
    return Glance(
        champion=state.champion,
        previous=state.previous,
        generations=len(state.generations),
        unfinished=mlflow_tracking.unfinished(store),
        train_rows=made[-1].train_rows if made else 0,
        moves=tuple(mlflow_registry.moves(store)),
        canary=state.canary,
        waiting=state.waiting,
        trial=trial.read(next((g.tags for g in made if g.generation == tried), {})),
    )


def _snapshot(ws: Workspace) -> dict[str, Any] | None:
    """What is served from: the newest snapshot, and when it was last written or found to be right."""
    folders = sorted((ws.cache / "serving").glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns)
    if ws.config.serve is None or not folders:
        return None
    written = datetime.fromtimestamp(folders[-1].stat().st_mtime, UTC)
    return {"generation": int(folders[-1].name.partition("-")[0]), "written": written}
