"""What our own records tell Prefect's: events of a run, and that a run has ended whose process was killed.

Prefect is imported only where it is loaded already: outside of a recorded run there is nobody to tell.
"""

import json
import sys
from typing import Any
from uuid import UUID


def current() -> str:
    """The id of the flow run that this is called in, if Prefect records it, else nothing."""
    if "prefect.context" not in sys.modules:
        return ""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else ""


def emit(step: str, product: str, payload: dict[str, Any]) -> None:
    """Emit `flywheel.<step>` of the resource `flywheel.<product>`; outside of a recorded run, do nothing."""
    if not current():
        return
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"flywheel.{product}", "prefect.resource.name": product}
    emit_event(f"flywheel.{step}", resource=resource, payload={k: str(v) for k, v in payload.items()})


def begin(deployment: str, parameters: dict[str, Any]) -> bool:
    """Have a deployment run with these parameters, once however often it is asked; whether there is such a deployment.

    Outside of a recorded run there is none.
    """
    if not current():
        return False
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    try:
        key = _key(deployment, parameters)
        run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=key)
    except ObjectNotFound:
        return False
    return True


def withdraw(deployment: str, parameters: dict[str, Any], why: str) -> None:
    """Cancel the run that `begin` began, where it waits for somebody to go on."""
    if not current():
        return
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
    from prefect.states import Cancelled

    begun = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[_key(deployment, parameters)]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=begun):
            if run.state is not None and run.state.is_paused():
                client.set_flow_run_state(run.id, Cancelled(message=why), force=True)


def _key(deployment: str, parameters: dict[str, Any]) -> str:
    return f"{deployment} {json.dumps(parameters, sort_keys=True)}"


def crash(flow_run: str, why: str) -> bool:
    """Have Prefect say that a run crashed, where it still says that it is running; whether it was reached."""
    if not current():
        return False
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(flow_run))
            if run.state is not None and not run.state.is_final():
                client.set_flow_run_state(run.id, Crashed(message=why))
        except ObjectNotFound:
            return False
    return True
