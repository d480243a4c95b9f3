"""A team's stores: generations on a real PostgreSQL server, models and data in a bucket, machines that share both."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from flows import deciding, inspect, publishing, starting
from flywheel.errors import BusyError, IntegrityError, RegistryError
from flywheel.infer.unseen import unseen
from flywheel.integrations import dvc_data, mlflow_registry, mlflow_store, shared_lock
from flywheel.workspace import Workspace
from tests.conftest import Postgres
from tests.flows import team, world
from tests.flows.shell import Running, Shell

AS_OF = world.closes(world.SECOND).isoformat()


@pytest.fixture(scope="module")
def begun(fresh_root: Path, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[team.Begun]:
    with team.bucket() as endpoint:
        yield team.begin(fresh_root, tmp_path_factory.mktemp("begun") / "cinema", endpoint, postgres)


@pytest.fixture
def database(begun: team.Begun, postgres: Postgres, tmp_path: Path) -> Iterator[str]:
    """The database of the registry of the workspace in `one/cinema`; no other test sees it."""
    made = begun.copy(tmp_path / "one" / "cinema", postgres)
    with team.named(postgres.url(made.database)):
        yield made.database


@pytest.fixture
def one(database: str, tmp_path: Path) -> Workspace:
    """A workspace after its first turn in shared stores."""
    return Workspace.open(tmp_path / "one" / "cinema")


@pytest.fixture(scope="module")
def undisturbed(begun: team.Begun, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> world.Ends:
    made = begun.copy(tmp_path_factory.mktemp("undisturbed") / "cinema", postgres)
    with team.named(postgres.url(made.database)):
        ws = Workspace.open(made.root)
        assert world.turn(ws, world.SECOND).status == "promoted"
        return world.ends(ws)


def test_two_machines_share_a_registry_on_a_server_and_models_and_data_in_a_bucket(
    one: Workspace, tmp_path: Path
) -> None:
    assert not (one.root / mlflow_store.DATABASE).exists()
    assert not any((one.root / mlflow_store.ARTIFACTS).rglob("*"))
    store = deciding.open_store(one)
    assert mlflow_registry.state(store).champion == 1
    assert inspect.explain(one, 1).findings
    assert mlflow_registry.load(store, 1).parts.features == one.recipe.names

    other = tmp_path / "two"  # another machine: what git tracks, and nothing else
    subprocess.run(["git", "clone", "-q", str(one.root), str(other)], check=True)
    for name in ("data.dvc", "flywheel.toml"):
        shutil.copy(one.root / name, other)
    shutil.copy(one.root / ".dvc" / "config", other / ".dvc")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=other, check=True)
    ws = Workspace.open(other)
    assert world.ends(ws) == world.ends(one)
    ws.matrices().build([])
    assert json.loads((Path(str(publishing.publish(ws)["snapshot"])) / "snapshot.json").read_text())["generation"] == 1

    import boto3  # a model that was changed in the bucket is not served

    client = boto3.client("s3")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=team.BUCKET, Prefix="generations")["Contents"]]
    model = next(key for key in keys if key.endswith("/model.ubj"))
    held = client.get_object(Bucket=team.BUCKET, Key=model)["Body"].read()
    client.put_object(Bucket=team.BUCKET, Key=model, Body=held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="is not what was written"):
        mlflow_registry.load(deciding.open_store(one), 1)
    client.put_object(Bucket=team.BUCKET, Key=model, Body=held)


def test_of_two_machines_one_works_and_the_other_leaves_or_waits(
    one: Workspace, shell: Shell, tmp_path: Path, undisturbed: world.Ends
) -> None:
    two = world.copy(one.root, tmp_path / "two" / "cinema")
    for first, second in (("backfill", "turn"), ("turn", "backfill")):
        argv = ("--as-of", AS_OF) if first == "turn" else ("--every", "6d")
        working = shell.start(one.root, first, *argv, env=team.stores() | {"FLYWHEEL_FAILPOINT": "fit:mid halt"})
        halted(working)
        argv = ("--as-of", AS_OF) if second == "turn" else ("--every", "6d")
        busy = shell.run(two.root, second, *argv, env=team.stores())
        assert busy.code == BusyError.exit_code == 75
        world.told_well(busy.err)
        assert f"flywheel {first}, process {working.pid} on {socket.gethostname()}"[:50] in busy.err
        assert inspect.status(two).now.startswith(f"flywheel {first}, process {working.pid} on ")
        if first == "backfill":
            os.kill(working.pid, signal.SIGKILL)
            working.done()
    waiting = shell.start(two.root, "turn", "--as-of", AS_OF, "--wait", env=team.stores())
    time.sleep(3)
    assert inspect.status(two).champion == 1
    os.kill(working.pid, signal.SIGKILL)  # and nothing is left of its lock
    working.done()
    waited = waiting.done()
    assert (waited.code, waited.err) == (0, "")
    assert world.ends(two) == undisturbed
    assert world.turn(one, world.SECOND).status == "skipped"  # the killed one takes up what the other made
    assert world.ends(one) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("place", ["fit:mid", "promote:mid"])
def test_a_turn_whose_server_restarted_refuses_and_its_rerun_ends_as_if_nothing_had_happened(
    place: str, one: Workspace, postgres: Postgres, shell: Shell, undisturbed: world.Ends
) -> None:
    turn = shell.start(one.root, "turn", "--as-of", AS_OF, env=team.stores() | {"FLYWHEEL_FAILPOINT": f"{place} halt"})
    halted(turn)
    postgres.restart()
    os.kill(turn.pid, signal.SIGCONT)
    refused(turn, one, undisturbed)


@pytest.mark.slow
def test_a_turn_whose_server_restarted_in_the_middle_of_a_write_is_never_half(
    one: Workspace, database: str, postgres: Postgres, shell: Shell, undisturbed: world.Ends
) -> None:
    engine = sa.create_engine(postgres.url(database).replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE registered_model_aliases IN EXCLUSIVE MODE")
        turn = shell.start(one.root, "turn", "--as-of", AS_OF, env=team.stores())
        until(lambda: postgres.execute("SELECT 1 FROM pg_locks WHERE NOT granted", database) != [], turn)
        postgres.restart()
        connection.invalidate()
    engine.dispose()
    refused(turn, one, undisturbed)


def refused(turn: Running, one: Workspace, undisturbed: world.Ends) -> None:
    """The turn made nothing visible after its server restarted, said so, and ends well when it is run again."""
    done = turn.done()
    assert done.code == 1, done.said
    world.told_well(done.err)
    assert inspect.status(one).champion == 1
    assert world.turn(one, world.SECOND).generation == 2
    assert world.ends(one) == undisturbed


def halted(running: Running) -> None:
    until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED, running)


def until(true: Callable[[], bool], running: Running) -> None:
    end = time.monotonic() + 240
    while not true():
        if time.monotonic() > end:
            where = psutil.Process(running.pid).status()
            os.kill(running.pid, signal.SIGKILL)
            raise AssertionError(f"not in time; the command was {where}, and said {running.done().said}")
        time.sleep(0.02)


def test_a_workspace_begins_with_the_registry_that_the_environment_names(
    fresh_schema: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", fresh_schema())
    starting.start_serving(tmp_path / "shop", unseen(name="shop"))
    found = inspect.status(Workspace.open(tmp_path / "shop"))
    assert (found.registry, found.generations) == ("", 0)
    assert not (tmp_path / "shop" / "mlruns" / "mlflow.db").exists()
    assert "postgres" not in (tmp_path / "shop" / "flywheel.toml").read_text(encoding="utf-8")


def test_an_empty_database_is_no_store_without_generations(
    fresh: Workspace, fresh_schema: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", fresh_schema())
    with pytest.raises(RegistryError, match="has no MLflow store"):
        world.turn(Workspace.open(fresh.root), world.FIRST)
    assert dvc_data.pointer(fresh.root) is None


def test_a_password_is_never_told(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", "postgresql://wheel:s3cret@127.0.0.1:1/wheel?connect_timeout=1")
    monkeypatch.setattr(shared_lock, "RESTART", 0)
    ws = Workspace.open(fresh.root)
    with pytest.raises(RegistryError) as caught:
        world.turn(ws, world.FIRST)
    assert "s3cret" not in str(caught.value) + repr(caught.value)
    assert "s3cret" not in ws.config.told.model_dump_json()
