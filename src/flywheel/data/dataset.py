"""The windowed Parquet dataset: one immutable file a closed window, and the ledger that says which count.

    data/events/<window>.parquet   data/quarantine/<window>.parquet   data/ledger.parquet

Readers go by the ledger. An events file without a line in it is what a crash left between the two writes; the
rerun writes the same bytes again and then the line.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel import exchange, parquet
from flywheel.errors import IntegrityError
from flywheel.fingerprint import Seen, atomic_write, link, remove_leftovers, sha256, verify_all
from flywheel.records import LedgerLine, Outcomes
from flywheel.schema import TIME

SEAL = "sha256"  # of a ledger's lines, in its metadata
START = "0" * 64  # the address of a dataset without a window
LEAKS = ("duplicate", "quarantined", "unlabelled", "late")
_COUNTS = ("collected", "rows", *LEAKS)
_LEDGER = pa.schema(
    [pa.field("window", pa.string()), pa.field("start", TIME), pa.field("end", TIME)]
    + [pa.field(name, pa.int64()) for name in _COUNTS]
    + [pa.field("events_sha256", pa.string()), pa.field("quarantine_sha256", pa.string())]
    + [pa.field("shards", pa.list_(pa.string()))]
)
_OUTCOMES = pa.field("outcomes", pa.struct([pa.field(f.name, pa.int64()) for f in fields(Outcomes)]))
_RETURNED, _RULES = pa.field("returned", pa.int64()), pa.field("rules", pa.string())


def events_path(data: Path, window: str) -> Path:
    """Where the rows of a window are."""
    return data / "events" / f"{window}.parquet"


def quarantine_path(data: Path, window: str) -> Path:
    """Where the quarantined rows of a window are; there is no file where there are none."""
    return data / "quarantine" / f"{window}.parquet"


def ledger_path(data: Path) -> Path:
    """Where the ledger is."""
    return data / "ledger.parquet"


def write_window(data: Path, window: str, rows: pa.Table, quarantined: pa.Table) -> tuple[str, str | None]:
    """Write a window's files and return their hashes, the second None if nothing was quarantined.

    Equal tables make equal bytes, however they are chunked and whatever their dictionaries hold besides.

    Raises:
        IntegrityError: the window is closed, and with other rows. Nothing is written then.
    """
    closed = next((line for line in read_ledger(data) if line.window == window), None)
    quarantine = quarantine_path(data, window)
    known = closed.events_sha256 if closed else None
    events_hash = _write(events_path(data, window), rows, known)
    if quarantined.num_rows == 0:
        if closed is None:
            quarantine.unlink(missing_ok=True)
        return events_hash, None
    known = (closed.quarantine_sha256 or "no file") if closed else None
    return events_hash, _write(quarantine, quarantined, known)


def place_window(data: Path, window: str, made: Path) -> None:
    """Bring in the files of a window that is to be closed, which `write_window` wrote under `made`."""
    for where in (events_path, quarantine_path):
        source, target = where(made, window), where(data, window)
        if not source.exists():
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, partial(link, source))


def append(data: Path, line: LedgerLine) -> tuple[LedgerLine, ...]:
    """Close a window: add its line to the ledger, and return all of it. The same line again is no change.

    Raises:
        IntegrityError: the window is closed with another line, or does not follow the last one.
    """
    ledger = read_ledger(data)
    closed = next((known for known in ledger if known.window == line.window), None)
    if closed == line:
        return ledger
    if closed is not None:
        changed = [f.name for f in fields(line) if getattr(line, f.name) != getattr(closed, f.name)]
        raise _closes_once(line.window, f"its ledger line differs in {', '.join(changed)}")
    if ledger and line.start != ledger[-1].end:
        raise IntegrityError(
            f"window {line.window} does not follow {ledger[-1].window}, the last closed one",
            where=str(ledger_path(data)),
            why=f"it starts at {line.start.isoformat()}, and {ledger[-1].end.isoformat()} is next",
        )
    ledger = (*ledger, line)
    write_ledger(data, ledger)
    return ledger


def write_ledger(data: Path, ledger: Sequence[LedgerLine]) -> None:
    """Replace the ledger: for the turn, which adds a line, and the backfill, which makes another dataset."""
    atomic_write(ledger_path(data), lambda path: _write_ledger(path, ledger))


def read_ledger(data: Path) -> tuple[LedgerLine, ...]:
    """Every closed window, oldest first; empty where nothing is closed yet.

    Raises:
        IntegrityError: it cannot be read, does not add up, has a gap, or is missing while windows are there.
    """
    path = ledger_path(data)
    if not path.exists():
        if len(list(data.glob("events/*.parquet"))) > 1:  # one may stand without a line: a crash before its closing
            raise IntegrityError("the ledger is missing while windows are there", where=str(path), next=parquet.RESTORE)
        return ()
    try:
        table = parquet.read(path)
        lines = table.to_pylist()
        _check_seal(table.schema.metadata or {}, lines)
        ledger = tuple(_line(values) for values in lines)
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(
            "the ledger is not what was written", where=str(path), why=str(error), next=parquet.RESTORE
        ) from None
    for before, after in itertools.pairwise(ledger):
        if before.end != after.start:
            why = f"{after.window} does not follow {before.window}"
            raise IntegrityError("the ledger has a gap", where=str(path), why=why, next=parquet.RESTORE)
    return ledger


def read_window(
    data: Path, window: str, columns: Sequence[str] | None = None, *, maybe: Sequence[str] = ()
) -> pa.Table:
    """The rows of a closed window, all columns or those named, in that order, then those of `maybe` that it has.

    Page checksums are verified.

    Raises:
        IntegrityError: the file is missing, truncated or corrupted.
        DataError: it has no such column.
    """
    exchange.bring([path := events_path(data, window)])
    return parquet.read(path, columns, maybe=maybe)


def send(data: Path) -> None:
    """Send closed windows and the ledger to where workers find them, as far as they are not there."""
    if exchange.active() is not None:
        exchange.send(events_path(data, line.window) for line in read_ledger(data))
        exchange.send([ledger_path(data)], anew=True)


def read_quarantine(data: Path, window: str) -> pa.Table | None:
    """The quarantined rows of a window (`schema.REJECTED`), or None if there are none."""
    path = quarantine_path(data, window)
    return parquet.read(path) if path.exists() else None


def verify_windows(data: Path, lines: Sequence[LedgerLine], seen: Seen) -> None:
    """Check the files of these windows against the hashes in their lines.

    Raises:
        IntegrityError: a file is missing or is not the one that was written.
    """
    verify_all(_files(data, lines), seen)


def chain(ledger: Sequence[LedgerLine]) -> dict[str, str]:
    """For each window the address of the dataset up to it and with it: a running hash over names and rows."""
    address, chained = START, {}
    for line in ledger:
        address = hashlib.sha256(f"{address}\n{line.window}\n{line.events_sha256}".encode()).hexdigest()
        chained[line.window] = address
    return chained


def fingerprint(ledger: Sequence[LedgerLine]) -> str:
    """The address of the whole dataset: equal windows with equal rows, equal address."""
    return chain(ledger)[ledger[-1].window] if ledger else START


def sweep(data: Path) -> tuple[Path, ...]:
    """Remove what a killed run left: temporary files, and the files of a window that was never closed.

    To be called under the workspace's lock, before windows are closed.

    Raises:
        IntegrityError: more than one window has no line. No crash leaves that, so nothing is removed.
    """
    closed = {line.window for line in read_ledger(data)}
    stray = [path for kind in ("events", "quarantine") for path in sorted(data.glob(f"{kind}/*.parquet"))]
    stray = [path for path in stray if path.stem not in closed]
    windows = sorted({path.stem for path in stray})
    if len(windows) > 1:
        why = f"{len(windows)} windows have files and no ledger line: {windows[0]} to {windows[-1]}"
        raise IntegrityError("the ledger is older than the windows", where=str(data), why=why, next=parquet.RESTORE)
    for path in stray:
        path.unlink()
    return (*remove_leftovers(data), *stray)


@dataclass(frozen=True)
class Totals:
    """What became of everything collected; `leaks` holds what is not a training row, largest first.

    >>> print(Totals(windows=1, collected=1000, rows=972, leaks=(("duplicate", 20), ("late", 8))))
    yield 97.2 %: 972 of 1,000 rows; lost 20 duplicate, 8 late
    """

    windows: int
    collected: int
    rows: int
    leaks: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        if not self.collected:
            return "yield: nothing collected yet"
        percent = math.floor(1000 * self.rows / self.collected) / 10  # 100.0 is said of no leak only
        lost = ", ".join(f"{count:,} {name}" for name, count in self.leaks) or "nothing"
        return f"yield {percent:.1f} %: {self.rows:,} of {self.collected:,} rows; lost {lost}"


def totals(ledger: Sequence[LedgerLine]) -> Totals:
    """The sums over all closed windows, and the leaks in order of size."""
    sums = {name: sum(getattr(line, name) for line in ledger) for name in _COUNTS}
    sums["late"] -= sum(line.returned for line in ledger)
    leaks = sorted(((name, sums[name]) for name in LEAKS if sums[name]), key=lambda leak: -leak[1])
    return Totals(len(ledger), sums["collected"], sums["rows"], tuple(leaks))


def outcomes(ledger: Sequence[LedgerLine]) -> Outcomes:
    """What became of all outcomes that closed windows settled."""
    return Outcomes(*(sum(getattr(line.outcomes, f.name) for line in ledger) for f in fields(Outcomes)))


def _files(data: Path, lines: Sequence[LedgerLine]) -> Iterator[tuple[Path, str]]:
    for line in lines:
        yield events_path(data, line.window), line.events_sha256
        if line.quarantine_sha256 is not None:
            yield quarantine_path(data, line.window), line.quarantine_sha256


def _closes_once(window: str, why: str) -> IntegrityError:
    return IntegrityError(f"window {window} is closed, and a window closes once", why=why)


def _write(path: Path, table: pa.Table, closed: str | None) -> str:
    """Write a table to `path` and return its hash; if the window is closed, only compare the hashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hashes: list[str] = []

    def write(temporary: Path) -> None:
        parquet.write(temporary, table)
        hashes.append(sha256(temporary))
        if closed is not None and closed != hashes[0]:
            why = f"{path} has {closed[:12]}, and would become {hashes[0][:12]}"
            raise _closes_once(path.stem, why)

    atomic_write(path, write)
    return hashes[0]


