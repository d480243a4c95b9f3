"""Stores that another version made: each says so, with the command that helps."""

import sqlite3
from contextlib import closing

import pytest

from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_store
from flywheel.workspace import Workspace
from tests.flows import world


def test_a_registry_of_a_later_mlflow_is_not_touched(turned: Workspace) -> None:
    with closing(sqlite3.connect(turned.root / mlflow_store.DATABASE)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fffffffffff0'")
    with pytest.raises(RegistryError) as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert caught.value.what == "the MLflow store was made by a later version of MLflow"
    assert caught.value.next.startswith("pip install --upgrade mlflow")
