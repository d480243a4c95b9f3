"""What a decision rests on beyond its exam: the ancestor, the uses of the exam; and a decision made again."""

import json
from typing import Any

import pytest

from flows import deciding, deciding_again, inspect, moving
from flywheel.errors import DataError, RegistryError
from flywheel.integrations import mlflow_registry
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell


@pytest.fixture
def twice(turned: Workspace) -> Workspace:
    """After a second turn: generation 1 has beaten the baseline, generation 2 serves."""
    assert world.turn(turned, world.SECOND).status == "promoted"
    return turned


def third(ws: Workspace) -> Any:
    """A third turn, on a week that arrived since; its generation."""
    world.deliver(ws, world.days(30, 36))
    world.turn(ws, 12)
    return deciding.generation(ws, 3)


def lag_behind(ws: Workspace, number: int, ancestor: int) -> None:
    """As if a generation had not been shown to beat the ancestor that it was compared with."""
    store, made = deciding.open_store(ws), deciding.generation(ws, number)
    store.client.set_tag(made.run_id, "ancestor", str(ancestor))
    store.client.set_tag(made.run_id, "ancestor_beaten", "no")


def finding(ws: Workspace, number: int, name: str) -> dict[str, Any]:
    return next((f for f in inspect.findings(ws, deciding.generation(ws, number)) if f["name"] == name), {})


def test_a_generation_says_who_the_ancestor_was_and_whether_it_was_beaten(twice: Workspace) -> None:
    for number in (1, 2):
        made = deciding.generation(twice, number)
        assert made.difference is not None
        assert made.tags["ancestor"] == str(deciding.ancestor_of(twice, made.examined_against))
        if made.tags["ancestor"] == str(made.examined_against):
            assert made.tags["ancestor_beaten"] == ("yes" if made.difference.low > 0 else "no")


def test_a_challenger_meets_the_ancestor_too_and_a_rollback_brings_its_own_back(twice: Workspace) -> None:
    lag_behind(twice, 1, 0)
    lag_behind(twice, 2, 1)
    assert deciding.ancestor_of(twice, 2) == 1
    made = third(twice)
    assert made.tags["ancestor"] == "1"
    assert "generation 1's" in finding(twice, 3, "ancestor")["detail"]
    moving.move_by_hand(twice, 1, why="complaints", dry_run=False)
    assert deciding.ancestor_of(twice, deciding.champion(twice)) == 0


def test_an_ancestor_that_is_gone_keeps_the_champion_and_says_how_to_go_on(twice: Workspace) -> None:
    lag_behind(twice, 2, 1)
    store = deciding.open_store(twice)
    for alias in ("previous", "challenger"):
        mlflow_registry.drop(store, alias)
    store.client.delete_model_version("cinema", "1")
    made = third(twice)
    assert made.verdict == "keep"
    assert "the ancestor, generation 1, did not sit the exam: there is no generation 1" in made.reason
    assert "flywheel promote N --why REASON" in made.reason
    moving.move_by_hand(twice, 3, why="the ancestor is gone", dry_run=False)
    assert deciding.ancestor_of(twice, 3) == 3


def test_an_ancestor_that_saw_the_exam_does_not_sit_it(twice: Workspace) -> None:
    lag_behind(twice, 2, 1)
    made = deciding.generation(twice, 1)
    store = deciding.open_store(twice)
    store.client.set_tag(made.run_id, "trained_windows", " ".join(deciding.generation(twice, 2).exam_windows))
    world.amend(twice.root, train={"seed": 5})
    world.turn(twice, world.SECOND)
    detail = finding(twice, 3, "ancestor")["detail"]
    assert "generation 1 cannot sit this exam, it was fitted on windows up to" in detail
    assert deciding.generation(twice, 3).verdict == "keep"


def test_settings_tried_on_one_exam_use_it(twice: Workspace) -> None:
    assert finding(twice, 2, "exam")["value"] == 0
    for seed in (5, 6):
        world.amend(twice.root, train={"seed": seed})
        world.turn(twice, world.SECOND)
    assert [finding(twice, number, "exam")["value"] for number in (3, 4)] == [1, 2]
    asked = [finding(twice, number, "superiority")["threshold"] for number in (2, 3, 4)]
    assert asked == pytest.approx([0.5, 0.75, 1 - 0.5 / 3])
    world.amend(twice.root, train={"seed": 7}, gate={"exam_uses": 3})
    world.turn(twice, world.SECOND)
    made = deciding.generation(twice, 5)
    assert made.verdict == "keep"
    assert "an exam bears 3, then it is used up" in made.reason


def test_a_decision_made_again_at_once_is_the_same_and_changes_nothing(twice: Workspace) -> None:
    before = world.ends(twice)
    for number in (1, 2):
        told = deciding_again.decide_again(twice, number, world.closes(world.SECOND))
        assert repr(told.now) == repr(told.then)  # a finding may hold a NaN, which equals nothing
        assert (told.rows_now, told.late) == (told.rows_then, 0)
        assert "stands: promote then, promote by what is known" in told.says
    assert world.ends(twice) == before


def test_a_decision_made_again_knows_the_labels_that_came_late_and_the_policy_of_today(turned: Workspace) -> None:
    made = deciding.generation(turned, 1)
    old = world.days(21, 24)
    ids = [f"late-{n}" for n in range(old.num_rows)]
    world.deliver(turned, world.put(old, event_id=ids, user_id=[f"u-{n}" for n in range(old.num_rows)]), "late.csv")
    assert world.turn(turned, world.SECOND).status == "promoted"
    at_the_time = deciding_again.decide_again(turned, 1, world.closes(world.FIRST))
    assert (at_the_time.late, repr(at_the_time.now)) == (0, repr(at_the_time.then))
    told = deciding_again.decide_again(turned, 1, world.closes(world.SECOND))
    assert (told.late, told.rows_now) == (old.num_rows, made.exam_rows + old.num_rows)
    assert told.now.reason != told.then.reason
    world.amend(turned.root, gate={"min_rows": 100_000})
    again = deciding_again.decide_again(Workspace.open(turned.root), 1, world.closes(world.SECOND))
    assert (again.then.decision, again.now.decision) == ("promote", "keep")
    assert "would be another: promote then, keep" in again.says


def test_what_cannot_be_decided_again_is_said(twice: Workspace) -> None:
    with pytest.raises(RegistryError, match="there is no generation 9") as caught:
        deciding_again.decide_again(twice, 9, world.closes(world.SECOND))
    world.told_well(f"flywheel: {caught.value}\n")
    with pytest.raises(DataError, match="the exam of generation 2 was not closed by") as early:
        deciding_again.decide_again(twice, 2, world.closes(world.FIRST))
    world.told_well(f"flywheel: {early.value}\n")


def test_the_command_shows_both_verdicts(turned: Workspace, shell: Shell) -> None:
    said = shell.run(turned.root, "decide", "1", "--json")
    assert said.code == 0, said.said
    told = json.loads(said.out)
    assert (told["then"]["decision"], told["now"]["decision"]) == ("promote", "promote")
    shown = shell.run(turned.root, "decide", "1")
    assert "the verdict on generation 1 stands" in shown.out
    assert "superiority" in shown.out
