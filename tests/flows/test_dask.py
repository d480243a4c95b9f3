"""The same turn on a cluster of processes: the same files, and a model that differs by no more than a seed does."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from flows import deciding, inspect, rebuilding
from flywheel.integrations import mlflow_registry
from flywheel.workspace import Workspace
from tests.flows import world

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def workers() -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None, processes=True
    ) as cluster:
        yield cluster


def spread(ws: Workspace, workers: distributed.LocalCluster) -> Workspace:
    compute = {"engine": "dask", "address": workers.scheduler_address, "workers": 2}
    return world.amend(ws.root, compute=compute, train={"early_stopping": 10})


def made(ws: Workspace) -> dict[str, bytes]:
    """What a turn leaves that is not a model: windows, ledger, matrices, counters."""
    folders = (ws.data, ws.cache / "features", ws.cache / "state", ws.cache / "ids")
    files = {p.relative_to(ws.root): p for f in folders for p in sorted(f.rglob("*")) if p.is_file()}
    return {str(name): told(path) for name, path in files.items()}


def told(path: Path) -> bytes:
    """The bytes of a file; of a manifest without the stats of the files that it names."""
    if path.name != "manifest.json":
        return path.read_bytes()
    held = json.loads(path.read_text())
    return json.dumps({**held, "segments": [{**s, "stat": None} for s in held["segments"]]}).encode()


@pytest.fixture(scope="module")
def alone(fresh_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What one process makes of the month."""
    ws = world.copy(fresh_root, tmp_path_factory.mktemp("alone") / "cinema")
    world.amend(ws.root, train={"early_stopping": 10})
    assert world.turn(ws, world.FIRST).status == "promoted"
    return Workspace.open(ws.root)


def test_a_turn_on_workers_makes_the_same_files(fresh: Workspace, alone: Workspace, workers) -> None:
    ws = spread(fresh, workers)
    assert world.turn(ws, world.FIRST).status == "promoted"
    assert made(ws) == made(alone)
    (one,), (other,) = inspect.generations(alone), inspect.generations(ws)
    assert one.turn_id == other.turn_id
    assert one.tags["matrix_hash"] == other.tags["matrix_hash"]
    assert (one.tags["parts"], other.tags["parts"]) == ("1", "2")
    assert abs(one.metrics["auc"] - other.metrics["auc"]) < 0.02
    rebuilt = rebuilding.rebuild(ws, 1, on_progress=lambda: nullcontext(lambda *_: None))
    assert rebuilt.identical, rebuilt.says
    world.amend(ws.root, compute={"engine": "local"})
    assert world.turn(ws, world.FIRST).reason == "nothing new since generation 1"
