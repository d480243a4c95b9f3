"""A challenger that passed serves a share of people first, and becomes champion by what they make of it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from flows import approving, asking, canary, deciding, deployments, inspect, moving, products, serving
from flows import turn as turning
from flywheel import parquet, trial
from flywheel.data import dataset
from flywheel.errors import RegistryError
from flywheel.events import Candidate, Decision, Outcome, Request
from flywheel.integrations import mlflow_registry
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.learn import features
from flywheel.trial import Answer
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.live import Lived
from tests.flows.shell import Shell
from tests.flows.world import amend, copy, told_well

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000
PEOPLE = 600


class Begun(NamedTuple):
    """A workspace in which a generation serves as canary since a morning."""

    ws: Workspace
    number: int
    since: datetime


def collect(ws: Workspace, as_of: datetime) -> None:
    with ready(Booting(fault="a test needs no history")):
        turning.collect_only(ws.root, as_of)


def visited(ws: Workspace, start: datetime, rates: Mapping[str, float], people: int = PEOPLE) -> list[Decision]:
    """A day on which so many people come, each of whom likes so many items of those that an arm shows."""
    rng, ranker, inbox = np.random.default_rng(5), products._ranker(ws), serving.inbox(ws)
    decisions, outcomes = [], []
    for n in range(people):
        now = round(start.timestamp()) * SECOND + n * 60 * SECOND
        candidates = tuple(Candidate(f"item{i}", {"genres": ["drama"] if i % 2 else ["war"]}) for i in range(8))
        request = Request(f"visitor{n}", candidates, {"device": "tv", "hour": 20.0}, 6)
        decision = ranker.rank(request, decision_id=f"{now:x}", now=now)
        decisions.append(decision)
        outcomes += [
            Outcome(f"{decision.id}-{slot.item}", decision.id, slot.item, 1.0, now + SECOND)
            for slot in decision.shown
            if rng.random() < rates[decision.arm]
        ]
    inbox.write(decisions, outcomes, ())
    inbox.close()
    return decisions


def turn(ws: Workspace, as_of: datetime) -> turning.Turned:
    with ready(Booting(fault="a test needs no history")):
        return turning.turn(ws.root, as_of, trigger="test")


def passes(lived_weeks: Lived, root: Path, **gate: float | str) -> Workspace:
    """A workspace whose next turn makes a challenger, with a recipe of its own, that passes."""
    ws = copy(lived_weeks.ws.root, root / "live")
    return amend(ws.root, gate={"canary_margin": 0.3} | gate, features={"smoothing": 5.0})


@pytest.fixture(scope="module")
def begun(lived_weeks: Lived, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A challenger passed, and serves as canary."""
    ws, as_of = passes(lived_weeks, tmp_path_factory.mktemp("begun"), canary=0.4), live.now(lived_weeks.world)
    before = deciding.champion(ws)
    turned = turn(ws, as_of)
    assert turned.status == "canary", turned
    assert moving.aliases(ws).canary == turned.generation
    assert deciding.champion(ws) == before
    return Begun(ws, turned.generation, as_of)


@pytest.fixture
def tried(begun: Begun, tmp_path: Path) -> Workspace:
    return copy(begun.ws.root, tmp_path / "live")


@pytest.mark.slow
def test_a_canary_that_is_no_worse_becomes_champion(tried: Workspace, begun: Begun) -> None:
    before = moving.aliases(tried)
    decisions = visited(tried, begun.since, {"wheel": 0.3, "canary": 0.4, "holdback": 0.2})
    met = {(d.arm, d.generation) for d in decisions}
    assert met == {("wheel", before.champion), ("canary", begun.number), ("holdback", 0)}
    collect(tried, begun.since + timedelta(days=1))
    assert moving.aliases(tried) == before  # no window of it has closed
    collect(tried, begun.since + timedelta(days=9))
    after = moving.aliases(tried)
    assert (after.champion, after.previous, after.canary) == (begun.number, before.champion, 0)
    told = inspect.explain(tried, begun.number).trial.canary
    assert told is not None
    assert told.finding is not None
    assert (told.step, told.finding.status) == ("promote", "pass")
    store = deciding.open_store(tried)
    last = mlflow_registry.moves(store)[-1]
    assert (last.before, last.after, last.why) == (before.champion, begun.number, told.finding.detail)
    assert [(m.before, m.after) for m in mlflow_registry.canaries(store)] == [(0, begun.number), (begun.number, 0)]
    assert served_as_recomputed(tried, begun.number) > 500


