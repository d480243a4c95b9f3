"""The past done again: what came late goes home, other rules are applied, and nothing is ever half."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import branching, closing, correcting, deciding, failpoints, inspect, rehearsing, replaying, rewriting
from flows.backfill import features
from flows.lock import locked
from flywheel.data import dataset
from flywheel.errors import BusyError, ConfigError
from flywheel.integrations import dvc_data, mlflow_registry
from flywheel.simulator.deliveries import write_table
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.live import Lived
from tests.flows.shell import Shell

NOW = datetime(2026, 4, 1, tzinfo=UTC)
ALL = (None, None)


def correct(ws: Workspace, reprocess: rewriting.Reprocess = "changed", most: int = 2) -> dict[str, rewriting.Redone]:
    done = correcting.correct(ws, ALL, reprocess, most, now=NOW, wait=False)
    return {one.window: one for one in done}


def late_log(root: Path) -> Workspace:
    """Ten windows closed; a fifth of the third window's events arrived when six were closed already."""
    for path in (root / "log").iterdir():
        path.unlink()
    log, some = world.days(0, 30), np.arange(world.days(0, 30).num_rows)
    third = np.asarray(log["ts"].cast(pa.int64())) // 86_400_000_000 - int(world.START.timestamp()) // 86_400
    late = (third >= 6) & (third < 9) & (some % 5 == 0)
    write_table(log.filter(pa.array(~late & (third < 18))), root / "log" / "0.parquet")
    ws = Workspace.open(root)
    at = world.closes(6)
    closing.take(ws, at, NOW)
    closing.close(ws, at)
    write_table(log.filter(pa.array(late | (third >= 18))), root / "log" / "1.parquet")
    at = world.closes(world.SECOND)
    closing.take(ws, at, NOW)
    closing.close(ws, at)
    closing.version(ws)
    return ws


