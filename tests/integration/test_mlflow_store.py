import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_registry, mlflow_store, mlflow_tracking, mlflow_ui
from tests.integration.mlflow_world import QUIET, turn, world

pytestmark = QUIET


def test_eight_processes_that_start_first_at_once_share_one_store(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from flywheel.integrations import mlflow_store as s;"
        "print(s.create(pathlib.Path(sys.argv[1]), 'cinema').experiment)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    said = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0] * 8, said
    assert {out for out, _ in said} == {"1\n"}
    assert {err for _, err in said} == {""}


def test_an_absent_store_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="the workspace has no MLflow store") as caught:
        mlflow_store.open(tmp_path, "cinema")
    assert "next:" in str(caught.value)
    assert not (tmp_path / mlflow_store.DATABASE).exists()


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100])
def test_a_broken_store_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / mlflow_store.DATABASE
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RegistryError, match="next:") as caught:
        mlflow_store.open(tmp_path, "cinema")
    assert len(str(caught.value).splitlines()) <= 6
    assert path.read_bytes() == content


def test_a_store_of_a_later_mlflow_is_named_as_such(tmp_path: Path) -> None:
    mlflow_store.create(tmp_path, "cinema")
    database = sqlite3.connect(tmp_path / mlflow_store.DATABASE)
    with database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    script = (
        "import sys, pathlib; from flywheel.integrations import mlflow_store as s;"
        "s.open(pathlib.Path(sys.argv[1]), 'cinema')"
    )  # another process: MLflow remembers that it has checked an address
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "made by a later version of MLflow" in done.stderr


def test_a_moved_workspace_finds_its_models_and_makes_more(tmp_path: Path) -> None:
    world(tmp_path / "here", 1)
    shutil.move(tmp_path / "here", tmp_path / "there")
    store = mlflow_store.open(tmp_path / "there", "cinema")
    assert mlflow_registry.load(store, 1).generation == 1
    [first] = mlflow_tracking.generations(store)
    assert b"margin" in mlflow_tracking.artifact(store, first, "findings.json")
    assert turn(store, 2) == 2
    assert mlflow_registry.load(store, 2).generation == 2
    assert not (tmp_path / "here").exists()


def test_mlflow_never_unpickles_and_never_speaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world(tmp_path, 1)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert logging.getLogger("alembic").getEffectiveLevel() >= logging.WARNING
    assert capfd.readouterr() == ("", "")


def test_an_artifact_outside_of_the_workspace_is_not_followed(tmp_path: Path) -> None:
    store = mlflow_store.create(tmp_path, "cinema")
    for uri in ("/etc", "s3://elsewhere/x", "/x/mlruns/artifacts/../../../etc"):
        with pytest.raises(mlflow_store.IntegrityError, match="outside of the workspace"):
            store.local(uri)


def test_a_taken_port_is_refused_rather_than_its_holder_shown(tmp_path: Path) -> None:
    store = mlflow_store.create(tmp_path, "cinema")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RegistryError, match=f"port {port} on 127.0.0.1"), mlflow_ui.serve(store, port=port):
            pass
