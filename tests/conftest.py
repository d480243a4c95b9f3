"""What more than one kind of test needs: a real PostgreSQL server."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

BIN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of the session's own, without sync to disk."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    if not BIN.is_dir() or os.geteuid() != 0 or not shutil.which("runuser"):
        pytest.skip("needs Debian's postgresql 15, and root to start it as user postgres")
    folder = Path(tempfile.mkdtemp())
    shutil.chown(folder, "postgres")

    def call(*words: str) -> None:
        command = ["runuser", "-u", "postgres", "--", *words]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    call(str(BIN / "initdb"), "-D", str(folder / "data"), "-A", "trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    call(str(BIN / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://postgres@/postgres?host={folder}"
    call(str(BIN / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fresh_schema(postgres_server: str) -> Callable[[], str]:
    """Makes the URL of an empty place on the server."""
    count = itertools.count()

    def make() -> str:
        name = f"place_{next(count)}"
        engine = sa.create_engine(postgres_server.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        return f"{postgres_server}&options=-csearch_path%3D{name}"

    return make
