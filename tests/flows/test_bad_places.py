"""What may happen to a workspace's own files: caches are made again, everything else is noticed, nothing is overrun."""

import json
import multiprocessing
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from flows import deciding, inspect, moving, replaying
from flows.lock import locked
from flywheel.data import dataset
from flywheel.errors import BlockedError, BusyError, IntegrityError, RegistryError
from flywheel.fingerprint import Seen
from flywheel.integrations import mlflow_registry
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell

HARMS: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: path.write_bytes(_flipped(path.read_bytes())),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "other": lambda path: path.write_text("[1, 2"),
}
CACHES = (
    "state/*/manifest.json",
    "state/*/*.npy",
    "features/*.npy",
    "ids/manifest.json",
    "ids/*.npy",
    "seen.json",
    "turns/*/model.ubj",
    "turns/*/trained.json",
    "lock.json",
)


def look(ws: Workspace) -> None:
    """Have all files hashed and remembered as right."""
    time.sleep(0.06)
    dataset.verify_windows(ws.data, ws.ledger(), Seen(ws.cache / "seen.json"))


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.fixture(scope="session")
def expected(turned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> world.Ends:
    ws = world.copy(turned_root, tmp_path_factory.mktemp("expected") / "cinema")
    assert world.turn(ws, world.SECOND).status == "promoted"
    return world.ends(ws)


@pytest.mark.parametrize("harm", HARMS)
def test_damaged_caches_are_made_again(turned: Workspace, expected: world.Ends, harm: str) -> None:
    """All files of every kind at once; each kind is there to be damaged."""
    look(turned)
    for pattern in CACHES:
        paths = [path for path in turned.cache.glob(pattern) if path.stat().st_size]
        assert paths, pattern
        for path in paths:
            HARMS[harm](path)
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert world.ends(turned) == expected


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("state/*/manifest.json", "flipped"),
        ("state/*/*.npy", "flipped"),
        ("state/*/*.npy", "empty"),
        ("features/*.npy", "empty"),
        ("ids/*.npy", "flipped"),
        ("ids/*.npy", "empty"),
    ],
)
def test_a_damaged_cache_beside_whole_ones_is_made_again(
    turned: Workspace, expected: world.Ends, pattern: str, harm: str
) -> None:
    """The manifest is whole and names files that are not, and the other way round."""
    paths = list(turned.cache.glob(pattern))
    assert paths
    for path in paths:
        HARMS[harm](path)
    world.turn(turned, world.SECOND)
    assert world.ends(turned) == expected


def test_a_fitted_challenger_that_was_damaged_is_fitted_again(
    turned: Workspace, shell: Shell, expected: world.Ends
) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    assert shell.run(turned.root, "turn", "--as-of", as_of, env={"FLYWHEEL_FAILPOINT": "fit:after"}).code == 137
    newest = max(turned.cache.glob("turns/*"), key=lambda path: path.stat().st_mtime)
    HARMS["flipped"](newest / "model.ubj")
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert world.ends(turned) == expected


def test_without_its_caches_a_workspace_loses_time_and_nothing_else(turned: Workspace, expected: world.Ends) -> None:
    before = world.ends(turned)
    shutil.rmtree(turned.cache)
    assert world.ends(turned) == before
    assert world.turn(turned, world.SECOND).status == "promoted"
    shutil.rmtree(turned.cache)
    assert world.turn(turned, world.SECOND).status == "skipped"
    assert world.ends(turned) == expected


@pytest.mark.parametrize("name", ["model.ubj", "columns.json", "golden.npy"])
def test_a_champion_with_a_byte_flipped_is_not_used(turned: Workspace, name: str) -> None:
    path = next((turned.root / "mlruns").rglob(name))
    whole = path.read_bytes()
    path.write_bytes(_flipped(whole))
    with pytest.raises(IntegrityError, match=f"has a {name} that is not what was written") as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert "flywheel rollback" in caught.value.next
    assert inspect.status(turned).champion == 1
    assert len(inspect.generations(turned)) == 1
    path.write_bytes(whole)
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert inspect.status(turned).generations == 2


def test_a_generation_that_cannot_be_loaded_is_not_promoted_by_hand(turned: Workspace) -> None:
    world.turn(turned, world.SECOND)
    store = deciding.open_store(turned)
    folder = store.local(store.client.get_model_version_download_uri(turned.config.product.name, "1"))
    (folder / "model.ubj").unlink()
    before = mlflow_registry.moves(store)
    for move in (
        lambda: moving.move_by_hand(turned, None, why="to see", dry_run=False),
        lambda: moving.move_by_hand(turned, 1, why="to see", dry_run=False),
    ):
        with pytest.raises(IntegrityError, match=r"generation 1 has lost model\.ubj"):
            move()
    assert (inspect.status(turned).champion, inspect.status(turned).previous) == (2, 1)
    assert mlflow_registry.moves(store) == before