def _write_ledger(path: Path, ledger: Sequence[LedgerLine]) -> None:
    schema = _LEDGER
    for column, held in (
        (_OUTCOMES, any(line.outcomes.collected for line in ledger)),
        (_RETURNED, any(line.returned for line in ledger)),
        (_RULES, any(line.rules for line in ledger)),
    ):
        schema = schema.append(column) if held else schema
    table = pa.Table.from_pylist([asdict(line) for line in ledger], schema=schema)
    parquet.write(path, table, {SEAL: _seal(table.to_pylist())})


def _seal(lines: list[dict[str, Any]]) -> str:
    """The hash of all that a ledger says: page checksums do not guard what a file says about its pages."""
    return hashlib.sha256(json.dumps(lines, default=str).encode()).hexdigest()


def _check_seal(metadata: dict[bytes, bytes], lines: list[dict[str, Any]]) -> None:
    """Let a ledger through that says what was written, or was written before ledgers were sealed."""
    if metadata.get(SEAL.encode(), _seal(lines).encode()) != _seal(lines).encode():
        raise ValueError("its lines do not have the hash that it holds")


def _line(values: dict[str, Any]) -> LedgerLine:
    outcomes = Outcomes(**values.pop("outcomes", {}))
    return LedgerLine(**values | {"shards": tuple(values["shards"]), "outcomes": outcomes})
