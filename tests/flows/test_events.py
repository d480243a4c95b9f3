"""What each step came to is told, and so is what was killed; `status` knows it all while everything is down."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flows import deciding, inspect, journal, lock, moving, standing
from flywheel.errors import BlockedError
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("prefect", "mlflow", "dvc", "great_expectations", "xgboost")


def steps(ws: Workspace) -> list[str]:
    return [line["step"] for line in journal.read(ws.cache)]


def test_every_step_of_a_turn_is_told_with_its_turn(turned: Workspace) -> None:
    (turned.cache / journal.FILE).unlink()
    turn = world.turn(turned, world.SECOND)
    lines = journal.read(turned.cache)
    assert [line["step"] for line in lines] == [
        *("began", "collected", "closed", "versioned", "fitted", "examined", "promoted", "ended"),
    ]
    made = deciding.generation(turned, turn.generation)
    assert {line["turn"] for line in lines[4:]} == {made.turn_id}
    assert len({line["run"] for line in lines}) == 1
    assert (lines[2]["windows"], lines[3]["data"], lines[6]["generation"]) == (turn.closed, turn.dataset, 2)
    world.turn(turned, world.SECOND)
    moving.move_by_hand(turned, None, why="to see", dry_run=False)
    assert steps(turned)[8:] == [
        "began",
        "collected",
        "closed",
        "versioned",
        "skipped",
        "ended",
        *("began", "rolled back", "ended"),
    ]
    assert journal.last(journal.read(turned.cache), "turn") == journal.read(turned.cache)[12]


def test_a_turn_that_fails_is_told_with_the_reason(turned: Workspace) -> None:
    suite = {"name": "rows", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "no such"}}]}
    (turned.expectations / "rows.json").write_text(json.dumps(suite))
    with pytest.raises(BlockedError):
        world.turn(turned, world.SECOND)
    last = journal.read(turned.cache)[-1]
    assert (last["step"], last["error"]) == ("failed", "BlockedError")
    assert "is blocked" in last["reason"]
    assert standing.status(turned).last_turn == last


@pytest.mark.slow
def test_a_killed_run_is_found_and_told_to_everybody(turned: Workspace, shell: Shell) -> None:
    as_of = world.closes(world.SECOND).isoformat()
    assert shell.run(turned.root, "turn", "--as-of", as_of, env={"FLYWHEEL_FAILPOINT": "fit:after"}).code == 137
    note = json.loads((turned.cache / "lock.json").read_text())
    assert state_of(note["flow_run"])["type"] == "RUNNING"
    found = standing.status(turned)
    assert (found.now, found.killed) == ("", lock.named(note))
    assert "was killed; flywheel turn goes on" in shell.run(turned.root, "status").out
    assert shell.run(turned.root, "turn", "--as-of", as_of).code == 0
    assert standing.status(turned).killed == ""
    killed = next(line for line in journal.read(turned.cache) if line["step"] == "killed")
    assert killed["run"] == note["run"]
    state = state_of(note["flow_run"])
    assert (state["type"], state["message"]) == ("CRASHED", killed["reason"])
    assert steps(turned).count("killed") == 1


def test_what_holds_the_workspace_is_told_and_looking_disturbs_nobody(turned: Workspace) -> None:
    with lock.locked(turned.cache, "turn"):
        found = standing.status(turned)
        assert f"process {os.getpid()}" in found.now
    assert (standing.status(turned).now, standing.status(turned).killed) == ("", "")


def test_status_is_told_while_everything_is_down(turned: Workspace) -> None:
    (turned.root / "mlruns" / "mlflow.db").unlink()
    found = standing.status(turned)
    assert found.registry.startswith("the workspace has no MLflow store that can be read; ")
    assert (found.windows, found.up, found.next_turn) == (world.FIRST, None, None)


def test_a_glance_sees_what_the_registry_says(turned: Workspace) -> None:
    world.turn(turned, world.SECOND)
    seen = standing.status(turned)
    told = moving.aliases(turned)
    assert (seen.champion, seen.previous) == (told.champion, told.previous) == (2, 1)
    assert seen.generations == len(inspect.generations(turned)) == 2
    assert [(m.before, m.after) for m in seen.moves] == [(0, 1), (1, 2)]
    made = inspect.generations(turned)[-1]
    assert standing._registry(turned)[0].train_rows == made.train_rows


def test_status_loads_nothing_that_takes_seconds() -> None:
    program = f"import sys, flows.standing, flows.show; print([m for m in {HEAVY} if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"


def test_the_journal_is_bounded_and_survives_what_a_crash_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST", 2000)
    for number in range(100):
        journal.write(tmp_path, {"run": "r", "command": "turn", "turn": "", "step": "closed", "n": number})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5000
    with (tmp_path / journal.FILE).open("ab") as file:
        file.write(b'{"time": "2026')
    kept = [line["n"] for line in journal.read(tmp_path)]
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 10


def state_of(flow_run: str) -> dict[str, Any]:
    end = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/flow_runs/{flow_run}") as answer:
            state: dict[str, Any] = json.load(answer)["state"]
        if state or time.monotonic() > end:
            return state


def test_a_person_is_told_that_a_command_leaves_no_history(turned: Workspace, shell: Shell) -> None:
    as_of = world.closes(world.FIRST).isoformat()
    done = shell.run(turned.root, "turn", "--as-of", as_of, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert (done.code, done.out) == (0, "skipped: nothing new since generation 1\n")
    assert done.err.startswith("flywheel: This run leaves no Prefect history; http://127.0.0.1:9/api does not answer: ")