def served_as_recomputed(ws: Workspace, number: int) -> int:
    """How many rows of a canary there are, each served with the features that its recipe makes offline."""
    compared, recipe = 0, deciding.generation(ws, number).tags["recipe"]
    assert recipe == ws.recipe.fingerprint != deciding.generation(ws, number - 1).tags["recipe"]
    cache, grid = ws.matrices(), ws.config.windows.grid
    for line in ws.ledger():
        window = grid.parse(line.window)
        table = dataset.read_window(ws.data, line.window, ["arm", "generation", "recipe", "features"])
        of = np.asarray(pa.compute.equal(table["arm"].cast(pa.string()), "canary").fill_null(False))
        rows = table.filter(pa.array(of))
        assert set(rows["generation"].to_pylist()) <= {number}
        assert set(rows["recipe"].to_pylist()) <= {recipe}
        assert features.digest(cache.load(window)[of]).tolist() == rows["features"].to_pylist()
        compared += len(rows)
    return compared


@pytest.mark.slow
def test_a_canary_that_does_harm_is_refused_and_not_tried_again(tried: Workspace, begun: Begun) -> None:
    before = moving.aliases(tried)
    visited(tried, begun.since, {"wheel": 0.4, "canary": 0.05, "holdback": 0.2})
    morning = begun.since + timedelta(days=9)
    collect(tried, morning)
    after = moving.aliases(tried)
    assert (after.champion, after.canary, after.waiting) == (before.champion, 0, 0)
    ended = mlflow_registry.canaries(deciding.open_store(tried))[-1]
    assert (ended.before, ended.after) == (begun.number, 0)
    assert "a loss beyond 30% is shown" in ended.why
    assert not moving.unsettled(tried, deciding.generation(tried, begun.number))  # so no turn takes it up again


@pytest.mark.slow
def test_no_traffic_is_no_evidence_and_time_refuses(tried: Workspace, begun: Begun) -> None:
    before = moving.aliases(tried)
    collect(tried, begun.since + timedelta(days=27))
    assert moving.aliases(tried) == before
    collect(tried, begun.since + timedelta(days=28))
    assert moving.aliases(tried).canary == 0
    assert deciding.champion(tried) == before.champion
    why = mlflow_registry.canaries(deciding.open_store(tried))[-1].why
    assert why.startswith("not enough evidence within 28d")


@pytest.mark.slow
def test_a_canary_whose_champion_was_moved_by_hand_ends(tried: Workspace, begun: Begun) -> None:
    moving.move_by_hand(tried, None, why="complaints", dry_run=False)
    assert (moving.aliases(tried).canary, moving.aliases(tried).waiting) == (0, 0)
    collect(tried, begun.since + timedelta(days=1))
    assert mlflow_registry.canaries(deciding.open_store(tried))[-1].why == "complaints"


def test_a_canary_is_measured_since_it_serves_and_by_what_was_not_late(tried: Workspace, begun: Begun) -> None:
    made, line = deciding.generation(tried, begun.number), tried.ledger()[-1]
    rows = dataset.read_window(tried.data, line.window)
    count = len(rows)
    ours = np.arange(count) % 5 == 4
    ours[: count // 2] = False  # the first half was served before there was a canary
    gave = {
        "arm": np.where(ours, "canary", "wheel"),
        "generation": np.where(ours, made.generation, made.examined_against),
        "late": np.arange(count) % 3 == 0,
        "label": np.ones(count),
        "ts": np.sort(rows["ts"].to_numpy()) + np.arange(count) * np.timedelta64(1, "us"),
    }
    for name, values in gave.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values).cast(field.type))
    parquet.write(dataset.events_path(tried.data, line.window), rows)
    found = canary.measured(tried, made, line.start)
    in_time = ~gave["late"]
    since = np.arange(count) >= np.flatnonzero(ours & in_time)[0]
    assert found.rows[0].sum() == (ours & in_time).sum()
    users = rows["user"].to_pandas().astype(str).to_numpy()
    others = since & in_time & ~ours & ~np.isin(users, users[ours & in_time])
    assert found.rows[1].sum() == others.sum() > 0


