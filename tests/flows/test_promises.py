"""The promises of DESIGN.md that concern a whole turn; 2 and 5 are kept in tests/properties, 7 in test_run_again."""

import pickletools
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows import closing, deciding, inspect, rebuilding
from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.integrations import mlflow_registry
from flywheel.records import LedgerLine
from flywheel.simulator.deliveries import spoil_rows, write_table
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace
from tests.flows import world

KINDS = ("repeated", "contradicted", "naive", "far_off", "no_user", "no_label", "impossible_propensity", "odd_device")


def collect(ws: Workspace, count: int) -> list[LedgerLine]:
    """Take and close, without the rest of a turn."""
    at = world.closes(count)
    closing.take(ws, at, world.closes(world.SECOND))
    return closing.close(ws, at)


def test_promise_1_a_window_closes_once(turned: Workspace) -> None:
    before = world.ends(turned)
    stamps = {path: path.stat().st_mtime_ns for path in (turned.data / "events").iterdir()}
    contradicting, _ = spoil_rows(world.days(0, 20), seed=5)
    write_table(contradicting, turned.root / "log" / "again.parquet")
    collect(turned, world.SECOND)
    after = world.ends(turned)
    assert {name: after.files[name] for name in before.files if name != "ledger.parquet"} == {
        name: sha for name, sha in before.files.items() if name != "ledger.parquet"
    }
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert [line.window for line in turned.ledger()[:8]] == sorted(path.stem for path in stamps)
    closed, name = turned.ledger()[0], turned.ledger()[0].window
    rows = dataset.read_window(turned.data, name)
    with pytest.raises(IntegrityError, match="a window closes once"):
        dataset.write_window(turned.data, name, rows.slice(1), pa.table({}))
    with pytest.raises(IntegrityError, match="a window closes once"):
        dataset.append(turned.data, LedgerLine(**{**closed.__dict__, "rows": closed.rows - 1, "late": 1}))


def test_promise_3_nothing_is_lost_silently(fresh: Workspace) -> None:
    for path in (fresh.root / "log").iterdir():
        path.unlink()
    expected: dict[str, int] = dict.fromkeys((*KINDS, "untouched"), 0)
    spoiled: list[pa.Table] = []
    for start in range(0, 30, 6):
        table, counts = spoil_rows(world.days(start, start + 6), seed=start)
        write_table(table, fresh.root / "log" / f"{start:02}.parquet")
        spoiled.append(table)
        expected = {name: expected[name] + counts[name] for name in expected}
    collect(fresh, world.SECOND)
    totals = dataset.totals(fresh.ledger())
    assert totals.collected == sum(table.num_rows for table in spoiled)
    lost = dict(totals.leaks)
    reasons = [
        reason
        for line in fresh.ledger()
        if (held := dataset.read_quarantine(fresh.data, line.window)) is not None
        for row in held["reasons"].to_pylist()
        for reason in row
    ]
    told = {
        "contradicted": sum(reason == "same event id, other content" for reason in reasons),
        "naive": sum("zone" in reason for reason in reasons),
        "far_off": sum("lies in the future" in reason for reason in reasons),
        "no_user": sum("user" in reason for reason in reasons),
        "no_label": sum("watched" in reason for reason in reasons),
        "impossible_propensity": sum("propensity" in reason for reason in reasons),
    }
    assert told == {name: expected[name] for name in told}
    assert lost["duplicate"] == expected["repeated"]
    assert lost["quarantined"] == sum(told.values())
    assert "late" not in lost
    assert (
        totals.rows == expected["untouched"] + expected["repeated"] + expected["contradicted"] + expected["odd_device"]
    )
    for line in fresh.ledger():
        files = dataset.read_window(fresh.data, line.window, ["late", "label"])
        held = dataset.read_quarantine(fresh.data, line.window)
        assert files.num_rows == line.rows + line.late + line.unlabelled
        assert (held.num_rows if held is not None else 0) == line.quarantined
    consumed = frozenset(shard for line in fresh.ledger() for shard in line.shards)
    spool = Spool(fresh.inbox, fresh.config.windows.grid)
    assert (spool.still_open(consumed), spool.rejected_open(consumed)) == ({}, 0)


@given(
    order=st.permutations(range(5)),
    pace=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    seed=st.integers(0, 9),
)
@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate])
def test_promise_3_holds_for_deliveries_in_any_order_and_at_any_pace(
    fresh_root: Path, tmp_path_factory: pytest.TempPathFactory, order: list[int], pace: list[int], seed: int
) -> None:
    ws = world.copy(fresh_root, tmp_path_factory.mktemp("order") / "cinema")
    waiting = []
    for path in sorted((ws.root / "log").iterdir()):
        path.unlink()
    for part in order:
        table, _ = spoil_rows(world.days(part * 6, part * 6 + 6), seed=seed)
        waiting.append((f"{part}.parquet", table))
    arrived = windows = 0
    for step in (*pace, 5):
        for name, table in waiting[:step]:
            write_table(table, ws.root / "log" / name)
            arrived += table.num_rows
        del waiting[:step]
        windows = min(world.SECOND, windows + 2 * step)
        collect(ws, windows)
        ledger = ws.ledger()
        consumed = frozenset(shard for line in ledger for shard in line.shards)
        spool = Spool(ws.inbox, ws.config.windows.grid)
        still = sum(spool.still_open(consumed).values()) + spool.rejected_open(consumed)
        assert dataset.totals(ledger).collected + still == arrived
        for line in ledger:
            assert line.collected == line.rows + line.duplicate + line.quarantined + line.unlabelled + line.late


