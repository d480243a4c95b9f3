"""A team's stores on this machine: a bucket, a database, and a workspace that keeps its generations and data there."""

import logging
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flywheel.integrations import mlflow_store
from flywheel.workspace import Workspace
from tests.conftest import Postgres
from tests.flows import world

BUCKET = "flywheel"


@contextmanager
def bucket() -> Iterator[str]:
    """An S3 server on this machine with an empty bucket; the environment says where."""
    boto3 = pytest.importorskip("boto3", reason="the S3 client is not installed")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "of-a-test",
            "AWS_SECRET_ACCESS_KEY": "of-a-test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": url,
            "MLFLOW_S3_ENDPOINT_URL": url,
            "NO_PROXY": "127.0.0.1,localhost",
        }.items():
            patch.setenv(name, value)
        reset = urllib.request.Request(f"{url}/moto-api/reset", method="POST")  # one memory for all servers
        urllib.request.urlopen(reset).close()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield url
    server.stop()


def empty() -> None:
    """Lose all that is in the bucket."""
    import boto3

    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for found in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=found["Key"])


def remote(ws: Workspace, endpoint: str) -> None:
    """Have the workspace's data go to the bucket."""
    for words in (("add", "-d", "team", f"s3://{BUCKET}/data"), ("modify", "team", "endpointurl", endpoint)):
        subprocess.run([sys.executable, "-m", "dvc", "remote", *words], cwd=ws.root, check=True, capture_output=True)


@contextmanager
def named(url: str) -> Iterator[None]:
    """Have the environment name the registry of every workspace that is opened meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWHEEL_REGISTRY__URL", url)
        patch.setenv("FLYWHEEL_REGISTRY__ARTIFACTS", f"s3://{BUCKET}/generations")
        yield


def stores() -> dict[str, str]:
    """What of the environment names stores, for commands whose parent began before it did."""
    return {
        name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "MLFLOW_S3", "FLYWHEEL_", "NO_P"))
    }


@dataclass(frozen=True)
class Begun:
    """A workspace after its first turn in shared stores, and the database of its registry."""

    root: Path
    database: str

    def copy(self, root: Path, postgres: Postgres) -> "Begun":
        """The same, with a registry of its own."""
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'"
        postgres.execute(end)
        shutil.copytree(self.root, root, symlinks=True)
        return Begun(root, postgres.database(self.database))


def begin(fresh_root: Path, root: Path, endpoint: str, postgres: Postgres) -> Begun:
    """Have a first turn in shared stores."""
    shutil.copytree(fresh_root, root)
    shutil.rmtree(root / "mlruns")
    database = postgres.database()
    with named(postgres.url(database)):
        ws = Workspace.open(root)
        mlflow_store.create(root, ws.config.product.name, ws.config.registry)
        remote(ws, endpoint)
        turned = world.turn(ws, world.FIRST)
        assert turned.status == "promoted", turned
    return Begun(root, database)
