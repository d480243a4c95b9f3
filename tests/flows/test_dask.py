"""The same turn on a cluster of processes: the same files, and a model that differs by no more than a seed does."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from flows import backfill, closing, closing_together, fitting, inspect, rebuilding, spreading
from flows.judging import Offered
from flywheel import exchange
from flywheel.data import dataset
from flywheel.errors import BlockedError, ConfigError, FlywheelError
from flywheel.records import LedgerLine
from flywheel.sections import Compute
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace
from tests.flows import team, world
from tests.flows.shell import ROOT

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
from flywheel.integrations import dask_cluster  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Where files are exchanged by workers that do not see the workspace's folder."""
    with team.bucket():
        yield f"s3://{team.BUCKET}/exchange"


@pytest.fixture(scope="module")
def workers(bucket: str) -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None, processes=True
    ) as cluster:
        yield cluster


def spread(ws: Workspace, workers: distributed.LocalCluster, files: str | None = None) -> Workspace:
    compute = {"engine": "dask", "address": workers.scheduler_address, "workers": 2}
    compute |= {"files": files} if files else {}
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


@pytest.fixture(scope="module")
def apart(
    fresh_root: Path, workers: distributed.LocalCluster, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """What workers make of it that do not see the folder."""
    ws = spread(world.copy(fresh_root, tmp_path_factory.mktemp("apart") / "cinema"), workers, bucket)
    with distributed.Client(workers) as client:
        client.run(watch, str(ws.root))
        assert world.turn(ws, world.FIRST).status == "promoted"
        assert set(client.run(opened).values()) == {()}, "a worker looked into the workspace's folder"
    return ws


def watch(root: str) -> None:
    """Have this process remember which files in a folder it opens."""
    sys.flywheel_opened = []  # type: ignore[attr-defined]
    sys.addaudithook(
        lambda event, given: event == "open" and str(given[0]).startswith(root) and sys.flywheel_opened.append(given[0])  # type: ignore[attr-defined]
    )


def opened() -> tuple[str, ...]:
    return tuple(sys.flywheel_opened)  # type: ignore[attr-defined]


def far(ws: Workspace, bucket: str) -> dict[str, bytes]:
    """What lies in the bucket for the workers of a workspace."""
    (held,) = (json.loads(path.read_text()) for path in ws.cache.glob("exchange.json"))
    store = fsspec.filesystem("s3", use_listings_cache=False)
    base = f"{bucket.removeprefix('s3://')}/cinema-{held['token']}/"
    return {name.removeprefix(base): store.cat_file(name) for name in store.find(base)}


def test_workers_that_do_not_see_the_folder_make_the_same_files(
    together: Workspace, apart: Workspace, bucket: str
) -> None:
    there, here = far(apart, bucket), made(apart)
    matrices = {name: content for name, content in there.items() if name.startswith(".flywheel/features/")}
    assert {**here, **matrices} == made(together)
    assert world.ends(apart).generations[0] == world.ends(together).generations[0]
    exam = inspect.generations(apart)[0].exam_windows[0]
    assert len([name for name in here if "/features/" in name]) < len(matrices), "what nobody needs here is not brought"
    assert any(f"/features/{exam}" in name for name in here)
    assert not [name for name in there if name.startswith(("inbox", ".flywheel/closing", ".flywheel/parted"))]


def test_once_its_past_is_rewritten_a_workspace_has_another_place_in_the_bucket(
    apart: Workspace, bucket: str, tmp_path: Path
) -> None:
    ws = world.copy(apart.root, tmp_path / "cinema")

    def place() -> str:
        with spreading.spreading(ws, ws.config.compute.model_copy(update={"files": bucket})):
            ours = exchange.active()
            assert ours is not None
            return ours.url

    before = place()
    assert place() == before
    *first, last = ws.ledger()
    dataset.write_ledger(ws.data, first)
    assert place() != before
    after = place()
    dataset.write_ledger(ws.data, [*first, last])
    assert place() == after


def test_a_second_turn_of_workers_that_do_not_see_the_folder(
    together: Workspace, apart: Workspace, workers: distributed.LocalCluster, bucket: str, tmp_path: Path
) -> None:
    """In the place of the first one in the bucket, which is turned no more."""
    here = world.copy(together.root, tmp_path / "here" / "cinema")
    there = spread(world.copy(apart.root, tmp_path / "there" / "cinema"), workers, bucket)
    ended = [world.turn(ws, world.SECOND).status for ws in (here, there)]
    assert ended[0] == ended[1]
    matrices = {name: content for name, content in far(there, bucket).items() if "/features/" in name}
    assert {**made(there), **matrices} == made(here)
    assert world.ends(there).generations == world.ends(here).generations


@pytest.mark.parametrize(
    ("files", "said"),
    [("s3://nobody-has-it/x", "does not answer as it should"), ("nowhere://x", "the workers' files cannot go there")],
)
def test_a_bucket_that_is_not_there_is_told(
    fresh: Workspace, workers: distributed.LocalCluster, files: str, said: str
) -> None:
    ws = spread(fresh, workers, files)
    with pytest.raises(FlywheelError, match=said) as caught:
        world.turn(ws, world.FIRST)
    assert f"[compute] files = '{files}" in str(caught.value)


def test_matrices_that_are_to_be_built_anew_are_so_in_the_bucket_too(
    apart: Workspace, workers: distributed.LocalCluster, bucket: str, tmp_path: Path
) -> None:
    ws = spread(world.copy(apart.root, tmp_path / "cinema"), workers, bucket)
    before, store = far(ws, bucket), fsspec.filesystem("s3")
    closed = {line.window for line in ws.ledger()}
    names = [name for name in before if "/features/" in name and Path(name).name[:10] in closed]
    (held,) = (json.loads(path.read_text()) for path in ws.cache.glob("exchange.json"))
    for name in names:
        store.pipe_file(f"{bucket.removeprefix('s3://')}/cinema-{held['token']}/{name}", b"other")
    with spreading.spreading(ws):
        backfill.features(ws, (None, None), afresh=True)
    after = far(ws, bucket)
    assert names
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    store.rm(f"{bucket.removeprefix('s3://')}/cinema-{held['token']}", recursive=True)  # it is a cache
    with spreading.spreading(ws):
        backfill.features(ws, (None, None), afresh=False)
    after = far(ws, bucket)
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


def test_a_worker_takes_no_older_ledger_or_shard_for_the_one_it_was_sent(
    fresh: Workspace, bucket: str, tmp_path: Path
) -> None:
    driver, worker = (exchange.Exchange(root, f"{bucket}/{tmp_path.name}") for root in (fresh.root, tmp_path / "own"))
    closing.take(fresh, world.closes(3), world.closes(12))
    with exchange.through(driver):
        (offered,) = closing.Closing.begin(fresh)._offered([fresh.config.windows.grid.parse("2026-01-05")])
        part = closing_together.Part.begin(fresh, [])
        paths = [path for name in offered.shards for path in Spool(fresh.inbox, fresh.config.windows.grid).files(name)]
        exchange.send(paths, anew=True)
        work = dask_cluster._pack(partial(closing_together._close, part), fresh.root)
    own = [worker.root / path.relative_to(driver.root) for path in paths]
    for path in own:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of a delivery that was taken again since")
    with exchange.through(worker):
        made = pickle.loads(work)(closing_together.Asked(offered))
    assert isinstance(made, closing_together.Made), made
    elsewhere = Workspace(worker.root, fresh.config.told)
    chains = []
    for count in (3, 4):
        assert isinstance(close(fresh, count), list)
        with exchange.through(driver):
            dataset.send(fresh.data)
        with exchange.through(worker):
            chains.append(fitting._matrices(elsewhere, fresh.recipe).chain)
    assert [len(chain) for chain in chains] == [3, 4]


class Killing(distributed.SchedulerPlugin):
    """Kills the worker that is given the first of some work, as soon as it has it."""

    name = "killing"

    def __init__(self, cluster: distributed.LocalCluster, *works: str) -> None:
        self.cluster, self.works, self.killed = cluster, list(works), []

    def transition(self, key, start, finish, *_, **__) -> None:
        work = next((w for w in self.works if key.startswith(w)), None)
        if work and finish == "processing":
            pid = self.cluster.scheduler.tasks[key].processing_on.pid
            if pid in self.killed:  # which is not known yet: the work will be another's
                return
            self.works.remove(work)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)