@pytest.mark.parametrize("harm", ["gone", "empty", "other"])
def test_without_its_registry_nothing_is_begun(turned: Workspace, harm: str) -> None:
    """An absent registry is no empty one: nobody is taken for the first champion."""
    path = turned.root / "mlruns" / "mlflow.db"
    whole, files = path.read_bytes(), sorted(turned.data.rglob("*"))
    HARMS[harm](path)
    with pytest.raises(RegistryError) as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert "mlruns" in caught.value.next
    assert sorted(turned.data.rglob("*")) == files
    path.write_bytes(whole)
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert inspect.status(turned).previous == 1


def test_a_blocked_window_keeps_those_before_it_closed(fresh: Workspace, shell: Shell) -> None:
    path = fresh.root / "expectations" / "rows.json"
    suite = path.read_text()
    demanding = json.loads(suite)
    rows = {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 850}, "severity": "critical"}
    demanding["expectations"].append(rows)
    path.write_text(json.dumps(demanding))
    as_of = world.closes(world.FIRST).isoformat()
    done = shell.run(fresh.root, "turn", "--as-of", as_of)
    assert done.code == BlockedError.exit_code == 3
    world.told_well(done.err)
    assert "window 2026-01-14 is blocked" in done.err
    assert "888" in done.err
    assert [line.window for line in fresh.ledger()] == ["2026-01-05", "2026-01-08", "2026-01-11"]
    assert sorted(path.stem for path in (fresh.data / "events").iterdir()) == ["2026-01-05", "2026-01-08", "2026-01-11"]
    blocked = world.ends(fresh)
    assert blocked.data.endswith(".dir")
    assert blocked.generations == ()
    with pytest.raises(BlockedError, match="window 2026-01-14 is blocked"):
        world.turn(fresh, world.FIRST)
    assert world.ends(fresh) == blocked
    path.write_text(suite)
    assert world.turn(fresh, world.FIRST).closed == 5
    assert {name: world.ends(fresh).files[name] for name in blocked.files if "events" in name} == {
        name: sha for name, sha in blocked.files.items() if "events" in name
    }


def test_a_warning_blocks_nothing(fresh: Workspace) -> None:
    path = fresh.root / "expectations" / "rows.json"
    suite = json.loads(path.read_text())
    rows = {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 1}, "severity": "warning"}
    suite["expectations"].append(rows)
    path.write_text(json.dumps(suite))
    assert world.turn(fresh, 3).closed == 3


def _hold(cache: Path, held: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with locked(cache, "turn"):
        held.set()
        done.wait(60)


def test_of_two_turns_at_once_the_second_says_who_is_first(turned: Workspace, shell: Shell) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(turned.cache, held, done))
    other.start()
    assert held.wait(30)
    before = world.ends(turned)
    with pytest.raises(BusyError, match="the workspace is busy"):
        replaying.replay(turned, "2026-01-05", pa.table({"raw": ["{}"]}), world.closes(12))
    for command in (("turn", "--as-of", as_of), ("backfill", "--every", "6d")):
        second = shell.run(turned.root, *command)
        assert second.code == BusyError.exit_code == 75
        world.told_well(second.err)
        assert f"process {other.pid} on {socket.gethostname()} since 20" in second.err
        assert f"next:  flywheel {command[0]} --wait" in second.err
    assert world.ends(turned) == before
    waiting = shell.start(turned.root, "turn", "--as-of", as_of, "--wait")
    time.sleep(3)
    assert world.ends(turned) == before
    done.set()
    other.join()
    waited = waiting.done()
    assert (waited.code, waited.err) == (0, "")
    assert inspect.status(turned).champion == 2


@pytest.mark.parametrize(
    "note", ['{"pid": 1, "host": "gone", "since": "2020", "command": "turn"}', "", "{", "[]", None]
)
def test_what_a_dead_process_left_of_the_lock_blocks_nothing(turned: Workspace, note: str | None) -> None:
    (turned.cache / "lock").touch()
    (turned.cache / "lock.json").unlink(missing_ok=True)
    if note is not None:
        (turned.cache / "lock.json").write_text(note)
    with locked(turned.cache, "turn"):
        pass
    with FileLock(turned.cache / "lock"):
        if note is not None:
            (turned.cache / "lock.json").write_text(note)
        with pytest.raises(BusyError, match="the workspace is busy"), locked(turned.cache, "turn"):
            pass


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which only root may")
def test_a_workspace_that_cannot_be_written_is_told_at_the_start(
    turned_root: Path, shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = Path("/tmp") / f"flywheel-read-only-{os.getpid()}"
    try:
        ws = world.copy(turned_root, root)
        for path in (root, *root.rglob("*")):
            path.chmod(path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH) | stat.S_IROTH | (path.is_dir() and 0o005))
        before = world.ends(ws)
        done = shell.run(root, "turn", "--as-of", world.closes(world.SECOND).isoformat(), uid=65534)
        assert done.code == 1
        world.told_well(done.err)
        assert "the workspace cannot be written" in done.err
        assert world.ends(ws) == before
    finally:
        shutil.rmtree(root)
