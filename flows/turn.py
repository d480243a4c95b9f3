"""One revolution of the wheel: collect, close, version, fit, examine, decide, promote.

Between tasks travel references, and each task can be run again after any crash: what is finished is taken up.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows import canary, closing, deciding, inspect, learning, measuring, moving, served, valuing
from flows.journal import tell, turning
from flows.lock import locked
from flows.spreading import spreading
from flywheel.errors import BlockedError, DataError
from flywheel.integrations.prefect_api import publish_table
from flywheel.learn.plan import Plan, plan
from flywheel.workspace import Workspace


@dataclass(frozen=True)
class Turned:
    """What a turn came to. `generation` is 0 where it was skipped."""

    status: str
    reason: str
    generation: int = 0
    closed: int = 0
    dataset: str = ""


def dependency_failed(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task failed for want of something outside, so that trying again may help."""
    return isinstance(state.result(raise_on_failure=False), OSError)


OUTCOME = {"promote": "passed", "keep": "kept", "reject": "rejected"}
RETRY: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 5, "retry_condition_fn": dependency_failed}


@task(name="collect", **RETRY)
def collect(root: Path, as_of: datetime, now: datetime) -> int:
    """Bring new deliveries into the inbox; how many rows."""
    return sum(taken.rows for taken in closing.take(Workspace.open(root), as_of, now))


@task(name="close windows")
def close(root: Path, as_of: datetime) -> int:
    """Close every window that may be closed; how many."""
    return len(closing.close(Workspace.open(root), as_of))


@task(name="version data", **RETRY)
def version(root: Path) -> str:
    """Move data.dvc; its md5."""
    return closing.version(Workspace.open(root))


@task(name="push data")
def push(root: Path) -> str:
    """Send the dataset to its remote; what came of it."""
    return closing.push(Workspace.open(root))


@task(name="fit")
def fit(root: Path, planned: Plan, turn_id: str) -> None:
    """Build the features, judge them, and fit the challenger; it is kept under the turn's id."""
    ws = Workspace.open(root)
    learning.guard(ws, planned)
    learning.fit(ws, planned, turn_id)


@task(name="examine and record", **RETRY)
def examine(root: Path, planned: Plan, turn: deciding.Turn) -> int:
    """Have challenger and champion sit the exam, and record the generation; its number."""
    return deciding.record(Workspace.open(root), planned, turn, valuing.finding)


@task(name="promote", **RETRY)
def promote(root: Path, generation: int) -> str:
    """Move the champion alias if the verdict says so, or have the generation wait; what became of it, if anything."""
    return moving.settle(Workspace.open(root), generation)


@task(name="settle", **RETRY)
def settle(root: Path, as_of: datetime) -> canary.Settled | None:
    """Bring whoever passed and is not champion yet as far as evidence and answers reach."""
    return canary.settle(Workspace.open(root), as_of)


@task(name="compare with what was served")
def compare(root: Path) -> int:
    """Bring the state up to the newest closed window, and check what was served against it; how many rows."""
    return served.compare(Workspace.open(root))


@task(name="measure and report")
def report(root: Path, as_of: datetime, generation: int) -> None:
    """Measure what takes seconds, and make the page; a turn does not fail for want of either."""
    measuring.after_turn(Workspace.open(root), as_of, generation)


@flow(name="turn", flow_run_name="turn as of {as_of}", log_prints=False)
def turn(
    workspace: Path,
    as_of: datetime,
    trigger: str = "schedule",
    promote_champion: bool = True,
    wait: bool | float = False,
) -> Turned:
    """Turn the wheel once, as of an instant."""
    ws = Workspace.open(workspace)
    with locked(ws.cache, "turn", wait=wait), spreading(ws):
        deciding.open_store(ws)  # without a registry nothing can be decided, so nothing is begun
        closed, md5 = _close(ws, as_of)
        if promote_champion:  # first, for the next challenger is examined against whoever that makes champion
            settle(ws.root, as_of)
        turned = revolve(ws, as_of, trigger=trigger, move=promote_champion)
        came = settle(ws.root, as_of) if turned.status == "waiting" else None
        if came is not None and came.generation == turned.generation:
            turned = replace(turned, status=came.status, reason=came.reason)
        if closed:
            push(ws.root)
        report(ws.root, as_of, turned.generation)
    return replace(turned, closed=closed, dataset=turned.dataset or md5)


