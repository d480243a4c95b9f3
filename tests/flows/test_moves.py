"""What moves the champion, and what comes back: changes under the gate, rollbacks, late events, replayed rows, git."""

import json
import subprocess
from typing import Any

import pytest

from flows import closing, deciding, inspect, moving
from flywheel.data import dataset
from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_registry, mlflow_tracking
from flywheel.learn.promote import Aliases
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace
from tests.flows import world


def test_a_champion_changed_during_the_gate_is_not_overwritten_unseen(
    turned: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody moves the alias in MLflow while the challenger is examined against the champion of before."""
    world.turn(turned, world.SECOND)
    store = deciding.open_store(turned)
    world.deliver(turned, world.days(30, 36))
    world.amend(turned.root, gate={"superiority": 0.5, "margin": 0.9, "slice_margin": 0.9})
    real = deciding.gate.decide

    def meddled(*args: Any, **rest: Any) -> Any:
        store.client.set_registered_model_alias("cinema", "champion", "1")
        verdict = real(*args, **rest)
        return type(verdict)("promote", "it is better, as this test needs it to be", verdict.findings)

    monkeypatch.setattr(deciding.gate, "decide", meddled)
    with pytest.raises(RegistryError, match="champion changed from 2 to 1 during the gate") as caught:
        world.turn(turned, 12)
    world.told_well(f"flywheel: {caught.value}\n")
    assert "nothing moved" in caught.value.why
    assert mlflow_registry.state(store).champion == 1
    assert [(m.before, m.after) for m in mlflow_registry.moves(store)] == [(0, 1), (1, 2)]
    monkeypatch.undo()
    again = world.turn(turned, 12)
    assert (again.status, again.generation) == ("skipped", 3)
    assert mlflow_registry.state(store).champion == 1
    moved = moving.move_by_hand(turned, 3, why="looked at it", dry_run=False)
    assert (moved.before, moved.after) == (1, 3)


def test_a_rollback_is_not_undone_by_the_next_turn(turned: Workspace) -> None:
    world.turn(turned, world.SECOND)
    rehearsed = moving.move_by_hand(turned, None, why="complaints", dry_run=True)
    assert (rehearsed.before, rehearsed.after) == (2, 1)
    assert inspect.status(turned).champion == 2
    moving.move_by_hand(turned, None, why="complaints", dry_run=False)
    assert world.turn(turned, world.SECOND).status == "skipped"
    state = inspect.status(turned)
    assert (state.champion, state.previous) == (1, 2)
    assert [(m.action, m.before, m.after, m.why) for m in state.moves][-1] == ("rollback", 2, 1, "complaints")
    moving.move_by_hand(turned, None, why="no, it was fine", dry_run=False)
    assert inspect.status(turned).champion == 2
    with pytest.raises(RegistryError, match="the champion was moved while the monitor looked"):
        moving.take_back(turned, Aliases(champion=1, previous=2), "what it saw of another")
    assert inspect.status(turned).champion == 2


def test_a_run_that_was_finished_and_not_registered_is_registered_once(turned: Workspace) -> None:
    """As a kill between the two would leave it; `test_promise_7` kills there, this looks at what is taken up."""
    store = deciding.open_store(turned)
    calls: list[str] = []
    real = mlflow_registry.register

    def dies(*args: Any) -> int:
        calls.append(args[1])
        raise KeyboardInterrupt

    deciding.mlflow_registry.register = dies
    try:
        with pytest.raises(KeyboardInterrupt):
            world.turn(turned, world.SECOND)
    finally:
        deciding.mlflow_registry.register = real
    assert mlflow_registry.state(store).generations == {1}
    assert world.turn(turned, world.SECOND).status == "promoted"
    assert deciding.generation(turned, 2).run_id == calls[0]
    assert mlflow_registry.state(store).generations == {1, 2}
    assert mlflow_tracking.unfinished(store) == 0


def test_exit_codes_tell_skipped_from_refused(turned: Workspace) -> None:
    assert world.turn(turned, world.FIRST).status == "skipped"
    world.amend(turned.root, train={"min_rows": 1_000_000})
    few = world.turn(turned, world.SECOND)
    assert (few.status, few.generation) == ("skipped", 0)
    assert "training rows; it takes 1,000,000" in few.reason


def test_late_events_join_the_next_window_and_teach_from_then_on(turned: Workspace, fresh: Workspace) -> None:
    """Of a week that was closed long ago: not training rows, but what the state knows from the next window on."""
    old = world.days(0, 3)
    ids = [f"late-{n}" for n in range(old.num_rows)]
    world.deliver(turned, world.put(old, event_id=ids, user_id="u-late"), "late.csv")
    before = {line.window: line for line in turned.ledger()}
    world.turn(turned, world.SECOND)
    ninth, tenth = turned.ledger()[8:]
    assert (ninth.late, tenth.late) == (old.num_rows, 0)
    assert {line.window: line for line in turned.ledger()[:8]} == before
    rows = dataset.read_window(turned.data, ninth.window, ["user", "late"]).to_pandas()
    assert (rows["user"] == "u-late").sum() == rows["late"].sum() == old.num_rows
    made = deciding.generation(turned, 2)
    world.turn(fresh, world.SECOND)
    undisturbed = deciding.generation(fresh, 1)
    assert made.exam_rows == undisturbed.exam_rows
    assert made.train_rows == undisturbed.train_rows
    world.deliver(turned, world.put(world.days(33, 36), user_id="u-late"), "soon.csv")
    at = world.closes(12)
    closing.take(turned, at, at)
    closing.close(turned, at)
    grid = turned.config.windows.grid
    cache = turned.matrices()
    windows = [grid.parse(line.window) for line in turned.ledger()]
    cache.build(windows)
    known = turned.recipe.names.index("user__since_first")
    assert (cache.load(windows[11])[:, known] == 1).all()  # first heard of in the window before the newest readable
    assert dataset.totals(turned.ledger()).collected == sum(
        taken.rows for taken in Spool(turned.inbox, grid).deliveries()
    )


def test_a_quarantine_can_be_replayed_once_its_cause_is_mended(turned: Workspace) -> None:
    good = world.days(30, 33)
    hours = ["noon"] * 9 + good["hour"].cast("string").to_pylist()[9:]
    world.deliver(turned, world.put(good, hour=hours))
    at = world.closes(11)
    closing.take(turned, at, at)
    line = closing.close(turned, at)[-1]
    assert (line.quarantined, line.rows) == (9, good.num_rows - 9)
    held = dataset.read_quarantine(turned.data, line.window)
    assert held is not None
    said = inspect.replay(turned, line.window, at)
    assert "0 of 9 quarantined rows are back in the inbox, 9 were refused again" in said
    assert "in the inbox already" in inspect.replay(turned, line.window, at)
    raw = turned.config.model_dump(mode="json", exclude_none=True)
    raw["contract"]["numeric"] = [name for name in raw["contract"]["numeric"] if name != "hour"]
    ws = world.rewrite(turned.root, raw)
    assert json.loads(held["raw"][0].as_py())["hour"] == "noon"
    del ws


def test_replayed_rows_come_back_late_and_the_ledger_adds_up(turned: Workspace) -> None:
    """The suite was too strict; put right, its rows come back, each once."""
    path = turned.root / "expectations" / "rows.json"
    suite = path.read_text()
    strict = json.loads(suite)
    strict["expectations"].append(
        {
            "type": "expect_column_values_to_not_be_in_set",
            "kwargs": {"column": "position", "value_set": [6]},
            "severity": "critical",
        }
    )
    path.write_text(json.dumps(strict))
    good = world.days(30, 33)
    sixth = good["position"].to_pylist().count(6)
    world.deliver(turned, good)
    at = world.closes(11)
    closing.take(turned, at, at)
    line = closing.close(turned, at)[-1]
    assert (line.quarantined, line.rows) == (sixth, good.num_rows - sixth)
    path.write_text(suite)
    said = inspect.replay(turned, line.window, at)
    assert f"{sixth} of {sixth} quarantined rows are back in the inbox, 0 were refused again" in said
    world.deliver(turned, world.days(33, 36), "next.csv")
    at = world.closes(12)
    closing.take(turned, at, at)
    back = closing.close(turned, at)[-1]
    assert (back.late, back.duplicate, back.quarantined) == (sixth, 0, 0)
    assert back.collected == world.days(33, 36).num_rows + sixth
    assert "in the inbox already" in inspect.replay(turned, line.window, at)
    totals = dataset.totals(turned.ledger())
    assert totals.collected == sum(t.rows for t in Spool(turned.inbox, turned.config.windows.grid).deliveries())


def git(ws: Workspace, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ws.root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("how", ["staged by somebody else", "no identity", "detached", "no git at all", "not asked to"])
def test_a_turn_commits_its_pointer_and_nothing_else(
    turned: Workspace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.amend(turned.root, commit_data=how != "not asked to")
    (turned.root / "theirs.txt").write_text("half done")
    git(turned, "add", "theirs.txt")
    before, branch = git(turned, "rev-parse", "HEAD"), git(turned, "branch", "--show-current")
    if how == "no identity":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        monkeypatch.setenv("HOME", str(turned.root))
    if how == "detached":
        git(turned, "checkout", "-q", "--detach")
    if how == "no git at all":
        (turned.root / ".git").rename(turned.root.parent / "git")
        config = turned.root / ".dvc" / "config"
        config.write_text(config.read_text().replace("[core]", "[core]\n    no_scm = true"))  # as `init` has it there
    assert world.turn(turned, world.SECOND).status == "promoted"
    if how == "no git at all":
        (turned.root.parent / "git").rename(turned.root / ".git")
    assert git(turned, "diff", "--cached", "--name-only") == "theirs.txt"
    committed = git(turned, "log", "--format=", "--name-only", f"{before}..HEAD").split()
    expected = [] if how in ("no git at all", "not asked to") else ["data.dvc"]
    assert [name for name in committed if not name.startswith(".")] == expected
    assert git(turned, "rev-parse", branch) == (git(turned, "rev-parse", "HEAD") if how != "detached" else before)
    if expected:
        assert deciding.generation(turned, 2).dataset in git(turned, "show", "HEAD:data.dvc")