@pytest.mark.slow
def test_a_canary_whose_champion_was_moved_in_mlflow_ends(tried: Workspace, begun: Begun) -> None:
    store = deciding.open_store(tried)
    state = mlflow_registry.state(store)
    other = max(state.generations - {state.champion, begun.number})
    mlflow_registry.point(store, "champion", other)
    collect(tried, begun.since + timedelta(days=1))
    assert (moving.aliases(tried).champion, moving.aliases(tried).canary) == (other, 0)
    assert mlflow_registry.canaries(store)[-1].why.startswith("the champion was moved from the one")


@pytest.mark.slow
def test_a_promotion_that_died_between_the_champion_and_the_canary_is_ended(tried: Workspace, begun: Begun) -> None:
    before, store = moving.aliases(tried), deciding.open_store(tried)
    for alias, number in (("previous", before.champion), ("champion", begun.number)):
        mlflow_registry.point(store, alias, number)
    collect(tried, begun.since + timedelta(days=1))
    after = moving.aliases(tried)
    assert (after.champion, after.previous, after.canary) == (begun.number, before.champion, 0)
    assert mlflow_registry.canaries(store)[-1].why == "is champion"


@pytest.mark.slow
def test_whoever_waits_is_answered_once_or_refused_in_time(lived_weeks: Lived, shell: Shell, tmp_path: Path) -> None:
    ws, as_of = passes(lived_weeks, tmp_path, approval="person"), live.now(lived_weeks.world)
    before = deciding.champion(ws)
    turned = turn(ws, as_of)
    number = turned.generation
    assert turned.status == "waiting"
    assert f"flywheel approve {number} --why" in turned.reason
    assert (inspect.status(ws).waiting, deciding.champion(ws)) == (number, before)
    assert f"**Generation {number} passed the gate**" in approving.findings(ws, number)
    late = copy(ws.root, tmp_path / "late" / "live")
    collect(late, as_of + timedelta(hours=25))
    answer = inspect.explain(late, number).trial.answer
    assert answer is not None
    assert (answer.approve, answer.who, deciding.champion(late)) == (False, "nobody", before)
    assert turn(late, as_of + timedelta(hours=25)).status == "skipped"
    elsewhere = copy(ws.root, tmp_path / "elsewhere" / "live")  # where somebody moves the champion in MLflow
    store = deciding.open_store(elsewhere)
    other = max(mlflow_registry.state(store).generations - {before, number})
    mlflow_registry.point(store, "champion", other)
    approving.answer(elsewhere, number, approve=True, who="somebody", why="looks right", as_of=as_of)
    assert (deciding.champion(elsewhere), moving.aliases(elsewhere).waiting) == (other, 0)
    died = copy(ws.root, tmp_path / "died" / "live")  # where a command took an answer down and no more
    asking.record(died, deciding.generation(died, number), Answer(False, "somebody", as_of, "not this week"))
    with pytest.raises(RegistryError, match="waits for no answer"):
        approving.answer(died, number, approve=True, who="another", why="looks right", as_of=as_of)
    refusing = copy(ws.root, tmp_path / "refusing" / "live")
    done = shell.run(refusing.root, "approve", str(number), "--refuse", "--why", "not this week")
    assert done.code == 0, done.said
    assert deciding.champion(refusing) == before
    again = shell.run(refusing.root, "approve", str(number), "--why", "after all")
    told_well(again.err)
    assert "not this week" in again.err
    done = shell.run(ws.root, "approve", str(number), "--why", "looks right")
    assert done.code == 0, done.said
    assert (deciding.champion(ws), moving.aliases(ws).waiting) == (number, 0)
    assert "looks right" in mlflow_registry.moves(deciding.open_store(ws))[-1].why
    with pytest.raises(RegistryError, match="waits for no answer"):
        approving.answer(ws, number, approve=True, who="somebody", why="again", as_of=as_of)