@pytest.mark.parametrize("in_a_bucket", [False, True])
def test_workers_that_are_killed_in_the_middle_change_nothing(
    fresh: Workspace, together: Workspace, workers: distributed.LocalCluster, bucket: str, *, in_a_bucket: bool
) -> None:
    ws = spread(fresh, workers, bucket if in_a_bucket else None)
    killing = Killing(workers, "_close", "_compare", "_tally", "_look", "_joined")
    workers.scheduler.add_plugin(killing)
    try:
        assert world.turn(ws, world.FIRST).status == "promoted"
    finally:
        workers.scheduler.remove_plugin(killing.name)
    assert len(set(killing.killed)) == 5
    matrices = {name: held for name, held in far(ws, bucket).items() if "/features/" in name} if in_a_bucket else {}
    assert {**made(ws), **matrices} == made(together)
    assert world.ends(ws).generations[0] == world.ends(together).generations[0]


UNIQUE = {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["request", "item"]}}
MOST = {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 1000}}
ITEMS = {"url": "items.csv", "key": "item", "column": "item_id", "numeric": ["year"], "lists": {"tags": "|"}}


def guarded(ws: Workspace) -> Workspace:
    """With attributes, with rows that may not clash in request and item, and with at most 1,000 of them a window."""
    lines = ["item_id,year,tags", *(f"i{number:04},{1990 + number},a|t{number % 3}" for number in range(20))]
    (ws.root / "items.csv").write_text("\n".join(lines), encoding="utf-8")
    suite = ws.expectations / "rows.json"
    held = json.loads(suite.read_text(encoding="utf-8"))
    demands = [{**demand, "severity": "critical"} for demand in (UNIQUE, MOST)]
    suite.write_text(json.dumps({**held, "expectations": [*held["expectations"], *demands]}), encoding="utf-8")
    return world.rewrite(ws.root, {**ws.config.model_dump(mode="json", exclude_none=True), "attributes": [ITEMS]})


