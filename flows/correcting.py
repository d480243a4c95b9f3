"""A correction: past windows made again in a branch, and swapped in as a new version of the dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flows import branching, closing, deciding, judging, rewriting
from flows.lock import locked
from flows.reclosing import UNKNOWN
from flows.rewriting import Redone, Reprocess
from flywheel.errors import BlockedError, FlywheelError
from flywheel.integrations import mlflow_tracking
from flywheel.sources import again
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace

Span = tuple[datetime | None, datetime | None]


class UnfinishedError(FlywheelError):
    """Some windows failed; the others are done. `done` tells of all."""

    def __init__(self, done: list[Redone]) -> None:
        failed = rewriting.unfinished(done)
        again = "failed" if failed[0].before else "missing"
        super().__init__(
            f"{len(failed):,} of {len(done):,} windows failed",
            where=failed[0].window,
            why=failed[0].why,
            next=f"mend it, then flywheel backfill --stage windows --reprocess {again}",
        )
        self.done = done


@dataclass(frozen=True)
class Touched:
    """A past decision that rests on windows that may change: how many of its training and exam windows do."""

    generation: int
    as_of: datetime
    verdict: str
    alias: str
    trained: int
    examined: int


@dataclass(frozen=True)
class Ahead:
    """What a backfill of windows would do; `seconds` is None where nothing like it was measured."""

    windows: list[Redone]
    rows: int
    generations: list[Touched]
    seconds: float | None


def correct(ws: Workspace, span: Span, reprocess: Reprocess, most: int, *, now: datetime, wait: bool) -> list[Redone]:
    """Make windows again, and swap them in together; what became of each. The workspace is held at both ends only.

    Raises:
        BusyError: another backfill runs, or a turn, and `wait` was not asked for. At the end it waits for a turn.
    """
    asked = f"{span} {reprocess} {judging.rules(ws)}"
    with locked(branching.root_of(ws), "backfill", wait=wait):
        with locked(ws.cache, "backfill", wait=wait):
            closed = _close(ws, span[1] or now, now) if reprocess == "missing" else []
            branch = branching.begin(ws, asked, lambda ledger: rewriting.choose(ws, span, reprocess, ledger))
        done = rewriting.remake(ws, branch, most)
        with locked(ws.cache, "backfill", wait=True):
            swapped = branching.swap(ws, branch)
            if swapped or closed:
                closing.push(ws)
        branching.end(branch)
    return [*closed, *(_placed(one, swapped) for one in done)]


def ahead(ws: Workspace, span: Span, reprocess: Reprocess, now: datetime) -> Ahead:
    """What `correct` would do, without doing any of it."""
    ledger = ws.ledger()
    lines = {line.window: line for line in ledger}
    chosen = rewriting.choose(ws, span, reprocess, ledger)
    gone = _gone(ws, [name for name, why in chosen.items() if not why.endswith(rewriting.LATE)])
    windows = [
        Redone(name, "its source is gone" if name in gone else "planned", lines[name].rows, lines[name].rows, why)
        for name, reason in chosen.items()
        for why in ["; ".join(filter(None, [reason, gone.get(name)]))]
    ]
    if reprocess == "missing":
        waiting = Spool(ws.inbox, ws.config.windows.grid).still_open(frozenset(s for x in ledger for s in x.shards))
        pending = _pending(ws, span[1] or now)
        windows += [Redone(name, "planned", waiting.get(name, 0), 0, "not closed yet") for name in pending]
    rows = sum(one.rows for one in windows if one.status == "planned")
    each = rewriting.recorded(ws)["seconds"].get("row")
    return Ahead(windows, rows, _touched(ws, set(chosen) - set(gone)), float(each) * rows if each else None)


def _close(ws: Workspace, as_of: datetime, now: datetime) -> list[Redone]:
    """Close what may be closed, as a turn does. Windows close in order: those behind one that is blocked wait."""
    before = len(ws.ledger())
    closing.take(ws, as_of, now)
    blocked: list[Redone] = []
    try:
        closing.close(ws, as_of)
    except BlockedError as error:
        first, *others = _pending(ws, as_of)
        why = f"{error.what}: {error.why}"
        blocked = [Redone(first, "failed", 0, 0, why), *(Redone(w, "waits", 0, 0, f"for {first}") for w in others)]
    lines = ws.ledger()
    if lines:
        closing.version(ws)
    return [*(Redone(line.window, "closed", line.rows, 0) for line in lines[before:]), *blocked]


def _pending(ws: Workspace, as_of: datetime) -> list[str]:
    grid, ledger = ws.config.windows.grid, ws.ledger()
    span = Spool(ws.inbox, grid).span(frozenset(shard for line in ledger for shard in line.shards))
    first = [grid.parse(line.window) + 1 for line in ledger[-1:]] or [span[0] for _ in [0] if span]
    return [grid.name(w) for start in first for w in range(start, grid.last_closed(as_of) + 1)]


def _placed(one: Redone, swapped: Sequence[str]) -> Redone:
    if one.status != "rewritten" or one.window in swapped:
        return one
    return Redone(one.window, "failed", one.before, one.before, "another backfill changed it meanwhile; run this again")


def _gone(ws: Workspace, names: Sequence[str]) -> dict[str, str]:
    """The windows that cannot be closed again, and why."""
    every = {taken.name: taken for taken in Spool(ws.inbox, ws.config.windows.grid).deliveries()}
    needed = {line.window: {s.partition("/")[0] for s in line.shards} for line in ws.ledger() if line.window in names}
    wanted = sorted(set().union(*needed.values()) & every.keys()) if needed else []
    found = again.reread([every[name] for name in wanted], list(every.values()), ws.config, ws.root)
    why = {name: found.get(name, UNKNOWN) for name in set().union(*needed.values())}
    return {
        window: "; ".join(sorted({text for name in deliveries if isinstance(text := why[name], str)}))
        for window, deliveries in needed.items()
        if any(isinstance(why[name], str) for name in deliveries)
    }


def _touched(ws: Workspace, windows: set[str]) -> list[Touched]:
    """The generations that were trained or examined on these windows, by number."""
    found = []
    for made in mlflow_tracking.generations(deciding.open_store(ws)):
        trained, examined = (
            sum(first <= name <= last for name in windows) for first, last in (made.trained_windows, made.exam_windows)
        )
        if trained or examined:
            found.append(Touched(made.generation, made.as_of, made.verdict, made.alias, trained, examined))
    return found
