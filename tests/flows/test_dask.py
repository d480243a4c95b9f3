"""The same turn on a cluster of processes: the same files, and a model that differs by no more than a seed does."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flows import inspect, rebuilding, spreading
from flywheel.errors import ConfigError
from flywheel.sections import Compute
from flywheel.workspace import Workspace
from tests.flows import world

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
from flywheel.integrations import dask_cluster  # noqa: E402

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


@pytest.fixture(scope="module")
def together(
    fresh_root: Path, workers: distributed.LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """What workers make of it."""
    ws = spread(world.copy(fresh_root, tmp_path_factory.mktemp("together") / "cinema"), workers)
    assert world.turn(ws, world.FIRST).status == "promoted"
    return ws


def test_a_turn_on_workers_makes_the_same_files(alone: Workspace, together: Workspace) -> None:
    assert made(together) == made(alone)
    (one,), (other,) = inspect.generations(alone), inspect.generations(together)
    assert one.turn_id == other.turn_id
    assert one.tags["matrix_hash"] == other.tags["matrix_hash"]
    assert (one.tags["parts"], other.tags["parts"]) == ("1", "2")
    assert abs(one.metrics["auc"] - other.metrics["auc"]) < 0.02


def test_a_generation_of_workers_is_rebuilt_in_as_many_parts(together: Workspace) -> None:
    rebuilt = rebuilding.rebuild(together, 1, on_progress=lambda: nullcontext(lambda *_: None))
    assert rebuilt.identical, rebuilt.says


def test_what_workers_finished_is_taken_up_by_one_process(together: Workspace, tmp_path: Path) -> None:
    ws = world.copy(together.root, tmp_path / "cinema")
    world.amend(ws.root, compute={"engine": "local"})
    assert world.turn(ws, world.FIRST).reason == "nothing new since generation 1"


class Killing(distributed.SchedulerPlugin):
    """Kills the worker that is given the first of some work, as soon as it has it."""

    name = "killing"

    def __init__(self, cluster: distributed.LocalCluster, *works: str) -> None:
        self.cluster, self.works, self.killed = cluster, list(works), []

    def transition(self, key, start, finish, *_, **__) -> None:
        work = next((w for w in self.works if key.startswith(w)), None)
        if work and finish == "processing":
            self.works.remove(work)
            address = self.cluster.scheduler.tasks[key].processing_on.address
            pid = next(n.pid for n in self.cluster.workers.values() if n.worker_address == address)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)


def test_workers_that_are_killed_in_the_middle_change_nothing(
    fresh: Workspace, together: Workspace, workers: distributed.LocalCluster
) -> None:
    ws = spread(fresh, workers)
    killing = Killing(workers, "_tally", "_look", "_joined")
    workers.scheduler.add_plugin(killing)
    try:
        assert world.turn(ws, world.FIRST).status == "promoted"
    finally:
        workers.scheduler.remove_plugin(killing.name)
    assert len(set(killing.killed)) == 3
    assert made(ws) == made(together)
    assert world.ends(ws).generations[0] == world.ends(together).generations[0]


def loses_a_part(flag: str, part: int, threads: int) -> float:
    """Work that is joined and, the first time, loses a part while the others wait for it."""
    from xgboost import collective

    total = collective.allreduce(np.ones(1), collective.Op.SUM)
    if part == 1 and Path(flag).exists():
        Path(flag).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(collective.allreduce(total, collective.Op.SUM)[0])


def test_a_fit_that_loses_a_part_begins_again(workers: distributed.LocalCluster, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with dask_cluster.cluster(Compute(engine="dask", address=workers.scheduler_address)) as cluster:
        assert cluster.together(partial(loses_a_part, str(flag)), [0, 1]) == 4
    assert not flag.exists()


def test_a_cluster_that_is_not_there_is_refused(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "PATIENCE", 1)
    world.amend(fresh.root, compute={"engine": "dask", "address": "tcp://127.0.0.1:1"})
    with pytest.raises(ConfigError, match="the Dask scheduler does not answer"):
        world.turn(fresh, world.SECOND)


def test_without_dask_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"Dask is not installed[\s\S]*pip install 'flywheel\[dask\]'"),
        spreading.spreading(Compute(engine="dask")),
    ):
        pass
