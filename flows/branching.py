"""A branch of the dataset: windows are made again beside the live loop, and take their places in one step.

    .flywheel/branch/<what was asked>/   branch.json   base/ledger.parquet   inbox/   ids/
                                         reclosed/<window>/, new/<window>/: events, quarantine and, last, ledger.parquet

A window is made once its `ledger.parquet` of one line is there; a killed backfill takes it up. The swap makes a whole
`data/` of hard links with the new windows in their places, and exchanges it for the old one by a single rename, so
that nobody ever sees half of it. Windows that closed meanwhile are carried over. The workspace is held while a branch
begins and while it is swapped in, not between.
"""

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from flows import closing
from flows.failpoints import failpoint
from flywheel import parquet
from flywheel.data import dataset
from flywheel.fingerprint import Seen, atomic_write, link, sha256, sync
from flywheel.records import LedgerLine
from flywheel.workspace import Workspace

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@dataclass(frozen=True)
class Branch:
    """Windows to be made again, by name with the reason, from the dataset as it was when that was decided."""

    folder: Path
    base: tuple[LedgerLine, ...]
    chosen: dict[str, str]
    started: datetime


def root_of(ws: Workspace) -> Path:
    """Where branches are, all of which may be deleted."""
    return ws.cache / "branch"


def begin(ws: Workspace, asked: str, choose: Callable[[Sequence[LedgerLine]], dict[str, str]]) -> Branch:
    """Take up the branch that was begun for the same, if it still fits the dataset; else begin one. Hold the workspace.

    Raises:
        IntegrityError: the dataset is not what was written.
    """
    folder = root_of(ws) / hashlib.sha256(asked.encode()).hexdigest()[:12]
    _finish_rename(ws)
    ledger = ws.ledger()
    dataset.sweep(ws.data)
    dataset.verify_windows(ws.data, ledger, Seen(ws.cache / "seen.json"))
    known = _taken_up(folder, ledger)
    if known is not None:
        return known
    for stale in root_of(ws).glob("*/"):
        shutil.rmtree(stale)
    made = Branch(folder, ledger, choose(ledger), datetime.now(UTC))
    (folder / "base").mkdir(parents=True)
    dataset.write_ledger(folder / "base", ledger)
    told = json.dumps({"started": made.started.isoformat(), "chosen": made.chosen}, indent=1)
    atomic_write(folder / "branch.json", lambda path: path.write_text(told))
    return made


def keep(folder: Path, line: LedgerLine, rows: pa.Table, quarantined: pa.Table | None) -> LedgerLine:
    """Keep a window that was made, its line last; the line as kept, with its files' hashes.

    Without `quarantined`, its quarantine stays what it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = dict(line.__dict__) | {"events_sha256": _write(folder / "events.parquet", rows)}
    if quarantined is not None:
        held = _write(folder / "quarantine.parquet", quarantined) if quarantined.num_rows else None
        values |= {"quarantine_sha256": held}
    failpoint("redo:mid")
    kept = LedgerLine(**values)
    dataset.write_ledger(folder, [kept])
    return kept


def made(folder: Path) -> LedgerLine | None:
    """The line of a window that was made; None while it is not."""
    return next(iter(dataset.read_ledger(folder)), None)


def swap(ws: Workspace, branch: Branch) -> list[str]:
    """Put the windows of a branch in their places, all at once; the names of those that changed. Hold the workspace.

    A window whose line is no longer the one that it was made from stays as it is.
    """
    _finish_rename(ws)
    ledger = ws.ledger()
    base = {line.window: line for line in branch.base}
    new = {path.name: line for path in (branch.folder / "new").glob("*/") if (line := made(path))}
    changed = {name: line for name, line in new.items() if line != base[name]}
    moving = [line.window for line in ledger if line.window in changed and line == base[line.window]]
    if moving:
        _build(ws.data, branch.folder, {name: changed[name] for name in moving}, base)
        dataset.write_ledger(branch.folder / "data", [changed[x.window] if x.window in moving else x for x in ledger])
        failpoint("swap:before")
        exchange(branch.folder / "data", ws.data)
        failpoint("swap:mid")
    there = [line.window for line in ws.ledger() if changed.get(line.window) == line]
    if there:
        closing.version(ws, f"Correct {len(there)} windows, {there[0]} to {there[-1]}")
    failpoint("swap:after")
    return there


def end(branch: Branch) -> None:
    """Remove a branch whose windows are in their places."""
    (branch.folder / "branch.json").unlink(missing_ok=True)
    shutil.rmtree(branch.folder)


def exchange(new: Path, old: Path) -> None:
    """Let two folders change places: in one step where the system can, else in two, which `begin` and `swap` mend."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE):
        old.rename(new.with_name("before"))
        new.rename(old)
    for folder in (old.parent, new.parent):
        sync(folder)


def _finish_rename(ws: Workspace) -> None:
    """Finish an exchange that took two steps and was killed between them."""
    for before in root_of(ws).glob("*/before"):
        if not ws.data.exists():
            (before.parent / "data").rename(ws.data)


def _taken_up(folder: Path, ledger: Sequence[LedgerLine]) -> Branch | None:
    try:
        told = json.loads((folder / "branch.json").read_text())
    except (OSError, ValueError):
        return None
    base = dataset.read_ledger(folder / "base")
    fits = len(base) <= len(ledger) and all(
        now in (line, made(folder / "new" / line.window)) for line, now in zip(base, ledger, strict=False)
    )
    return Branch(folder, base, told["chosen"], datetime.fromisoformat(told["started"])) if fits else None


def _build(data: Path, folder: Path, changed: dict[str, LedgerLine], base: dict[str, LedgerLine]) -> None:
    """A whole dataset at `folder/data`: links to what stays, and to the new windows' files."""
    target = folder / "data"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(data, target, copy_function=link)
    for name, line in changed.items():
        files = [(dataset.events_path(target, name), "events.parquet")]
        if line.quarantine_sha256 != base[name].quarantine_sha256:
            files.append((dataset.quarantine_path(target, name), "quarantine.parquet"))
        for path, held in files:
            path.unlink(missing_ok=True)
            if (source := folder / "new" / name / held).exists():
                path.parent.mkdir(exist_ok=True)
                link(source, path)
    (target / "ledger.parquet").unlink()
    for path in (*target.glob("*/"), target):
        sync(path)


def _write(path: Path, table: pa.Table) -> str:
    atomic_write(path, lambda at: parquet.write(at, table))
    return sha256(path)
