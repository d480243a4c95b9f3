"""Runs of a deployment that were due while nobody ran them: one is enough, and what was killed is said to be dead."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flywheel.errors import FlywheelError

HELD = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


def await_api(seconds: float) -> None:
    """Return once Prefect's API answers.

    Raises:
        FlywheelError: it does not in time.
    """
    until = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while (fault := client.api_healthcheck()) is not None:
            if time.monotonic() > until:
                raise FlywheelError("Prefect's API does not answer", where=str(client.api_url), why=str(fault))
            time.sleep(0.5)


def named() -> str:
    """The name of a scheduled run: what it does, as of when it began."""
    context = FlowRunContext.get()
    flow = context.flow.name if context is not None and context.flow is not None else "run"
    return f"{flow} as of {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


def catch_up() -> str:
    """The name of the run that has begun and ended well since this one was due, or nothing.

    Without one, this run is the catch-up: what else of its deployment is due by the schedule is deleted.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.deployment_id is None:
        return ""
    with get_client(sync_client=True) as client:
        for other in _runs(client, [run.deployment_id], (StateType.COMPLETED,), newest_first=True)[:20]:
            began, due = other.start_time, run.expected_start_time
            if run.auto_scheduled and other.state_name == "Completed" and began and due and began >= due:
                return other.name
        _delete(client, (late for late in _late(client, [run.deployment_id]) if late.id != run.id))
    return ""


def settle(deployments: Iterable[UUID]) -> tuple[int, int]:
    """Before deployments are served: bury the runs of whoever served them before, and keep one late run of each.

    How many were buried, and how many late ones deleted.
    """
    ids = list(deployments)
    with get_client(sync_client=True) as client:
        dead = _runs(client, ids, HELD)
        for run in dead:
            client.set_flow_run_state(run.id, Crashed(message="whoever ran it was killed or stopped"))
        late = [one for each in ids for one in _late(client, [each])[:-1]]
        _delete(client, late)
    return len(dead), len(late)


def _late(client: SyncPrefectClient, deployments: list[UUID]) -> list[FlowRun]:
    """The runs that are due by the schedule and have not begun, oldest first."""
    now = datetime.now(UTC)
    waiting = _runs(client, deployments, (StateType.SCHEDULED,))
    due = [run for run in waiting if run.auto_scheduled and run.expected_start_time and run.expected_start_time <= now]
    return sorted(due, key=lambda run: run.expected_start_time or now)


def _runs(
    client: SyncPrefectClient, deployments: list[UUID], states: tuple[StateType, ...], *, newest_first: bool = False
) -> list[FlowRun]:
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": [state.value for state in states]}}})
    of = DeploymentFilter.model_validate({"id": {"any_": deployments}})
    sort = FlowRunSort.START_TIME_DESC if newest_first else FlowRunSort.EXPECTED_START_TIME_ASC
    return list(client.read_flow_runs(flow_run_filter=wanted, deployment_filter=of, sort=sort, limit=200))


def _delete(client: SyncPrefectClient, runs: Iterable[FlowRun]) -> None:
    for run in runs:
        try:
            client.delete_flow_run(run.id)
        except ObjectNotFound:
            continue
