"""A team's stores: generations on a real PostgreSQL server, models and data in a bucket, machines that share both."""

import json
import logging
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import deciding, inspect, publishing, starting
from flywheel.errors import IntegrityError, RegistryError
from flywheel.integrations import dvc_data, mlflow_registry, mlflow_store
from flywheel.workspace import Workspace
from tests.flows import world

BUCKET = "wheel"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server on this machine with an empty bucket."""
    boto3 = pytest.importorskip("boto3", reason="the S3 client is not installed")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "of-a-test",
        "AWS_SECRET_ACCESS_KEY": "of-a-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": url,
        "MLFLOW_S3_ENDPOINT_URL": url,
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(
        urllib.request.Request(f"{url}/moto-api/reset", method="POST")
    ).close()  # one for all servers
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


@pytest.fixture
def shared(
    endpoint: str, fresh_schema: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A workspace whose generations, models and data are elsewhere."""
    ws = world.build(tmp_path / "one" / "cinema")
    shutil.rmtree(ws.root / "mlruns")
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", fresh_schema())
    monkeypatch.setenv("FLYWHEEL_REGISTRY__ARTIFACTS", f"s3://{BUCKET}/generations")
    starting.complete(ws.root)
    for words in (("add", "-d", "team", f"s3://{BUCKET}/data"), ("modify", "team", "endpointurl", endpoint)):
        subprocess.run([sys.executable, "-m", "dvc", "remote", *words], cwd=ws.root, check=True, capture_output=True)
    return Workspace.open(ws.root)


def test_two_machines_share_a_registry_on_a_server_and_models_and_data_in_a_bucket(shared: Workspace) -> None:
    turned = world.turn(shared, world.FIRST)
    assert turned.status == "promoted", turned
    assert not (shared.root / mlflow_store.DATABASE).exists()
    assert not any((shared.root / mlflow_store.ARTIFACTS).rglob("*"))
    store = deciding.open_store(shared)
    assert mlflow_registry.state(store).champion == 1
    assert inspect.explain(shared, 1).findings
    assert mlflow_registry.load(store, 1).parts.features == shared.recipe.names

    other = shared.root.parents[1] / "two"  # another machine: what git tracks, and nothing else
    subprocess.run(["git", "clone", "-q", str(shared.root), str(other)], check=True)
    for name in ("data.dvc", "flywheel.toml"):
        shutil.copy(shared.root / name, other)
    shutil.copy(shared.root / ".dvc" / "config", other / ".dvc")
    shutil.copytree(shared.root.parent / "cinema" / "log", other / "log")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=other, check=True)
    ws = Workspace.open(other)
    assert world.ends(ws) == world.ends(shared)
    ws.matrices().build([])
    assert json.loads((publishing.publish(ws) / "snapshot.json").read_text())["generation"] == 1

    import boto3  # a model that was changed in the bucket is not served

    client = boto3.client("s3")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET, Prefix="generations")["Contents"]]
    [model] = [key for key in keys if key.endswith("/model.ubj")]
    held = client.get_object(Bucket=BUCKET, Key=model)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=model, Body=held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="is not what was written"):
        mlflow_registry.load(deciding.open_store(shared), 1)


def test_an_empty_database_is_no_store_without_generations(
    fresh: Workspace, fresh_schema: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", fresh_schema())
    with pytest.raises(RegistryError, match="has no MLflow store"):
        world.turn(Workspace.open(fresh.root), world.FIRST)
    assert dvc_data.pointer(fresh.root) is None


def test_a_password_is_never_told(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_REGISTRY__URL", "postgresql://wheel:s3cret@127.0.0.1:1/wheel?connect_timeout=1")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 0)  # it would try for a minute and a half
    ws = Workspace.open(fresh.root)
    with pytest.raises(RegistryError) as caught:
        world.turn(ws, world.FIRST)
    assert "s3cret" not in str(caught.value) + repr(caught.value)
    assert "s3cret" not in ws.config.told.model_dump_json()
