"""What deployments run: the same flows as a person's commands, as of now, and each missed time caught up once.

A run acts as of when it begins, not as of when it was due: one that catches up after a downtime closes all that may
be closed by now, and whatever else was due before it has nothing left to do. A busy workspace ends it as skipped.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, suspend_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.input import RunInput
from prefect.states import Completed, Failed

from flows import approving, evidence, notices, standing
from flows import backfill as past
from flows import monitor as monitoring
from flows import turn as turning
from flows.journal import write
from flywheel.errors import BusyError, ConfigError, FlywheelError
from flywheel.integrations import prefect_late
from flywheel.watched import Watched
from flywheel.workspace import Workspace


class Approval(RunInput):
    """What a person says on Prefect's pages."""

    approve: bool = False
    who: str
    why: str


PATIENCE = 3600.0  # s that a turn waits for a collect or a backfill to end
MOMENT = 60.0  # s that a collect waits for a look of the monitor, and that for it: both may be due at once
log = logging.getLogger("flywheel")


@flow(name="collect", flow_run_name=prefect_late.named, log_prints=False)
def collect(workspace: Path) -> State[Any]:
    """Close what may be closed; where the training rows grew by [schedule] growth, ask for a turn."""
    return ended(workspace, "collect", lambda ws: _collected(ws))


@flow(name="turn", flow_run_name=prefect_late.named, log_prints=False)
def turn(workspace: Path, trigger: str = "schedule", promote_champion: bool = True) -> State[Any]:
    """Turn the wheel once.

    Args:
        workspace: the folder with flywheel.toml, on the machine that runs this.
        trigger: what asks for it; it is kept with the generation.
        promote_champion: whether the champion may move.
    """

    def turned(ws: Workspace) -> str:
        made = turning.turn.fn(
            ws.root, datetime.now(UTC), trigger=trigger, promote_champion=promote_champion, wait=PATIENCE
        )
        return f"{made.status}: {made.reason}"

    return ended(workspace, "turn", turned)


@flow(name="monitor", flow_run_name=prefect_late.named, log_prints=False)
def monitor(workspace: Path) -> State[Any]:
    """See whether the champion does harm, and take it back; where it falls short of its exam, ask for a turn."""
    return ended(workspace, "monitor", lambda ws: _watched(ws))


def ended(workspace: Path, command: str, work: Callable[[Workspace], str]) -> State[Any]:
    """Do the work of a scheduled run, unless another run has done it since this one was due; how it ended, in a line.

    A FlywheelError, which says all there is to say, makes a failed run; anything else is raised.
    """
    try:
        ws = Workspace.open(workspace)
        done_by = prefect_late.catch_up()
        if done_by:
            return skipped(ws, command, f"{done_by} has caught up")
        return Completed(message=work(ws))
    except BusyError as error:
        return skipped(Workspace.open(workspace), command, f"busy: {error.why}")
    except FlywheelError as error:
        log.error("%s", error)
        if not isinstance(error, ConfigError):  # without which nobody knows whom to tell
            notices.notify(Workspace.open(workspace), f"{command} failed", str(error))
        return Failed(message=" ".join(str(error).split()))


def skipped(ws: Workspace, command: str, why: str) -> State[Any]:
    """A run that had nothing to do, told to the journal."""
    write(ws.cache, {"run": "", "command": command, "turn": "", "step": "passed over", "reason": why})
    return Completed(name="Skipped", message=f"skipped: {why}")


def ask_for_turn(ws: Workspace, trigger: str) -> None:
    """Have the turn deployment of a workspace run now, beside this run; asked twice, the second one is cancelled."""
    run_deployment(f"turn/{ws.config.product.name}", parameters={"trigger": trigger}, timeout=0, as_subflow=False)


def _watched(ws: Workspace) -> str:
    known = evidence.kept(ws, Watched)
    found = monitoring.monitor.fn(ws.root, datetime.now(UTC), wait=MOMENT)
    if found.short and not (known and known.short):
        ask_for_turn(ws, "monitor")
    return "; ".join(found.says)


def _collected(ws: Workspace) -> str:
    closed = turning.collect_only.fn(ws.root, datetime.now(UTC), wait=MOMENT)
    least, growth = ws.config.schedule.growth, standing.growth(ws)
    if closed and least and growth >= least:
        ask_for_turn(ws, standing.by(growth))
        return f"closed {closed:,} windows; asked for a turn, for {standing.by(growth)}"
    return f"closed {closed:,} windows"


@flow(name="approval", flow_run_name="generation {generation} waits for a person", log_prints=False)
def approval(workspace: Path, generation: int) -> State[Any]:
    """Ask on Prefect's pages whether a generation that passed may go on; nothing runs while nobody answers.

    Args:
        workspace: the folder with flywheel.toml.
        generation: the one that waits; `flywheel approve` answers too.
    """
    ws = Workspace.open(workspace)
    if not approving.waits(ws, generation):
        return Completed(message=f"generation {generation} does not wait any more")
    told = approving.findings(ws, generation)
    create_markdown_artifact(told, key="approval", description=f"generation {generation}")
    form = Approval.with_initial_data(description=told)
    patience = round(ws.config.gate.approval_timeout.total_seconds())
    said = suspend_flow_run(wait_for_input=form, timeout=patience, key=f"generation-{generation}")
    return answered(ws, generation, said)


def answered(ws: Workspace, generation: int, said: Approval) -> State[Any]:
    """Act on what a person said on Prefect's pages; how it ended, in a line."""
    try:
        came = approving.answer(
            ws, generation, approve=said.approve, who=said.who, why=said.why, as_of=datetime.now(UTC), wait=PATIENCE
        )
    except FlywheelError as error:
        log.error("%s", error)
        return Failed(message=" ".join(str(error).split()))
    return Completed(message=f"{came.status}: {came.reason}" if came else "answered")


backfill = past.backfill
