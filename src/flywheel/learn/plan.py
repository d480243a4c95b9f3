"""Which windows a generation is trained on and which it is examined on, at a given `as_of`.

The exam is the newest closed windows. Training stops where a model deployed at the start of the exam would have had
to stop: at windows that were closed by then.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flywheel.config import Config
from flywheel.errors import DataError
from flywheel.records import LedgerLine
from flywheel.windows import format_duration


@dataclass(frozen=True)
class Plan:
    """Windows with rows, by name, oldest first; and the hash of all that a model is made from: the same is no news."""

    train: tuple[str, ...]
    exam: tuple[str, ...]
    train_rows: int
    exam_rows: int
    fingerprint: str


def plan(ledger: Sequence[LedgerLine], config: Config, as_of: datetime) -> Plan:
    """Part the windows closed at `as_of` into training and exam.

    The exam takes the newest windows until it has as many windows and rows as `[exam]` asks for, and never more
    than half of all rows. Windows without rows count as windows and are not listed. Training takes what was closed when
    the exam starts, back to `[train] newest` before it.

    Raises:
        DataError: nothing is left to train on, or nothing to examine on.
    """
    grid = config.windows.grid
    last = grid.last_closed(as_of)
    closed = [line for line in ledger if grid.parse(line.window) <= last]
    exam = _exam(closed, config)
    if not exam:
        raise DataError(f"no closed window has a row at {as_of:%Y-%m-%d %H:%M}", next="flywheel status")
    start = grid.start(grid.parse(exam[0].window))
    oldest = closed[0].start if config.train.newest is None else start - config.train.newest
    train = [
        line
        for line in closed
        if line.rows and line.start >= oldest and grid.closes_at(grid.parse(line.window)) <= start
    ]
    if not train:
        raise DataError(
            f"no rows to train on before the exam, which starts at {start:%Y-%m-%d %H:%M}",
            why=f"of {sum(line.rows for line in closed):,} rows none was closed by then{_and_new(config)}",
            next="flywheel status",
        )
    exam = [line for line in exam if line.rows]
    made_from = [config.fingerprint("contract", "attributes", "windows", "features", "train")]
    made_from += [f"{line.window} {line.events_sha256}" for line in train]
    return Plan(
        train=tuple(line.window for line in train),
        exam=tuple(line.window for line in exam),
        train_rows=sum(line.rows for line in train),
        exam_rows=sum(line.rows for line in exam),
        fingerprint=hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:16],
    )


def _and_new(config: Config) -> str:
    newest = config.train.newest
    return "" if newest is None else f" and as new as [train] newest = {format_duration(newest)} asks for"


def _exam(closed: Sequence[LedgerLine], config: Config) -> list[LedgerLine]:
    most = sum(line.rows for line in closed) / 2
    taken: list[LedgerLine] = []
    rows = 0
    for line in reversed(closed):
        enough = len(taken) >= config.exam.windows and rows >= config.exam.rows
        if enough or (rows and rows + line.rows > most):
            break
        taken.insert(0, line)
        rows += line.rows
    while taken and not taken[0].rows:
        taken.pop(0)
    return taken
