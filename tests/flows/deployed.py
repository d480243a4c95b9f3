"""A team's deployment on this machine: a product that serves, with every store where deploy/compose.yaml has it."""

import itertools
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import starting
from flows.demo import WEEK, World
from flows.products import InProcess
from flywheel.integrations import prefect_process
from flywheel.simulator.society import Habits, begin
from flywheel.workspace import Workspace
from tests.conftest import Postgres
from tests.flows import live, team

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "deploy" / "README.md"
DATABASES = ROOT / "deploy" / "databases.sql"
STORES = ("inbox", "mlflow")
WEEKS = 4
BOOT_SECONDS = 240


@dataclass(frozen=True)
class Begun:
    """A product after some weeks: its folder, its world, and a copy of each of its databases."""

    root: Path
    life: World
    copies: dict[str, str]


def begin_team(root: Path, endpoint: str, postgres: Postgres) -> Begun:
    """Live some weeks until lately, with a turn after each, in shared stores; of their databases copies are left."""
    with databases(postgres), named(postgres):
        ws = live.build(root)
        starting.complete(root)  # whose registry the environment names
        team.remote(ws, endpoint)
        product = InProcess(ws)
        life = World(begin(live.SETTINGS, Habits(candidates=12), start=_lately(), seed=3), product)
        life.live(1)
        turned = []
        for _ in range(WEEKS):
            life.live(WEEK)
            turned.append(live.turn(ws, life))
            product.reload()
        product.close()
        assert "promoted" in {t.status for t in turned}, turned
        return Begun(root, life, {name: _copy(postgres, name) for name in STORES})


@contextmanager
def again(begun: Begun, root: Path, postgres: Postgres) -> Iterator[tuple[Workspace, World]]:
    """The same product and world, in a folder and databases of their own."""
    shutil.copytree(begun.root, root, symlinks=True)
    with databases(postgres, begun.copies), named(postgres):
        ws = Workspace.open(root)
        with closing(InProcess(ws)) as product:
            yield ws, begun.life.fork(product)


@contextmanager
def databases(postgres: Postgres, templates: dict[str, str] | None = None) -> Iterator[None]:
    """Databases by the names of the guide, empty or copies of others."""
    lay_out(postgres)
    for name, template in (templates or {}).items():
        drop(postgres, name)
        postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield
    drop(postgres, *STORES, "prefect")


def lay_out(postgres: Postgres) -> None:
    """Make the databases as the guide does."""
    command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(DATABASES)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | _reach(postgres))


def drop(postgres: Postgres, *names: str) -> None:
    """Lose databases."""
    for name in names:
        postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def named(postgres: Postgres) -> Iterator[None]:
    """Have the environment name the stores, as that of the containers does."""
    with team.named(postgres.url("mlflow")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWHEEL_INBOX__URL", postgres.url("inbox"))
        yield


def recipes(heading: str) -> list[list[str]]:
    """The commands of the guide under a heading, block by block."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert section is not None
    return [[line.strip() for line in block.splitlines()] for block in re.findall(r"(?:^ {4}.*\n)+", section[1], re.M)]


def follow(commands: list[str], ws: Path, folder: Path, postgres: Postgres) -> str:
    """Do what the guide says, in a folder; what that prints."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    aws = folder / "bin" / "aws"
    aws.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/flows/aws.py"} "$@"\n')
    aws.chmod(0o755)
    path = os.pathsep.join([str(aws.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"PATH": path, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "WORKSPACE": str(ws)}
    shell = ["bash", "-euo", "pipefail", "-c", "\n".join(commands)]
    env = os.environ | ours | _reach(postgres)
    done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def one_address(*servers: str) -> Iterator[str]:
    """An address for several servers, as deploy/Caddyfile makes one: each connection goes to the next that takes it."""
    turns = itertools.cycle(servers)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            there = _connected(itertools.islice(turns, len(servers)))
            if there is not None:
                with there:
                    back = threading.Thread(target=_pass_on, args=(there, self.request))
                    back.start()
                    _pass_on(self.request, there)
                    back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as relay:
        threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{relay.server_address[1]}"
        relay.shutdown()


@contextmanager
def history(home: Path, postgres: Postgres) -> Iterator[str]:
    """The address of all of Prefect's server, whose history is in a database beside the other stores."""
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        url = postgres.url("prefect").replace("postgresql:", "postgresql+asyncpg:")
        patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", url)
        child = prefect_process.start(home, 0, "ui")
    try:
        port = prefect_process.port_of(child, BOOT_SECONDS)
        assert port is not None, (home / "ui.log").read_text()
        yield prefect_process.api_url(port)
    finally:
        prefect_process.end(child)


def _connected(servers: Iterable[str]) -> socket.socket | None:
    for server in servers:
        host, _, port = server.partition(":")
        with suppress(OSError):
            return socket.create_connection((host, int(port)), 2)
    return None


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reach(postgres: Postgres) -> dict[str, str]:
    return {"PGHOST": str(postgres.folder), "PGUSER": "postgres"}


def _copy(postgres: Postgres, name: str) -> str:
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    return postgres.database(name)


def _lately() -> datetime:
    """A Monday from which on the weeks, and one more, have passed by now."""
    weeks = (datetime.now(UTC) - live.START) // timedelta(weeks=1) - WEEKS - 1
    return live.START + timedelta(weeks=weeks)