@pytest.mark.slow
def test_a_person_answers_on_prefect_s_pages(lived_weeks: Lived, tmp_path: Path) -> None:
    """As its form does: the question is a run that is suspended until somebody resumes it with the answer."""
    ws, as_of = passes(lived_weeks, tmp_path, approval="person"), live.now(lived_weeks.world)
    deployments.register(ws, "people")
    turned = turning.turn(ws.root, as_of, trigger="test")  # recorded
    assert turned.status == "waiting"
    with get_client(sync_client=True) as client:
        (asked,) = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["approval"])))
        work_once()
        assert (client.read_flow_run(asked.id).state_name, moving.aliases(ws).waiting) == (
            "Suspended",
            turned.generation,
        )
        answer = {"approve": True, "who": "the lead", "why": "looks right"}
        client.resume_flow_run(asked.id, run_input=answer)
        work_once()
        done = client.read_flow_run(asked.id).state
    assert done is not None
    assert (done.name, str(done.message)[:9]) == ("Completed", "promoted:")
    assert (deciding.champion(ws), moving.aliases(ws).waiting) == (turned.generation, 0)
    told = trial.read(deciding.generation(ws, turned.generation).tags).answer
    assert told is not None
    assert {"approve": told.approve, "who": told.who, "why": told.why} == answer


def work_once() -> None:
    """Have a worker of the pool do what waits there."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "people", "--run-once"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_trial_killed_at_each_of_its_steps_ends_as_if_it_had_not_been(
    lived_weeks: Lived, shell: Shell, tmp_path: Path
) -> None:
    ws, as_of = passes(lived_weeks, tmp_path, canary=0.4, approval="person"), live.now(lived_weeks.world)
    before = moving.aliases(ws)

    def killed(place: str, *argv: str) -> None:
        done = shell.run(ws.root, *argv, env={"FLYWHEEL_FAILPOINT": place})
        assert done.code == 137, (place, done.said)
        assert deciding.champion(ws) == before.champion

    night = ("turn", "--as-of", as_of.isoformat())
    for place in ("wait:before", "wait:after", "ask:after"):
        killed(place, *night)
    assert shell.run(ws.root, *night).code == 0
    number = moving.aliases(ws).waiting
    assert number > before.champion
    killed("answer:after", "approve", str(number), "--why", "looks right")
    for place in ("canary:before", "canary:mid"):
        killed(place, *night)
    assert shell.run(ws.root, *night).code == 0
    assert (moving.aliases(ws).canary, moving.aliases(ws).waiting) == (number, 0)
    visited(ws, as_of, {"wheel": 0.3, "canary": 0.4, "holdback": 0.2})
    week = ("turn", "--as-of", (as_of + timedelta(days=9)).isoformat())
    killed("judge:after", *week)
    killed("promote:before", *week)
    killed("promote:mid", *week)
    with ready(Booting(fault="a test needs no history")):
        turning.collect_only(ws.root, as_of + timedelta(days=9))
    after, store = moving.aliases(ws), deciding.open_store(ws)
    assert (after.champion, after.previous, after.canary, after.waiting) == (number, before.champion, 0, 0)
    assert [(m.before, m.after) for m in mlflow_registry.moves(store)][-1:] == [(before.champion, number)]
    assert [(m.before, m.after) for m in mlflow_registry.canaries(store)] == [(0, number), (number, 0)]
    told = trial.read(deciding.generation(ws, number).tags)
    assert told.answer is not None
    assert told.answer.why == "looks right"
