"""Windows and generations as they would have been: the same steps as a turn, walking forward through the past."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow

from flows import deciding
from flows import turn as turning
from flows.lock import locked
from flows.progress import tell
from flywheel.errors import DataError
from flywheel.sources.spool import Spool
from flywheel.windows import parse_duration
from flywheel.workspace import Workspace


@dataclass(frozen=True)
class Step:
    """One instant of a backfill and what it came to; `status` is `planned` before it was done."""

    as_of: datetime
    status: str = "planned"
    generation: int = 0
    reason: str = ""


@flow(name="backfill", flow_run_name="backfill every {every}", log_prints=False)
def backfill(
    workspace: Path,
    every: str = "28d",
    start: datetime | None = None,
    end: datetime | None = None,
    promote_champion: bool = False,
    wait: bool = False,
) -> list[Step]:
    """Make the generations of the past, oldest first; what is there already is not made again.

    Without `promote_champion` the gate is rehearsed: each generation is examined against the one that would have
    served by then, and no alias moves.
    """
    ws = Workspace.open(workspace)
    done: list[Step] = []
    with locked(ws.cache, "backfill", wait=wait):
        now = datetime.now(UTC)
        deciding.open_store(ws)
        turning.collect(ws.root, now, now)
        planned = steps(ws, parse_duration(every), start, end, now)
        tell("generations", 0, len(planned))
        for step in planned:
            turning.close_until(ws, step.as_of)
            made = turning.revolve(
                ws, step.as_of, trigger="backfill", move=promote_champion, rehearse=not promote_champion
            )
            done.append(Step(step.as_of, made.status, made.generation, made.reason))
            tell("generations", len(done), len(planned))
        if ws.ledger():
            turning.version(ws.root)
            turning.push(ws.root)
    return done


def steps(ws: Workspace, every: timedelta, start: datetime | None, end: datetime | None, now: datetime) -> list[Step]:
    """The instants of a backfill, oldest first; the last is `end`, without one when the newest window can close.

    Raises:
        DataError: nothing has been collected.
    """
    grid = ws.config.windows.grid
    ledger = ws.ledger()
    consumed = frozenset(shard for line in ledger for shard in line.shards)
    span = Spool(ws.inbox, grid).span(consumed)
    known = [grid.parse(line.window) for line in ledger if line.collected] + list(span or ())
    if not known:
        raise DataError("nothing has been collected yet", where=str(ws.inbox), next="flywheel turn")
    last = min(now, grid.closes_at(max(known))) if end is None else end
    first = grid.closes_at(min(known)) if start is None else start
    count = max(0, (last - first) // every + 1)
    return [Step(last - k * every) for k in reversed(range(count))]