def test_promise_4_one_exam(turned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored scores are made absurd, and decide nothing; the champion sits the exam again, on the same rows."""
    store = deciding.open_store(turned)
    held = deciding.generation(turned, 1)
    store.client.log_metric(held.run_id, "auc", 0.999, step=held.train_rows + 1)
    assert deciding.generation(turned, 1).metrics["auc"] == 0.999
    seen: list[tuple[Any, ...]] = []
    real = deciding.learning.evaluate.evaluate

    def watched(labels: Any, challenger: Any, champion: Any, **rest: Any) -> Any:
        seen.append((labels.tobytes(), len(labels), len(challenger), len(champion)))
        return real(labels, challenger, champion, **rest)

    monkeypatch.setattr(deciding.learning.evaluate, "evaluate", watched)
    assert world.turn(turned, world.SECOND).status == "promoted"
    made = deciding.generation(turned, 2)
    assert len({labels for labels, *_ in seen}) == 1
    assert all(sizes[0] == sizes[1] == sizes[2] == made.exam_rows for _, *sizes in seen)
    assert made.difference is not None
    grid = turned.config.windows.grid
    exam = grid.start(grid.parse(made.exam_windows[0]))
    for generation in (held, made):
        assert grid.closes_at(grid.parse(generation.trained_windows[1])) <= exam


class _Stopped(Exception):
    """Stands for a kill between two calls to the registry."""


def test_promise_6_the_alias_moves_last_and_once(turned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after any number of the calls that write to the registry: old champion or new one, then promoted once."""
    turned = world.amend(turned.root)
    store = deciding.open_store(turned)
    calls: list[str] = []
    allowed = [0]
    for name in ("record", "point", "register"):
        real = getattr(mlflow_registry, name)

        def counted(*args: Any, real: Any = real, name: str = name, **rest: Any) -> Any:
            if len(calls) >= allowed[0]:
                raise _Stopped(name)
            calls.append(f"{name} {args[1]}" if name == "point" else name)
            return real(*args, **rest)

        monkeypatch.setattr(mlflow_registry, name, counted)
    champions = []
    for count in range(12):
        allowed[0] = len(calls) + count
        with suppress(_Stopped):
            world.turn(turned, world.SECOND)
            champions.append(mlflow_registry.state(store).champion)
            break
        champions.append(mlflow_registry.state(store).champion)
    assert champions[-1] == 2
    assert champions == sorted(champions)
    assert set(champions) == {1, 2}
    assert calls.count("point champion") == 1
    assert [(m.before, m.after) for m in mlflow_registry.moves(store)] == [(0, 1), (1, 2)]
    assert [g.generation for g in inspect.generations(turned)] == [1, 2]


def test_promise_9_a_generation_can_be_rebuilt(turned: Workspace) -> None:
    world.turn(turned, world.SECOND)
    world.amend(turned.root, train={"seed": 99, "rounds": 3})  # what the workspace says today is not asked
    pointer = (turned.root / "data.dvc").read_bytes()
    for path in turned.data.rglob("*.parquet"):
        path.unlink()
    ws = Workspace.open(turned.root)
    told = rebuilding.rebuild(ws, 1, on_progress=_quiet)
    assert told.identical, told.says
    assert (turned.root / "data.dvc").read_bytes() == pointer
    assert not list(turned.data.rglob("*.parquet"))


def test_promise_9_notices_what_is_not_the_same(turned: Workspace) -> None:
    store, made = deciding.open_store(turned), deciding.generation(turned, 1)
    store.client.set_tag(made.run_id, "matrix_hash", "0" * 32)
    store.client.log_metric(made.run_id, "auc", 0.5, step=made.train_rows + 1)
    told = rebuilding.rebuild(turned, 1, on_progress=_quiet)
    assert not told.identical
    assert not told.same_matrix
    assert "auc 0.500000" in told.says


def test_promise_10_no_pickles(turned: Workspace) -> None:
    """Every file that a turn leaves is looked into, whatever it is called."""
    world.turn(turned, world.SECOND)
    kinds = set()
    for path in turned.root.rglob("*"):
        if not path.is_file() or ".git" in path.parts:
            continue
        kinds.add(path.suffix)
        head = path.read_bytes()[:4096]
        assert path.suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".cloudpickle"), path
        assert not _is_pickle(path.read_bytes()), path
        assert not zipfile.is_zipfile(path), path
        if head.startswith(b"\x93NUMPY"):
            assert b"'|O'" not in head, path
        if path.name == "MLmodel":
            assert "pickle" not in path.read_text(), path
    assert {".ubj", ".npy", ".json", ".parquet"} <= kinds


def _is_pickle(content: bytes) -> bool:
    if not content.startswith(b"\x80") or not content.endswith(b"."):
        return False
    try:
        list(pickletools.genops(content))
    except (ValueError, EOFError):
        return False
    return True


class _quiet:
    def __enter__(self) -> Any:
        return lambda *_: None

    def __exit__(self, *_: object) -> None:
        return None