def window(number: int) -> pa.Table:
    return world.days(3 * number, 3 * number + 3)


def row(number: int, name: str, request: str) -> pa.Table:
    """A row of a window like its first one, but for id and request."""
    return world.put(window(number).slice(0, 1), event_id=[name], request_id=[request])


def moved(rows: pa.Table, number: int) -> pa.Table:
    """The rows, dated in another window."""
    (first,) = window(number).slice(0, 1).to_pylist()
    return world.put(rows, ts=first["ts"], watched_ts=first["watched_ts"])


def close(ws: Workspace, count: int) -> list[LedgerLine] | BlockedError:
    """What comes of closing so many windows where the workspace says."""
    at = world.closes(count)
    closing.take(ws, at, world.closes(12))
    with spreading.spreading(ws):
        try:
            return closing.close(ws, at)
        except BlockedError as error:
            return error


def left(ws: Workspace) -> list[str]:
    """What of the inbox no window has consumed."""
    return sorted(str(path.relative_to(ws.inbox)) for path in ws.inbox.rglob("*.parquet"))


class Both:
    """A workspace twice: windows of one are closed here, those of the other by workers."""

    def __init__(
        self, ws: Workspace, workers: distributed.LocalCluster, folder: Path, files: str | None = None
    ) -> None:
        self.here = world.copy(ws.root, folder / "here" / "cinema")
        self.there = spread(world.copy(ws.root, folder / "there" / "cinema"), workers, files)

    def deliver(self, table: pa.Table, name: str = "more.csv") -> None:
        for ws in (self.here, self.there):
            world.deliver(ws, table, name)

    def close(self, count: int) -> list[LedgerLine] | BlockedError:
        """What comes of it and what it leaves, which is the same."""
        here, there = close(self.here, count), close(self.there, count)
        assert str(there) == str(here)
        assert made(self.there) == made(self.here)
        assert left(self.there) == left(self.here)
        assert not (self.there.cache / "closing").exists()
        return there


@pytest.fixture(params=[False, True], ids=["one folder", "a bucket"])
def both(
    request: pytest.FixtureRequest, fresh: Workspace, workers: distributed.LocalCluster, bucket: str, tmp_path: Path
) -> Both:
    return Both(guarded(fresh), workers, tmp_path, bucket if request.param else None)


