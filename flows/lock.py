"""One turn at a time per workspace: a lock that the kernel drops when its process dies, however it dies.

Where the registry or the inbox is on a PostgreSQL server, also one at a time among all workspaces of the product that
share it, on whatever machine: `integrations.shared_lock`.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from flows.journal import Run, running, write
from flywheel import config
from flywheel.errors import BusyError, FlywheelError
from flywheel.integrations import prefect_runs

if TYPE_CHECKING:
    from flywheel.integrations.shared_lock import Server

WAITING = ("turn", "backfill")  # the commands that can be told to wait
GLANCE = 0.3  # s for which somebody may hold the lock who only looks whether it is held
HOLDER = "lock.json"
Note = dict[str, Any]


@contextmanager
def locked(cache: Path, command: str, *, wait: bool | float = False) -> Iterator[None]:
    """Hold the workspace whose `.flywheel` is `cache`; `wait` for whoever holds it, at most so many seconds.

    What each step comes to is told to the journal meanwhile; and if whoever held it before was killed, that too.

    Raises:
        BusyError: another process holds it, or a workspace that shares its stores; says which, since when, doing what.
        LockLost: the server of the shared stores cannot be asked.
        FlywheelError: the workspace cannot be written.
    """
    patience = -1 if wait is True else max(GLANCE, wait)
    lock, path = FileLock(cache / "lock", timeout=patience), cache / HOLDER
    demand_writable(cache)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError("the workspace is busy", why=_told(path), next=_later(command)) from None
    try:
        mark_killed(cache)
        with _elsewhere(cache.parent, command, patience):
            run = Run(cache, command)
            note = _note(run)
            path.write_text(json.dumps(note))
            try:
                with running(run):
                    yield
            finally:
                path.write_text(json.dumps(note | {"ended": _now()}))
    finally:
        lock.release()


def mark_killed(cache: Path) -> None:
    """Tell the journal, and Prefect where it is reached, of a run that ended without a word; called under the lock."""
    note = _read(cache / HOLDER)
    if note is None or "ended" in note:
        return
    why = f"{named(note)} was killed; what it had finished is kept, and the next one goes on from there"
    line = {"run": note.get("run", ""), "command": note.get("command", ""), "step": "killed", "reason": why}
    write(cache, line)
    if note.get("flow_run"):
        prefect_runs.crash(str(note["flow_run"]), why)


def holder(cache: Path) -> tuple[Note | None, bool]:
    """Who holds the workspace, or held it last and was killed, and whether it is held; without waiting for it."""
    note = _read(cache / HOLDER)
    held = is_held(cache / "lock")
    return (note if held or (note and "ended" not in note) else None), held


def held_elsewhere(root: Path) -> str:
    """Which command turns the wheel on another machine, in words; nothing if none does, or that cannot be told."""
    shared = _shared(root)
    if shared is None:
        return ""
    from flywheel.integrations import shared_lock

    return shared_lock.holder(*shared)


def is_held(path: Path) -> bool:
    """Whether a process holds a lock; to find out it is taken for a moment, which `GLANCE` allows for."""
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # somebody else's, and not for us to take
        return False
    lock.release()
    return False


def named(note: Note) -> str:
    """A note in words."""
    who = f"flywheel {note.get('command')}, process {note.get('pid')} on {note.get('host')}"
    return f"{who}, since {note.get('since')}"


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


def _elsewhere(root: Path, command: str, patience: float) -> AbstractContextManager[None]:
    """The lock that other machines see, where the workspace at `root` has stores on a PostgreSQL server."""
    shared = _shared(root)
    if shared is None:
        return nullcontext()
    from flywheel.integrations import shared_lock

    return shared_lock.held(*shared, command, patience=patience, later=_later(command))


def _shared(root: Path) -> "tuple[Server, str] | None":
    """The PostgreSQL server that a workspace shares stores on, and what its lock is called there."""
    told = config.load(root) if (root / "flywheel.toml").exists() else None
    urls = [told.registry.url if told and told.registry else None, told.inbox_url if told else None]
    if told is None or urls == [None, None]:
        return None
    from flywheel.integrations import shared_lock  # SQLAlchemy, for those who need it

    server = next((found for url in urls if url and (found := shared_lock.server(url))), None)
    return None if server is None else (server, told.product.name)


def _note(run: Run) -> Note:
    who = {"command": run.command, "pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
    return who | {"run": run.id, "flow_run": prefect_runs.current()}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"


def _read(path: Path) -> Note | None:
    """A note, as far as it can be read: it may be from before, or half written."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _later(command: str) -> str:
    return f"flywheel {command} --wait" if command in WAITING else f"flywheel {command} again, once it has ended"


def _told(path: Path) -> str:
    """Who holds the lock."""
    note = _read(path)
    if note is None or "ended" in note or not {"command", "pid", "host", "since"} <= note.keys():
        return "another flywheel command has just started"
    return f"flywheel {note['command']} runs as process {note['pid']} on {note['host']} since {note['since']}"
