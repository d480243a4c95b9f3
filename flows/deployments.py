"""What runs when, in what pool, and how many at a time: the only place for schedules, pools and limits.

| deployment | when | a second run of it |
|---|---|---|
| collect | `[schedule] collect` | is cancelled: the first closes all that may be closed |
| turn | `[schedule] turn`, and when data grew | is cancelled: the first learns from all there is |
| monitor | `[schedule] monitor` | is cancelled: the first looks at all there is |
| backfill | by hand | waits: it was asked for something else |
| approval | when a person is asked | runs beside it: it asks for another generation |

Deployments are called after the product, so that products may share a Prefect server: `turn/shop`. Below these limits
the workspace's own lock lets one command at a time through, wherever it was started.
"""

import asyncio
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows import scheduled
from flywheel.integrations import prefect_late
from flywheel.workspace import Workspace

CANCEL, WAIT = ConcurrencyLimitStrategy.CANCEL_NEW, ConcurrencyLimitStrategy.ENQUEUE
FLOWS: dict[str, tuple[Flow[..., Any], ConcurrencyLimitStrategy | None]] = {  # a further deployment is a line here
    "collect": (scheduled.collect, CANCEL),
    "turn": (scheduled.turn, CANCEL),
    "monitor": (scheduled.monitor, CANCEL),
    "backfill": (scheduled.backfill, WAIT),
    "approval": (scheduled.approval, None),
}
AT_ONCE = 3  # runs of one workspace in `up`: one works, others wait for its lock or find it busy
POLL = 5.0  # s
BOOT = 240.0  # s that Prefect's server may take to answer
ALIVE = "deployments.alive"


def deployments(ws: Workspace, pool: str | None = None) -> list[RunnerDeployment]:
    """Every deployment of a workspace, for `up` to run, or for the workers of a process pool."""
    return [_deployment(ws, name, pool) for name in FLOWS]


def schedule(ws: Workspace, name: str) -> Schedule | None:
    """When a deployment runs; in UTC, which has no hour twice and none missing."""
    when = ws.config.schedule
    every = when.every(name)
    return None if every is None else Interval(every, anchor_date=when.anchor(name), timezone="UTC")


def register(ws: Workspace, pool: str) -> list[str]:
    """Register the deployments for the workers of a process pool, which is made if there is none; their names."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    made = deployments(ws, pool)
    for one in made:  # what is late is left: the run that a worker begins with deletes it
        one.apply()
    return [one.full_name for one in made]


def serve(root: Path) -> None:
    """Run the deployments of the workspace at `root` until SIGTERM; schedules go on, and one late run catches up."""
    ws = Workspace.open(root)
    made = deployments(ws)
    prefect_late.await_api(BOOT)
    runner = Runner(name="flywheel", limit=AT_ONCE, pause_on_shutdown=False, query_seconds=POLL)
    prefect_late.settle([UUID(str(runner.add_deployment(one))) for one in made])
    runner.handle_sigterm = _interrupt  # type: ignore[method-assign]  # its own leaves what it runs behind
    threading.Thread(target=_tell_alive, args=(runner, ws.cache / ALIVE), daemon=True).start()
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        return


def _interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _tell_alive(runner: Runner, path: Path) -> None:
    """Touch a file whenever the runner has asked Prefect what is due."""
    seen = None
    while True:
        polled = runner.last_polled
        if polled is not None and polled != seen:
            path.touch()
            seen = polled
        time.sleep(1)


def _deployment(ws: Workspace, name: str, pool: str | None) -> RunnerDeployment:
    flow, strategy = FLOWS[name]
    when = schedule(ws, name)
    return flow.to_deployment(  # type: ignore[return-value]
        ws.config.product.name,
        schedules=[] if when is None else [when],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy) if strategy else None,
        parameters={"workspace": str(ws.root)} | ({"wait": True} if strategy is WAIT else {}),
        tags=["flywheel", ws.config.product.name],
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        version=f"{datetime.now(UTC):%Y-%m-%d}",
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
