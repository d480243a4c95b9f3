"""A team's deployment, as deploy/README.md and deploy/compose.yaml say: tried without containers."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import inspect, moving, serving
from flows.demo import WEEK, World
from flows.products import InProcess
from flows.turn import turn
from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.workspace import Workspace
from tests.conftest import Postgres
from tests.flows import deployed, live, team
from tests.flows.test_serve import ASK, STARTED, Served, ask, serving_of, until
from tests.flows.world import ends, told_well

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = {"accepted": True, "duplicate": False}
VISITS = 400


@pytest.fixture(scope="module")
def begun(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[deployed.Begun]:
    with team.bucket() as endpoint:
        yield deployed.begin_team(tmp_path_factory.mktemp("begun") / "live", endpoint, postgres)


@pytest.fixture
def shop(begun: deployed.Begun, postgres: Postgres, tmp_path: Path) -> Iterator[tuple[Workspace, World]]:
    """A product that has served for some weeks, and its world."""
    with deployed.again(begun, tmp_path / "one" / "live", postgres) as made:
        yield made


@pytest.mark.slow
def test_all_state_is_backed_up_and_restored_by_the_guide(
    shop: tuple[Workspace, World], postgres: Postgres, tmp_path: Path
) -> None:
    ws, life = shop
    life.live(WEEK)  # which no turn has taken in yet
    before, as_of, shelf = inspect.status(ws), live.now(life), tmp_path / "shelf"
    backup, restore = deployed.recipes("Back up, and restore")
    first = next(at for at, command in enumerate(backup) if command.startswith("pg_dump"))
    last = next(at for at, command in enumerate(backup) if command.startswith("aws"))
    deployed.follow(backup[:first], ws.root, shelf, postgres)
    life.live(1)  # the servers go on answering
    deployed.follow(backup[first:last], ws.root, shelf, postgres)
    known = life.fork(life.product)
    undisturbed = two_turns(ws, life, as_of)  # the worker is at it again
    deployed.follow(backup[last:], ws.root, shelf, postgres)

    life.product.close()
    shutil.rmtree(ws.root)
    deployed.drop(postgres, "inbox", "mlflow", "prefect")
    team.empty()
    deployed.lay_out(postgres)
    other = tmp_path / "another machine" / "live"
    deployed.follow(restore, other, shelf, postgres)
    restored = Workspace.open(other)
    after = inspect.status(restored)
    assert (after.champion, after.generations, after.totals) == (before.champion, before.generations, before.totals)
    with closing(InProcess(restored)) as product:
        assert two_turns(restored, known.fork(product), as_of) == undisturbed


def two_turns(ws: Workspace, life: World, as_of: datetime) -> tuple[Any, ...]:
    """A turn, another week of life, and a turn: where that ends, and what of it adds up."""
    revolve(ws, as_of)
    life.product.reload()
    life.live(WEEK)
    revolve(ws, live.now(life))
    with closing(serving.inbox(ws)) as inbox:
        arrived = inbox.arrived()
    status = inspect.status(ws)
    assert status.inbox == "", "an outcome is lost, or counted twice"
    return ends(ws), arrived, status.totals, status.outcomes


def revolve(ws: Workspace, as_of: datetime) -> None:
    with ready(Booting(fault="a test needs no history")):
        assert turn(ws.root, as_of, trigger="test").closed >= 1


def test_without_the_marks_of_what_was_taken_nothing_is_taken_twice(shop: tuple[Workspace, World]) -> None:
    ws, life = shop
    shutil.rmtree(ws.inbox)  # as on a machine that has a clone and its data
    life.live(WEEK)
    with pytest.raises(IntegrityError, match="that closed windows were made of are not here") as caught:
        live.turn(ws, life)
    told_well(f"flywheel: {caught.value}\n")
    status = inspect.status(ws)
    assert (status.outcomes, status.windows) == (None, deployed.WEEKS)
    assert "that closed windows were made of are not here; without them" in status.inbox
    assert status.inbox.endswith("copy inbox/ from where the newest window was closed, or from its backup")
    assert len(ws.ledger()) == deployed.WEEKS


def test_where_a_wheel_stands_is_told_while_its_inbox_is_away(
    shop: tuple[Workspace, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_INBOX__URL", "postgresql://wheel:s3cret@127.0.0.1:1/wheel?connect_timeout=1")
    status = inspect.status(Workspace.open(shop[0].root))
    assert (status.outcomes, status.windows, status.champion > 0) == (None, deployed.WEEKS, True)
    assert "127.0.0.1:1" in status.inbox or "connection" in status.inbox
    assert "s3cret" not in status.inbox


@pytest.fixture
def serve(shop: tuple[Workspace, World]) -> Iterator[Callable[[], Served]]:
    with serving_of(shop[0]) as start:
        yield start


@pytest.mark.slow
def test_of_two_servers_behind_one_address_one_may_be_killed(
    shop: tuple[Workspace, World], serve: Callable[[], Served]
) -> None:
    ws, _ = shop
    closed, champion = len(ws.ledger()), inspect.status(ws).champion
    first, second = serve(), serve()
    until(lambda: first.model()["generation"] == second.model()["generation"] == champion, STARTED)
    shown = first.ask("POST", "/v1/rank", ASK)[1]
    watched = [(shown["decision_id"], shown["items"][0]["item"])]
    assert second.ask("POST", "/v1/outcomes", outcome(0, *watched[0])) == (200, ACCEPTED)

    other = next(g.generation for g in inspect.generations(ws) if g.generation != champion)
    moving.move_by_hand(ws, other, why="to see it served by both", dry_run=False)
    until(lambda: first.model()["generation"] == second.model()["generation"] == other)

    with deployed.one_address(first.address, second.address) as address, ThreadPoolExecutor(4) as people:
        visits = [people.submit(visit, address, n) for n in range(1, VISITS)]
        until(lambda: sum(one.done() for one in visits) > VISITS / 4, 60)
        answered = [server.counted("flywheel_decisions_total") for server in (first, second)]
        first.end(signal.SIGKILL)
        left = sum(not one.done() for one in visits)
        watched += [one.result() for one in visits]
    assert min(answered) > VISITS / 10
    assert left > VISITS / 4
    assert second.end() == 0

    grid = ws.config.windows.grid
    revolve(ws, grid.closes_at(grid.index(datetime.now(UTC))))
    rows = [dataset.read_window(ws.data, line.window, ["request", "item", "label"]) for line in ws.ledger()[closed:]]
    labels = [(row["request"], row["item"]) for row in pa.concat_tables(rows).to_pylist() if row["label"]]
    assert Counter(labels) & Counter(watched) == Counter(watched)
    assert len(labels) == len(set(labels))
    status = inspect.status(ws)
    assert status.outcomes is not None
    assert (status.still_open, status.outcomes.decisions, status.outcomes.parked) == (0, 0, 0)


def visit(address: str, number: int) -> tuple[str, str]:
    """Ask what to watch, and watch the first: the decision, and the item."""
    shown = insist(address, "/v1/rank", ASK)
    watched = shown["decision_id"], shown["items"][0]["item"]
    insist(address, "/v1/outcomes", outcome(number, *watched))
    return watched


def outcome(number: int, decision: str, item: str) -> dict[str, object]:
    return {"event_id": f"visit {number}", "decision_id": decision, "item": item, "value": 1}


def insist(address: str, path: str, body: object) -> Any:
    """Send a body until it is answered, as any client does whose connection breaks."""
    end = time.monotonic() + 30
    while True:
        with suppress(OSError, http.client.HTTPException):
            status, said = ask(address, "POST", path, body)
            if status == 200:
                return said
        assert time.monotonic() < end, f"{path} is not answered"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_worker_turns_the_wheel_with_every_store_on_postgresql(
    shop: tuple[Workspace, World], postgres: Postgres, tmp_path: Path
) -> None:
    ws, life = shop
    life.live((datetime.now(UTC) - live.now(life)).days)  # a scheduled turn acts as of now
    before = inspect.status(ws)
    name = ws.config.product.name
    with deployed.history(tmp_path / "prefect", postgres) as api, temporary_settings({PREFECT_API_URL: api}):
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PREFECT_API_URL": api}
        command = [sys.executable, "-m", "flows.cli", "-C", str(ws.root), "deploy", "--pool", "team"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        due = "SELECT count(*) FROM flow_run WHERE auto_scheduled AND state_name = 'Scheduled'"
        until(lambda: postgres.execute(due, "prefect") > [(0,)], 60)  # and what is to run by itself is scheduled
        asked = run_deployment(f"turn/{name}", timeout=0, parameters={"trigger": "test"})
        assert isinstance(asked, FlowRun)
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "team", "--run-once"]
        done = subprocess.run(worker, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    ran = (
        f"SELECT s.name, s.message FROM flow_run r JOIN flow_run_state s ON s.id = r.state_id WHERE r.id = '{asked.id}'"
    )
    ((state, message),) = postgres.execute(ran, "prefect")
    newest = inspect.generations(ws)[-1]
    assert (state, newest.generation) == ("Completed", before.generations + 1), message
    assert newest.trigger == "test"
    assert inspect.status(ws).windows > before.windows
