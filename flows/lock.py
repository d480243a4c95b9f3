"""One turn at a time per workspace: a lock that the kernel drops when its process dies, however it dies."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flywheel.errors import BusyError, FlywheelError

WAITING = ("turn", "backfill")  # the commands that can be told to wait


@contextmanager
def locked(cache: Path, command: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the workspace whose `.flywheel` is `cache`; `wait` for whoever holds it.

    Raises:
        BusyError: another process holds it; says which, since when and doing what.
        FlywheelError: the workspace cannot be written.
    """
    lock, holder = FileLock(cache / "lock", timeout=-1 if wait else 0), cache / "lock.json"
    demand_writable(cache)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError("the workspace is busy", why=_told(holder), next=_later(command)) from None
    try:
        holder.write_text(json.dumps(_note(command)))
        yield
    finally:
        lock.release()


def demand_writable(cache: Path) -> None:
    """Return if the workspace whose `.flywheel` is `cache` can be written.

    Raises:
        FlywheelError: it cannot.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "lock").touch()
    except OSError as error:
        raise FlywheelError(
            "the workspace cannot be written",
            where=str(error.filename or cache),
            why=error.strerror or str(error),
            next=f"make {cache.parent} writable for whoever runs this",
        ) from None


def _note(command: str) -> dict[str, str | int]:
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
    return {"command": command, "pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _later(command: str) -> str:
    return f"flywheel {command} --wait" if command in WAITING else f"flywheel {command} again, once it has ended"


def _told(holder: Path) -> str:
    """Who holds the lock, as far as its note can be read: it may be from before, or half written."""
    try:
        note = json.loads(holder.read_text())
        return f"flywheel {note['command']} runs as process {note['pid']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another flywheel command has just started"
