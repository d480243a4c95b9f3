"""A command that dies anywhere, or is stopped, is run again and ends as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import pytest

from flows import failpoints, fitting, inspect
from flywheel.data import dataset
from flywheel.learn.matrix import Cache
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell


@pytest.fixture(scope="session")
def undisturbed(turned_root: Path, tmp_path_factory: pytest.TempPathFactory) -> world.Ends:
    """What two turns come to that nobody killed; the second one moves `previous` and `champion`."""
    ws = world.copy(turned_root, tmp_path_factory.mktemp("undisturbed") / "cinema")
    assert world.turn(ws, world.SECOND).status == "promoted"
    return world.ends(ws)


@pytest.mark.slow
@pytest.mark.parametrize("place", failpoints.TURN)
def test_promise_7_run_it_again(place: str, turned: Workspace, shell: Shell, undisturbed: world.Ends) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    dead = shell.run(turned.root, "turn", "--as-of", as_of, env={"FLYWHEEL_FAILPOINT": place})
    assert (dead.code, dead.said) == (137, ""), f"{place} was never reached"
    champion = inspect.status(turned).champion
    assert champion in (1, 2)
    assert champion == 1 or place in ("promote:mid", "promote:after")
    again = world.turn(turned, world.SECOND)
    assert again.generation == 2
    assert world.ends(turned) == undisturbed
    assert not list(turned.root.rglob("*.flywheel-tmp"))
    assert not list((turned.inbox / "shards").glob(".*"))
    assert not consumed(turned)
    assert world.turn(turned, world.SECOND).status == "skipped"
    assert world.ends(turned) == undisturbed


@pytest.mark.slow
def test_promise_7_also_of_the_very_first_turn_and_through_the_command(
    fresh: Workspace, turned: Workspace, shell: Shell
) -> None:
    as_of = world.closes(world.FIRST).isoformat()
    for place in ("take:mid", "close:mid", "version:before", "record:mid", "promote:before"):
        assert shell.run(fresh.root, "turn", "--as-of", as_of, env={"FLYWHEEL_FAILPOINT": place}).code == 137, place
    done = shell.run(fresh.root, "turn", "--as-of", as_of)
    assert (done.code, done.err) == (0, "")
    assert "promoted: AUC " in done.out
    assert world.ends(fresh) == world.ends(turned)


@pytest.mark.slow
def test_windows_that_were_closed_before_a_kill_are_versioned_though_no_generation_follows(
    fresh: Workspace, shell: Shell
) -> None:
    killed = shell.run(
        fresh.root, "turn", "--as-of", world.closes(1).isoformat(), env={"FLYWHEEL_FAILPOINT": "version:before"}
    )
    assert killed.code == 137
    assert not (fresh.root / "data.dvc").exists()
    assert world.turn(fresh, 1).status == "skipped"
    assert world.ends(fresh).data.endswith(".dir")


@pytest.mark.slow
def test_an_interrupted_turn_stops_soon_and_says_how_to_resume(
    turned: Workspace, shell: Shell, undisturbed: world.Ends
) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    endless = {"FLYWHEEL_TRAIN__ROUNDS": "1000000"}
    running = shell.start(turned.root, "turn", "--as-of", as_of, env=endless)
    wait_for(turned, running.pid, "features")
    asked = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    done = running.done(30)
    assert time.monotonic() - asked < 10
    assert done.code == 130
    assert done.said == "flywheel: stopped; run the same command again to resume\n"
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert world.ends(turned) == undisturbed


def test_an_interrupt_while_xgboost_reads_its_rows_stops_the_turn(
    turned: Workspace, undisturbed: world.Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it would be dropped, and XGBoost would go on with rows it was never given: a segmentation fault."""
    real = Cache.load
    asked: list[int] = []

    def interrupted(cache: Cache, window: int) -> object:
        if not asked:
            asked.append(window)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return real(cache, window)

    monkeypatch.setattr(Cache, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.turn(turned, world.SECOND)
    assert asked
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert world.ends(turned) == undisturbed


def test_a_fit_that_memory_does_not_hold_makes_the_same_generation(
    turned: Workspace, undisturbed: world.Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SHARE", 0)
    left = turned.cache / "pages" / "of-a-fit-that-was-killed"
    left.parent.mkdir()
    left.touch()
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert world.ends(turned) == undisturbed
    assert not left.parent.exists()


@pytest.mark.slow
def test_a_terminated_turn_stops_soon_and_can_be_run_again(
    turned: Workspace, shell: Shell, undisturbed: world.Ends
) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    running = shell.start(turned.root, "turn", "--as-of", as_of, env={"FLYWHEEL_TRAIN__ROUNDS": "1000000"})
    wait_for(turned, running.pid, "features")
    asked = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    done = running.done(30)
    assert time.monotonic() - asked < 10
    assert done.code == 143
    assert done.said == "flywheel: stopped; run the same command again to resume\n"
    world.turn(turned, world.SECOND)
    assert world.ends(turned) == undisturbed


@pytest.mark.slow
def test_an_interrupted_backfill_resumes_where_it_stopped(fresh: Workspace, shell: Shell) -> None:
    argv = ("backfill", "--every", "6d", "--to", world.closes(world.SECOND).isoformat())
    dead = shell.run(fresh.root, *argv, env={"FLYWHEEL_FAILPOINT": "record:after"})
    assert dead.code == 137
    made = [g.turn_id for g in inspect.generations(fresh)]
    assert len(made) == 1
    done = shell.run(fresh.root, *argv, "--json")
    assert done.code == 0, done.said
    generations = inspect.generations(fresh)
    assert len(generations) > 1
    assert [g.turn_id for g in generations][:1] == made
    assert len({g.turn_id for g in generations}) == len(generations)
    assert inspect.status(fresh).champion == 0
    assert str(dataset.totals(fresh.ledger())) == "yield 100.0 %: 8,016 of 8,016 rows; lost nothing"


def consumed(ws: Workspace) -> list[Path]:
    """What is still in the inbox of that which windows have consumed."""
    shards = [ws.inbox / "shards" / shard for line in ws.ledger() for shard in line.shards]
    return [path for shard in shards for path in shard.parent.glob(f"{shard.name}.*parquet")]


def wait_for(ws: Workspace, pid: int, stage: str) -> None:
    """Wait until a running turn has closed its windows and works on its features or its fit."""
    before = len(ws.ledger())
    end = time.monotonic() + 60
    while len(ws.ledger()) < before + 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end, stage
    time.sleep(2)
    os.kill(pid, 0)