@pytest.mark.parametrize("at_once", [1, 8])
def test_ids_sent_again_for_another_window_are_told_by_workers_as_well(
    both: Both, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is a duplicate where an earlier window kept its id, which hangs on what clashed there, and so on."""
    monkeypatch.setattr(closing, "WINDOWS_A_WORKER", at_once)
    old = window(0)
    sent = [
        row(1, old["event_id"][0].as_py(), "r1"),  # a duplicate,
        row(1, "kept", "r1"),  # so this one does not clash with it,
        row(2, "kept", "r2"),  # so this one is a duplicate
        *(row(1, name, "r3") for name in ("clashed", "other")),  # both quarantined,
        row(3, "clashed", "r4"),  # so this one is new
        row(3, "kept", "r5"),
        *(row(number, "new", "r6") for number in (2, 3)),
        moved(old, 5),  # so many that the window were blocked, were they no duplicates
    ]
    both.deliver(pa.concat_tables(sent))
    lines = both.close(8)
    assert isinstance(lines, list)
    assert [line.duplicate for line in lines] == [0, 1, 1, 2, 0, old.num_rows, 0, 0]
    assert [line.quarantined for line in lines] == [0, 2, 0, 0, 0, 0, 0, 0]


def test_a_blocked_window_stops_workers_as_well(both: Both) -> None:
    more = world.put(window(0), event_id=[f"more {number}" for number in range(window(0).num_rows)])
    both.deliver(pa.concat_tables([moved(more, 3), row(5, "more 1", "r1")]))
    blocked = both.close(8)
    assert "window 2026-01-14 is blocked" in str(blocked)
    assert [line.window for line in both.there.ledger()] == ["2026-01-05", "2026-01-08", "2026-01-11"]
    for ws in (both.here, both.there):
        suite = ws.expectations / "rows.json"
        suite.write_text(suite.read_text(encoding="utf-8").replace("1000", "2000"), encoding="utf-8")
    lines = both.close(8)
    assert isinstance(lines, list)
    assert [line.duplicate for line in lines] == [0, 0, 1, 0, 0]


def test_late_rows_join_the_next_window_by_workers_as_well(both: Both) -> None:
    both.close(3)
    late = [row(0, "late", "r1"), window(1), row(4, "late", "r2"), row(3, window(2)["event_id"][5].as_py(), "r3")]
    both.deliver(pa.concat_tables(late))
    lines = both.close(8)
    assert isinstance(lines, list)
    assert [line.late for line in lines] == [1, 0, 0, 0, 0]
    assert [line.duplicate for line in lines] == [window(1).num_rows + 1, 1, 0, 0, 0]


def test_a_driver_that_is_killed_while_it_closes_changes_nothing(both: Both) -> None:
    at = world.closes(8)
    closing.take(both.there, at, world.closes(12))
    program = (
        "import sys; from pathlib import Path; from flows import closing, spreading; from tests.flows import world;"
        "from flywheel.workspace import Workspace; ws = Workspace.open(Path(sys.argv[1]));\n"
        "with spreading.spreading(ws): closing.close(ws, world.closes(8))"
    )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    killed = subprocess.run(
        [sys.executable, "-c", program, str(both.there.root)],
        env=os.environ | {"PYTHONPATH": path, "FLYWHEEL_FAILPOINT": "close:mid"},
        check=False,
    )
    assert killed.returncode == 137
    assert len(list((both.there.data / "events").iterdir())) == 1
    assert len(list((both.there.cache / "closing").glob("*/*/events"))) == 8
    both.close(8)


def test_a_worker_with_other_code_makes_no_window(both: Both) -> None:
    at = world.closes(8)
    closing.take(both.there, at, world.closes(12))
    part = replace(closing_together.Part.begin(both.there, []), code="other")
    (told,) = closing_together.make(map, part, [Offered(0, (), ())])
    assert isinstance(told, ConfigError)
    assert "a worker runs another version of Flywheel" in str(told)


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


def test_without_dask_it_is_said_how_to_install_it(turned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"Dask is not installed[\s\S]*pip install 'flywheel\[dask\]'"),
        spreading.spreading(turned, Compute(engine="dask")),
    ):
        pass