@pytest.fixture(scope="module")
def late_root(fresh_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return late_log(world.copy(fresh_root, tmp_path_factory.mktemp("late") / "cinema").root).root


@pytest.fixture
def late(late_root: Path, tmp_path: Path) -> Workspace:
    return world.copy(late_root, tmp_path / "cinema")


def matrices(ws: Workspace) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Of each window the features of every row, by event."""
    cache, grid = ws.matrices(), ws.config.windows.grid
    cache.build([grid.parse(line.window) for line in ws.ledger()])
    for line in ws.ledger():
        ids = dataset.read_window(ws.data, line.window, ["event_id"])["event_id"].to_pylist()
        yield line.window, dict(zip(ids, map(bytes, cache.load(grid.parse(line.window))), strict=True))


def test_late_rows_go_home_and_nobody_knows_them_earlier(late: Workspace) -> None:
    before, pointer = late.ledger(), (late.root / "data.dvc").read_text()
    known = dict(matrices(late))
    done = correct(late)
    after = late.ledger()
    home, collector = after[2], after[6]
    count = before[6].late
    assert count > 100
    assert {name: one.status for name, one in done.items()} == {home.window: "rewritten"}
    assert done[home.window].why == f"{count} late rows"
    assert home.rows == before[2].rows + count == done[home.window].rows
    assert home.returned == count
    assert collector == before[6]
    assert [x for i, x in enumerate(after) if i != 2] == [x for i, x in enumerate(before) if i != 2]
    totals = dataset.totals(after)
    assert (totals.collected, totals.rows, totals.leaks) == (dataset.totals(before).collected, totals.collected, ())
    assert (late.root / "data.dvc").read_text() != pointer
    rows = dataset.read_window(late.data, home.window)
    given = rows.filter(rows["known_since"].is_valid())
    assert set(given["known_since"].to_pylist()) == {late.config.windows.grid.parse(collector.window)}
    assert not any(rows["late"].to_pylist())
    assert rows["ts"].to_pylist() == sorted(rows["ts"].to_pylist())
    shutil.rmtree(late.cache)
    for window, now in matrices(late):  # promise 2: the state, vocabulary included, is what it was
        assert {name: value for name, value in now.items() if name in known[window]} == known[window]
    assert correct(late) == {}


def test_a_window_gone_wrong_by_its_rules_is_closed_again_from_its_files(late: Workspace) -> None:
    suite = late.expectations / "rows.json"
    held = json.loads(suite.read_text())
    strict = [
        *held["expectations"],
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "position", "min_value": 2}},
    ]
    suite.write_text(json.dumps(held | {"expectations": strict}))
    late = world.amend(late.root, max_quarantined=1.0)
    before = late.ledger()
    told = correcting.ahead(late, ALL, "changed", NOW)
    assert {one.status for one in told.windows} == {"planned"}
    assert len(told.windows) == len(before)
    assert told.seconds is None
    correct(late)
    after = late.ledger()
    for old, new in zip(before, after, strict=True):
        assert new.rows < old.rows + new.returned
        assert new.collected == old.collected
        assert min(dataset.read_window(late.data, new.window, ["position"])["position"].to_pylist()) >= 2
        quarantined = dataset.read_quarantine(late.data, new.window)
        assert quarantined is not None
        assert quarantined.num_rows == new.quarantined > 0
    fresh = late_log(_afresh(late))
    correct(fresh)
    assert _files(fresh) == _files(late)  # as if it had been so from the start
    assert correcting.ahead(late, ALL, "all", NOW).seconds is not None


def _afresh(ws: Workspace) -> Path:
    """The same workspace before anything was collected."""
    root = ws.root.parent / "afresh"
    shutil.copytree(ws.root, root)
    for name in ("data", "inbox", ".flywheel"):
        shutil.rmtree(root / name)
    (root / "data.dvc").unlink()
    return root


def _files(ws: Workspace) -> dict[str, str]:
    return {name: sha for name, sha in world.ends(ws).files.items() if name != "ledger.parquet"} | {
        line.window: str(replace(line, shards=())) for line in ws.ledger()
    }


def test_a_window_whose_source_is_gone_stays_and_the_others_do_not(late: Workspace) -> None:
    before = late.ledger()
    (late.root / "log" / "1.parquet").unlink()
    late = world.amend(late.root, max_quarantined=0.5)
    done = list(correct(late).values())
    assert [one.status for one in done[6:]] == ["kept"] * 4
    assert done[6].why == "1.parquet is gone"
    assert [one.status for one in done[:6]] == ["rewritten"] * 6
    assert [x.events_sha256 for x in late.ledger()[6:]] == [x.events_sha256 for x in before[6:]]


def test_quarantined_rows_that_were_sent_again_go_home(turned: Workspace) -> None:
    late = world.amend(turned.root, contract={"timestamp": "ts"})
    window = late.ledger()[1].window
    done = replaying.replay(late, window, _held(late, window), NOW)
    assert "are back in the inbox" in done
    at = world.closes(world.SECOND)
    closing.take(late, at, NOW)
    closing.close(late, at)
    assert correct(late)[window].status == "rewritten"
    assert late.ledger()[1].returned == 1


def _held(ws: Workspace, window: str) -> pa.Table:
    row = dataset.read_window(ws.data, window).slice(0, 1).to_pylist()[0]
    raw = {
        name: row.get(role)
        for role, name in (
            ("item", "item_id"),
            ("user", "user_id"),
            ("request", "request_id"),
            ("position", "position"),
        )
    } | {"event_id": "sent-again", "ts": row["ts"].isoformat(), "watched": 1, "watched_ts": row["ts"].isoformat()}
    more = {name: row[name] for name in (*ws.config.contract.context, *ws.config.contract.outcomes)}
    lists = {name: sep.join(row[name]) for name, sep in ws.config.contract.lists.items()}
    text = json.dumps(raw | {"propensity": row.get("propensity")} | more | lists, default=str)
    return pa.table({"raw": [text]})


def test_one_failed_window_does_not_stop_the_others(late: Workspace, shell: Shell) -> None:
    suite = late.expectations / "rows.json"
    held = json.loads(suite.read_text())
    sizes = sorted(line.rows for line in late.ledger())
    most = {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": sizes[-1] - 1}}
    suite.write_text(json.dumps(held | {"expectations": [*held["expectations"], most]}))
    done = shell.run(late.root, "backfill", "--stage", "windows", "--reprocess", "changed", "--json")
    assert done.code == 1, done.said
    told = json.loads(done.out)
    assert [one["status"] for one in told].count("failed") == 1
    assert "1 of 10 windows failed" in done.err
    assert "--reprocess failed" in done.err
    suite.write_text(
        json.dumps(held | {"expectations": [*held["expectations"], most | {"kwargs": {"max_value": 10**6}}]})
    )
    again = shell.run(late.root, "backfill", "--stage", "windows", "--reprocess", "failed", "--json")
    assert again.code == 0, again.said
    assert [one["status"] for one in json.loads(again.out) if one["status"] != "unchanged"] == ["rewritten"]


def test_a_backfill_waits_for_no_turn_and_no_turn_for_it(late: Workspace, shell: Shell) -> None:
    with locked(late.cache, "turn"):
        busy = shell.run(late.root, "backfill", "--stage", "windows", "--reprocess", "changed")
        assert busy.code == 75, busy.said
        waiting = shell.start(late.root, "backfill", "--stage", "windows", "--reprocess", "changed", "--wait")
        time.sleep(2)
    assert waiting.done().code == 0
    with locked(branching.root_of(late), "backfill"), pytest.raises(BusyError):
        correct(late, "all")


def test_windows_that_close_meanwhile_are_carried_over(late: Workspace) -> None:
    asked = "meanwhile"
    branch = branching.begin(late, asked, lambda ledger: rewriting.choose(late, ALL, "changed", ledger))
    rewriting.remake(late, branch, 1)
    write_table(world.days(30, 33), late.root / "log" / "2.parquet")
    closing.take(late, world.closes(11), NOW)
    closing.close(late, world.closes(11))
    newest = late.ledger()[-1]
    assert branching.swap(late, branch) == [late.ledger()[2].window]
    assert late.ledger()[-1] == newest
    assert len(late.ledger()) == 11
    closing.Closing.begin(late)  # every file is the one that its line says
    calm = correct(late)
    assert calm == {}


@pytest.mark.slow
def test_promise_7_of_backfills(late: Workspace, tmp_path: Path, shell: Shell) -> None:
    late = world.amend(late.root, max_quarantined=0.5)
    argv = ("backfill", "--stage", "windows", "--reprocess", "changed", "--max-active", "2")
    calm = world.copy(late.root, tmp_path / "calm")
    assert shell.run(calm.root, *argv).code == 0
    before, champion = late.ledger(), inspect.status(late).champion
    for place in failpoints.BACKFILL:
        dead = shell.run(late.root, *argv, env={"FLYWHEEL_FAILPOINT": place})
        assert dead.code == 137, (place, dead.said)
        assert late.ledger() in (before, calm.ledger())
        closing.Closing.begin(late)
    assert shell.run(late.root, *argv).code == 0
    assert world.ends(late) == world.ends(calm)
    assert inspect.status(late).champion == champion
    assert not list(branching.root_of(late).glob("*/"))
    pointer = dvc_data.pointer(late.root)
    assert pointer is not None
    assert pointer.md5 == world.ends(calm).data


def test_what_stands_of_past_decisions(turned: Workspace) -> None:
    told = correcting.ahead(turned, ALL, "all", NOW)
    assert [(t.generation, t.verdict) for t in told.generations] == [(1, "promote")]
    assert (told.generations[0].trained, told.generations[0].examined) == (6, 1)
    assert mlflow_registry.state(deciding.open_store(turned)).champion == 1


def test_features_are_built_for_a_span(turned: Workspace) -> None:
    shutil.rmtree(turned.cache / "features")
    built = features(turned, (world.START, world.closes(2)), afresh=True)
    assert {one.status for one in built} == {"built"}
    assert len(list((turned.cache / "features").iterdir())) == len(built) < 8


def test_a_recipe_is_tried_beside_every_past_generation(turned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("def half_day(rows):\n    return rows['hour'] % 12\n")
    before = world.ends(turned)
    found = rehearsing.rehearse(turned, tmp_path, ALL)
    assert found.skipped == []
    (one,) = found.trials
    assert one.then == pytest.approx(deciding.generation(turned, 1).metrics["auc"])
    assert one.low <= one.difference <= one.high
    assert found.says.startswith("of 1 generations the recipe is ")
    assert world.ends(turned) == before
    same = rehearsing.rehearse(turned, turned.root, ALL)
    assert same.trials[0].difference == 0
    with pytest.raises(ConfigError, match="holds no recipe"):
        rehearsing.rehearse(turned, tmp_path / "nothing", ALL)


@pytest.mark.slow
def test_served_windows_come_out_the_same_from_the_inbox(lived_weeks: Lived, tmp_path: Path) -> None:
    ws = world.copy(lived_weeks.ws.root, tmp_path / "live")
    before = world.ends(ws)
    assert {one.status for one in correct(ws, "all").values()} == {"unchanged"}
    assert world.ends(ws) == before
