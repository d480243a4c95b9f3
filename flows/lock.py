"""One turn at a time per workspace: a lock that the kernel drops when its process dies, however it dies."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flywheel.errors import BusyError


@contextmanager
def locked(cache: Path, command: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the workspace whose `.flywheel` is `cache`; `wait` for whoever holds it.

    Raises:
        BusyError: another process holds it; says which, since when and doing what.
    """
    cache.mkdir(parents=True, exist_ok=True)
    holder = cache / "lock.json"
    try:
        with FileLock(cache / "lock", timeout=-1 if wait else 0):
            told = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z",
            }
            holder.write_text(json.dumps(told | {"command": command}))
            yield
    except Timeout:
        raise BusyError("the workspace is busy", why=_told(holder), next=f"flywheel {command} --wait") from None


def _told(holder: Path) -> str:
    """Who holds the lock, as far as its note can be read: it may be from before, or half written."""
    try:
        note = json.loads(holder.read_text())
        return f"flywheel {note['command']} runs as process {note['pid']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another flywheel command has just started"
