"""What more than one kind of test needs: a real PostgreSQL server."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of a session's own, without sync to disk."""

    folder: Path
    numbers: Iterator[int]

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def call(self, program: str, *words: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(BIN / program), *words]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def restart(self) -> None:
        """As a crash would: every session ends where it is."""
        self.call(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-w",
            "-l",
            str(self.folder / "log"),
            "-m",
            "immediate",
            "restart",
        )

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement for itself, and say what it answers."""
        url = self.url(database).replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            done = connection.exec_driver_sql(statement)
            return [tuple(row) for row in done] if done.returns_rows else []

    def database(self, template: str = "template1") -> str:
        """The name of a new database, empty or a copy of another."""
        name = f"place_{next(self.numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server on this machine."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    if not BIN.is_dir() or os.geteuid() != 0 or not shutil.which("runuser"):
        pytest.skip("needs Debian's postgresql, and root to start it as user postgres")
    server = Postgres(Path(tempfile.mkdtemp()), itertools.count())
    shutil.chown(server.folder, "postgres")
    data = str(server.folder / "data")
    server.call("initdb", "-D", data, "-A", "trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={server.folder} -c fsync=off"
    server.call("pg_ctl", "-D", data, "-w", "-l", str(server.folder / "log"), "-o", options, "start")
    yield server
    server.call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def postgres_server(postgres: Postgres) -> str:
    """The URL of the server."""
    return postgres.url()


@pytest.fixture(scope="session")
def fresh_schema(postgres: Postgres) -> Callable[[], str]:
    """Makes the URL of an empty place on the server."""

    def make() -> str:
        name = f"place_{next(postgres.numbers)}"
        postgres.execute(f"CREATE SCHEMA {name}")
        return f"{postgres.url()}&options=-csearch_path%3D{name}"

    return make
