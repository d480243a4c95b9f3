"""What runs when, and how many at a time; the same for `flywheel up`, for workers, and for Prefect's own command."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.deployments import run_deployment

from flows import deployments, journal, scheduled
from flows.lock import locked
from flows.scheduled import ended
from flywheel.errors import DataError
from flywheel.workspace import Workspace
from tests.flows import world

ROOT = Path(__file__).resolve().parents[2]


def told(made: Any) -> dict[str, Any]:
    """What matters of a deployment, whoever describes it."""
    return {
        "flow": made.flow_name,
        "name": made.name,
        "schedules": [(s.schedule.interval, s.schedule.anchor_date, s.schedule.timezone) for s in made.schedules],
        "limit": made.concurrency_limit,
        "strategy": made.concurrency_options and made.concurrency_options.collision_strategy.value,
        "parameters": sorted(made.parameters),
        "tags": made.tags,
    }


def test_prefect_yaml_says_the_same_as_our_own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    held = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    ours = deployments.deployments(Workspace.open(ROOT), "local")
    assert len(held) == len(ours)
    for theirs, made in zip(held, ours, strict=True):
        module, _, function = theirs["entrypoint"].partition(":")
        assert made.entrypoint == f"{module.removesuffix('.py').replace('/', '.')}.{function}"
        intervals = [IntervalSchedule.model_validate(schedule) for schedule in theirs["schedules"]]
        assert told(made) | {"flow": ""} == {
            "flow": "",
            "name": theirs["name"],
            "schedules": [(s.interval, s.anchor_date, s.timezone) for s in intervals],
            "limit": theirs.get("concurrency_limit", {}).get("limit"),
            "strategy": theirs.get("concurrency_limit", {}).get("collision_strategy"),
            "parameters": sorted(theirs["parameters"]),
            "tags": theirs["tags"],
        }


def test_every_parameter_of_a_form_is_described(turned: Workspace) -> None:
    for made in deployments.deployments(turned):
        properties = made._parameter_openapi_schema.properties
        assert made.description
        assert set(made.parameters) <= set(properties)
    turn = next(made for made in deployments.deployments(turned) if made.flow_name == "turn")
    assert all(field.get("description") for field in turn._parameter_openapi_schema.properties.values())


def test_what_is_switched_off_has_no_schedule(turned: Workspace) -> None:
    ws = world.amend(turned.root, schedule={"collect": "never", "turn": "7d", "at": "04:30:00"})
    made = {one.flow_name: one for one in deployments.deployments(ws)}
    assert [name for name, one in made.items() if not one.schedules] == ["collect", "backfill", "approval"]
    when = made["turn"].schedules[0].schedule
    assert (when.interval, when.timezone) == (timedelta(days=7), "UTC")
    assert (when.anchor_date.hour, when.anchor_date.minute) == (4, 30)


def test_a_busy_workspace_ends_a_run_as_skipped_and_an_error_in_a_line(turned: Workspace) -> None:
    def work(ws: Workspace) -> str:
        with locked(ws.cache, "collect"):
            return "done"

    def fail(_ws: Workspace) -> str:
        raise DataError("too few rows", next="flywheel status")

    with locked(turned.cache, "turn"):
        busy = ended(turned.root, "collect", work)
    assert (busy.type.value, busy.name) == ("COMPLETED", "Skipped")
    assert str(busy.message).startswith(f"skipped: busy: flywheel turn runs as process {os.getpid()}")
    assert "passed over" in [line["step"] for line in journal.read(turned.cache)[-2:]]
    assert ended(turned.root, "collect", work).message == "done"
    failed = ended(turned.root, "collect", fail)
    assert (failed.type.value, failed.message) == ("FAILED", "too few rows next: flywheel status")


def test_a_collect_that_is_due_beside_a_look_of_the_monitor_waits_for_it(turned: Workspace) -> None:
    ws, held = world.amend(turned.root, schedule={"growth": 0}), threading.Event()

    def look() -> None:
        with locked(ws.cache, "monitor"):
            held.set()
            time.sleep(1)

    other = threading.Thread(target=look)
    other.start()
    held.wait()
    done = ended(ws.root, "collect", scheduled._collected)
    other.join()
    assert (done.name, str(done.message)[:7]) == ("Completed", "closed ")


@pytest.mark.slow
def test_a_worker_picks_a_run_up(turned: Workspace) -> None:
    """And of two runs that wait, one turns, and the other is cancelled or finds that there is nothing new."""
    name = turned.config.product.name
    assert deployments.register(turned, "ours") == [f"{flow}/{name}" for flow in deployments.FLOWS]
    asked = [run_deployment(f"turn/{name}", timeout=0, parameters={"trigger": "test"}) for _ in range(2)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "ours", "--run-once"]
    done = subprocess.run(worker, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        runs = [read(client, run) for run in asked if isinstance(run, FlowRun)]
    states = sorted(run.state_name or "" for run in runs)
    assert states in (["Cancelled", "Completed"], ["Completed", "Completed"]), done.stdout + done.stderr
    turns = [line for line in journal.read(turned.cache) if line["step"] in ("promoted", "kept", "rejected")]
    assert [line["generation"] for line in turns] == [1, 2]


def read(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    return client.read_flow_run(run.id)
