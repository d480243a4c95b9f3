"""Stores that another version made: an earlier one's are read and gone on with, a later one's left as they are.

`stores-of-2026-11-23.tar.xz` is a workspace as the code of commit ba776ad left it: four weeks of tests/flows/live.py
with 41 users, two generations of which the second serves, and a fifth week in the inbox that no turn has taken in.
"""

import sqlite3
import tarfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows import inspect
from flows.products import InProcess
from flows.turn import turn
from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_store
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell

EARLIER = Path(__file__).parents[1] / "fixtures" / "stores-of-2026-11-23.tar.xz"
FIFTH = datetime(2026, 2, 10, tzinfo=UTC)  # when its week may be closed


@pytest.fixture
def earlier(tmp_path: Path) -> Workspace:
    with tarfile.open(EARLIER) as packed:
        packed.extractall(tmp_path, filter="data")
    return Workspace.open(tmp_path / "shop")


def test_stores_of_an_earlier_version_are_gone_on_with(earlier: Workspace, shell: Shell) -> None:
    before = inspect.status(earlier)  # which refuses where outcomes do not add up
    assert (before.windows, before.generations, before.champion) == (4, 2, 2)
    with closing(InProcess(earlier)) as product:  # serves before anything was made anew
        assert product._ranker.snapshot.generation == 2

    with ready(Booting(fault="a test needs no history")):
        turned = turn(earlier.root, FIFTH, trigger="test")
    assert (turned.closed, turned.generation) == (1, 3), turned
    after = inspect.status(earlier)
    assert before.outcomes is not None
    assert after.outcomes is not None
    assert (after.windows, after.outcomes.arrived) == (5, before.outcomes.arrived)
    assert after.outcomes.settled.collected > before.outcomes.settled.collected
    assert after.totals.collected == before.totals.collected + earlier.ledger()[-1].collected

    for command in ("generations", "explain 1", "explain 2", "compare 2 3", "decide 3", "value 2", "report"):
        done = shell.run(earlier.root, *command.split())
        assert done.code == 0, f"{command}: {done.said}"


def test_a_generation_whose_columns_are_made_otherwise_now_is_not_rebuilt(earlier: Workspace, shell: Shell) -> None:
    done = shell.run(earlier.root, "rebuild", "2")
    assert done.code == 1
    assert done.err.startswith("flywheel: generation 2 was made by another version of the code")
    assert "rebuild with the Flywheel that made it" in done.err
    world.told_well(done.err)


def test_a_registry_of_a_later_mlflow_is_not_touched(turned: Workspace) -> None:
    with closing(sqlite3.connect(turned.root / mlflow_store.DATABASE)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fffffffffff0'")
    with pytest.raises(RegistryError) as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert caught.value.what == "the MLflow store was made by a later version of MLflow"
    assert caught.value.next.startswith("pip install --upgrade mlflow")
