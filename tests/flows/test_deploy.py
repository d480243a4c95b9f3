"""A team's deployment, as deploy/README.md and deploy/compose.yaml say: tried without containers."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows import inspect, serving
from flows.demo import WEEK, World
from flows.products import InProcess
from flows.turn import turn
from flywheel.errors import IntegrityError
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.workspace import Workspace
from tests.conftest import Postgres
from tests.flows import deployed, live, team
from tests.flows.world import ends, told_well


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
    status = inspect.status(ws)  # refuses where an outcome is lost or counted twice
    return ends(ws), arrived, status.totals, status.outcomes


def revolve(ws: Workspace, as_of: datetime) -> None:
    with ready(Booting(fault="a test needs no history")):
        assert turn(ws.root, as_of, trigger="test").closed >= 1


def test_without_the_marks_of_what_was_taken_nothing_is_taken_twice(shop: tuple[Workspace, World]) -> None:
    ws, life = shop
    shutil.rmtree(ws.inbox)  # as on a machine that has a clone and its data
    life.live(WEEK)
    for refused in (lambda: live.turn(ws, life), lambda: inspect.status(ws)):
        with pytest.raises(IntegrityError, match="that closed windows were made of are not here") as caught:
            refused()
        told_well(f"flywheel: {caught.value}\n")
    assert len(ws.ledger()) == deployed.WEEKS
