"""The past done again: windows, features, or generations walking forward by the same steps as a turn."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from prefect import flow

from flows import correcting, deciding, rehearsing, spreading
from flows import turn as turning
from flows.correcting import Ahead, UnfinishedError
from flows.lock import locked
from flows.progress import tell
from flows.rehearsing import Rehearsal
from flows.rewriting import Redone, Reprocess, unfinished
from flywheel.errors import DataError
from flywheel.integrations.prefect_api import publish_table
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


Stage = Literal["windows", "features", "generations"]
Done = list[Step] | list[Redone] | Ahead | Rehearsal


@flow(name="backfill", flow_run_name="backfill {stage}", log_prints=False)
def backfill(  # noqa: PLR0913 -- each is a field of the form in the Prefect UI
    workspace: Path,
    every: str = "28d",
    start: datetime | None = None,
    end: datetime | None = None,
    promote_champion: bool = False,
    wait: bool = False,
    stage: Stage = "generations",
    reprocess: Reprocess = "missing",
    max_active: int = 1,
    dry_run: bool = False,
    recipe: Path | None = None,
) -> Done:
    """Do the past again, in one of its stages; it resumes where it stopped.

    Args:
        workspace: The workspace's folder.
        every: Generations: one every so much event time, such as 28d.
        start: Generations: the first instant to act as of. Else the first window, by its start.
        end: Generations: the last instant to act as of. Else the end of the windows.
        promote_champion: Generations: move the champion as the gate says. Without it the gate is rehearsed: each is
            examined against the one that would have served by then, and no alias moves.
        wait: Wait for another command that holds the workspace, instead of leaving.
        stage: Windows are made again in a branch and swapped in together, features are a cache that is built,
            generations are made where they are missing.
        reprocess: Which windows: those that could be closed and are not, those that failed last time, those that
            would come out otherwise, or all. For features, all drops the cache of the span first.
        max_active: So many windows at once.
        dry_run: Only say what would be done.
        recipe: Generations: a folder or file with another flywheel.toml or features.py, which is tried beside every
            past generation; nothing is registered.

    Raises:
        UnfinishedError: windows failed; the others are done.
    """
    ws, now, span = Workspace.open(workspace), datetime.now(UTC), (start, end)
    if stage == "windows" and dry_run:
        return correcting.ahead(ws, span, reprocess, now)
    if stage == "windows":
        return _windows(ws, span, reprocess, max_active, now=now, wait=wait)
    if dry_run and stage == "generations":
        return steps(ws, parse_duration(every), start, end, now)
    with locked(ws.cache, "backfill", wait=wait), spreading.spreading(ws):
        if stage == "features":
            return features(ws, span, afresh=reprocess == "all", dry_run=dry_run)
        if recipe is not None:
            return rehearsing.rehearse(ws, recipe, span)
        return _generations(ws, parse_duration(every), span, now, move=promote_champion)


def features(
    ws: Workspace, span: tuple[datetime | None, datetime | None], *, afresh: bool, dry_run: bool = False
) -> list[Redone]:
    """Build the feature cache of closed windows, and the state; `afresh` drops what is there of them first."""
    start, end = span
    lines = [x for x in ws.ledger() if (start is None or x.start >= start) and (end is None or x.start < end)]
    if dry_run:
        return [Redone(line.window, "planned", line.rows, line.rows) for line in lines]
    cache, grid = ws.matrices(), ws.config.windows.grid
    if afresh:
        cache.drop([grid.parse(line.window) for line in lines])
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        tell("features", rows)

    spreading.build(cache, [grid.parse(line.window) for line in lines], count)
    return [Redone(line.window, "built", line.rows, line.rows) for line in lines]


def _windows(
    ws: Workspace,
    span: tuple[datetime | None, datetime | None],
    reprocess: Reprocess,
    most: int,
    *,
    now: datetime,
    wait: bool,
) -> list[Redone]:
    done = correcting.correct(ws, span, reprocess, most, now=now, wait=wait)
    publish_table("backfill", [asdict(one) for one in done], "what became of each window")
    if unfinished(done):
        raise UnfinishedError(done)
    return done


def _generations(
    ws: Workspace, every: timedelta, span: tuple[datetime | None, datetime | None], now: datetime, *, move: bool
) -> list[Step]:
    """Make the generations of the past, oldest first; what is there already is not made again."""
    done: list[Step] = []
    deciding.open_store(ws)
    turning.collect(ws.root, now, now)
    planned = steps(ws, every, *span, now)
    tell("generations", 0, len(planned))
    for step in planned:
        turning.close_until(ws, step.as_of)
        made = turning.revolve(ws, step.as_of, trigger="backfill", move=move, rehearse=not move)
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