@flow(name="collect", flow_run_name="collect as of {as_of}", log_prints=False)
def collect_only(workspace: Path, as_of: datetime, wait: bool | float = False) -> int:
    """Close what may be closed and bring the state up to it, without a generation; how many windows."""
    ws = Workspace.open(workspace)
    with locked(ws.cache, "collect", wait=wait), spreading(ws):
        deciding.open_store(ws)
        closed, _ = _close(ws, as_of)
        settle(ws.root, as_of)
        if closed:
            push(ws.root)
    return closed


def _close(ws: Workspace, as_of: datetime) -> tuple[int, str]:
    """Take what arrived and close what may be closed; how many windows, and the md5 of the dataset."""
    tell("collected", rows=collect(ws.root, as_of, max(as_of, datetime.now(UTC))))
    closed = close_until(ws, as_of)
    tell("closed", windows=closed)
    md5 = version(ws.root) if ws.ledger() else ""
    tell("versioned", data=md5)
    if ws.config.serve and ws.ledger():
        compare(ws.root)
    return closed, md5


def close_until(ws: Workspace, as_of: datetime) -> int:
    """Close every window that may be closed; where one is blocked, data.dvc still moves to those before it."""
    try:
        return close(ws.root, as_of)
    except BlockedError:
        if ws.ledger():
            version(ws.root)
        raise


def revolve(ws: Workspace, as_of: datetime, *, trigger: str, move: bool, rehearse: bool = False) -> Turned:
    """From closed windows to a decision, which the journal is told.

    Args:
        ws: the workspace, held by the caller.
        as_of: the instant to act as of.
        trigger: what asked for it.
        move: whether the champion alias may move.
        rehearse: examine against who would have served, had every verdict of the backfill been followed.
    """
    turned = _revolved(ws, as_of, trigger=trigger, move=move, rehearse=rehearse)
    tell(turned.status, generation=turned.generation, reason=turned.reason)
    return turned


def _revolved(ws: Workspace, as_of: datetime, *, trigger: str, move: bool, rehearse: bool) -> Turned:
    try:
        planned = plan(ws.ledger(), ws.config, as_of)
        if planned.train_rows < ws.config.train.min_rows:
            raise DataError(f"{planned.train_rows:,} training rows; it takes {ws.config.train.min_rows:,}")
    except DataError as error:
        return Turned("skipped", error.what)
    turn_id = deciding.turn_id(ws, planned)
    turning(turn_id)
    made = deciding.find(ws, turn_id)
    new = made is None
    if made is None:
        against = deciding.rehearsed_champion(ws, as_of) if rehearse else deciding.champion(ws)
        fit(ws.root, planned, turn_id)
        tell("fitted", rows=planned.train_rows)
        number = examine(ws.root, planned, deciding.Turn(turn_id, as_of, trigger, version(ws.root), against))
        made = deciding.generation(ws, number)
        tell("examined", generation=number, verdict=made.verdict)
        publish_table("verdict", inspect.findings(ws, made), f"generation {number}: {made.verdict}, {made.reason}")
    passed = new and made.verdict == "promote"
    if move and (passed or moving.unsettled(ws, made)) and (status := promote(ws.root, made.generation)):
        return Turned(status, made.reason, made.generation, dataset=made.dataset)
    if not new:
        return Turned("skipped", f"nothing new since generation {made.generation}", made.generation)
    return Turned(OUTCOME[made.verdict], made.reason, made.generation, dataset=made.dataset)
