"""What each step came to: a line of JSON in `.flywheel/log.jsonl`, and an event where Prefect records the run.

A step says it with `tell`, and need not know in which run it is: `running` around the whole command knows. The
journal is bounded: at a mebibyte it becomes `log.1.jsonl`, in place of the one before.
"""

import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel import config
from flywheel.errors import ConfigError
from flywheel.integrations import prefect_runs

FILE, BEFORE = "log.jsonl", "log.1.jsonl"
MOST = 2**20  # bytes
CAME_TO = (
    "promoted",
    "passed",
    "waiting",
    "canary",
    "refused",
    "kept",
    "rejected",
    "skipped",
    "failed",
    "stopped",
    "killed",
)
Line = dict[str, Any]


@dataclass
class Run:
    """A command that holds the workspace; `turn` is the id of its turn, once that is known."""

    cache: Path
    command: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    turn: str = ""


_RUN: ContextVar[Run | None] = ContextVar("run", default=None)


@contextmanager
def running(run: Run) -> Iterator[None]:
    """Have what is told inside be of this run; how it ends is told too."""
    token = _RUN.set(run)
    tell("began", pid=os.getpid())
    ended: Line = {}
    try:
        yield
        ended = {"step": "ended"}
    finally:
        tell(**(ended or _fault()))
        _RUN.reset(token)


def turning(turn_id: str) -> None:
    """Say which turn the run has come to make; later lines name it."""
    run = _RUN.get()
    if run is not None:
        run.turn = turn_id


def tell(step: str, **facts: object) -> None:
    """Say what a step came to; outside of a run, to nobody."""
    run = _RUN.get()
    if run is not None:
        line = {"run": run.id, "command": run.command, "turn": run.turn, "step": step} | facts
        write(run.cache, line)
        prefect_runs.emit(step, _product(run.cache.parent), line)


def write(cache: Path, line: Line) -> None:
    """Append a line with the time to the journal of the workspace whose `.flywheel` is `cache`."""
    path = cache / FILE
    timed = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | line
    with suppress(OSError), path.open("ab", buffering=0) as file:  # in one write: two processes' lines do not mix
        if file.tell() > MOST:
            path.replace(cache / BEFORE)
        file.write(json.dumps(timed, ensure_ascii=False, default=str).encode() + b"\n")


def read(cache: Path) -> list[Line]:
    """The lines of the journal, oldest first; what a crash left of one is passed over."""
    lines = []
    for path in (cache / BEFORE, cache / FILE):
        for text in path.read_bytes().splitlines() if path.exists() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"time", "step", "run", "command"} <= line.keys():
                lines.append(line)
    return lines


def last(lines: list[Line], command: str) -> Line | None:
    """The newest line of this command that says what it came to; a turn that merely ended came to it before."""
    return next((line for line in reversed(lines) if line["command"] == command and line["step"] in CAME_TO), None)


def _fault() -> Line:
    """How the exception that is on its way ends a run."""
    error = sys.exception()
    if not isinstance(error, Exception):  # an interrupt, or Prefect's own wish that the run ends
        return {"step": "stopped", "reason": type(error).__name__}
    return {"step": "failed", "reason": " ".join(str(error).split())[:500], "error": type(error).__name__}


def _product(root: Path) -> str:
    try:
        return config.load(root).product.name
    except ConfigError:
        return root.name
