"""Events become closed windows: take deliveries, then close what may be closed, one window after the other."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime

import pyarrow as pa

from flows.failpoints import failpoint
from flows.progress import tell
from flywheel.data import collect, dataset, validate
from flywheel.data.collect import Collected, Counts
from flywheel.data.identity import Ids
from flywheel.errors import BlockedError
from flywheel.fingerprint import Seen
from flywheel.integrations import dvc_data, gx_suites
from flywheel.records import LedgerLine, Outcomes, SuiteResult
from flywheel.sources import attributes
from flywheel.sources.files import NoFileError
from flywheel.sources.locate import locate
from flywheel.sources.spool import Spool, Taken
from flywheel.workspace import Workspace

DOORS = ("events.json", "rows.json")


def take(ws: Workspace, as_of: datetime, now: datetime) -> tuple[Taken, ...]:
    """Bring every new delivery into the inbox; `now` is the clock's, past which no event can be dated.

    Raises:
        BlockedError: more of a delivery than may be quarantined cannot be read as the contract says; it is not taken.
    """
    failpoint("take:before")
    grid = ws.config.windows.grid
    consumed = frozenset(shard for line in ws.ledger() for shard in line.shards)

    def progress(rows: int) -> None:
        tell("collect", rows)
        failpoint("take:mid")

    def accept(delivery: Taken, rejected: Callable[[], pa.Table]) -> None:
        if delivery.rejected > ws.config.max_quarantined * delivery.rows:
            raise _refused(delivery, rejected())

    spool = Spool(ws.inbox, grid)
    taken: list[Taken] = []
    for source in locate(ws.config, ws.root, until=grid.watermark(as_of)):
        try:
            taken += spool.take(source, ws.config, now=now, consumed=consumed, progress=progress, accept=accept)
        except NoFileError:
            if spool.deliveries() or not consumed:
                raise  # else a clone: it has the closed windows, and not the deliveries that they were made of
    failpoint("take:after")
    return tuple(taken)


def _refused(delivery: Taken, rejected: pa.Table) -> BlockedError:
    row = min(rejected.to_pylist(), key=lambda row: row["row"])
    return BlockedError(
        f"{delivery.rejected:,} of {delivery.rows:,} rows of {delivery.label} were refused",
        where=f"{delivery.label}, row {row['row']}",
        why="; ".join(row["reasons"]),
        next="correct the file, or [contract] in flywheel.toml, then flywheel turn",
    )


@dataclass(frozen=True)
class Judged:
    """A window's rows after validation: those that are good, those that are not, and the count of all."""

    good: pa.Table
    quarantined: pa.Table
    counts: Counts


def judge(ws: Workspace, name: str, collected: Collected) -> Judged:
    """Have the suites judge what a window collected.

    Raises:
        BlockedError: one stands in the way of its closing.
    """
    validation = validate.validate(
        collected.rows,
        examine(ws, collected.rows),
        refused=collected.rejected,
        max_quarantined=ws.config.max_quarantined,
    )
    validate.demand_open(name, validation)
    return Judged(
        validation.good,
        collect.quarantine(collected, validation.reasons, ws.config),
        collect.ledger(collected, validation.reasons),
    )


def rules(ws: Workspace) -> str:
    """The fingerprint of all that decides what becomes of an event: contract, windows, attributes, suites."""
    told = [ws.config.fingerprint("contract", "attributes", "windows", "max_quarantined").encode()]
    told += [(ws.expectations / door).read_bytes() for door in DOORS]
    return hashlib.sha256(b"\0".join(told)).hexdigest()[:12]


@dataclass
class Closing:
    """The closing of one window after the other: what is read once for all of them."""

    ws: Workspace
    spool: Spool
    ids: Ids
    tables: list[pa.Table]
    ledger: tuple[LedgerLine, ...]

    @classmethod
    def begin(cls, ws: Workspace) -> "Closing":
        """Verify the dataset, and read what every window needs."""
        grid = ws.config.windows.grid
        ledger = ws.ledger()
        dataset.sweep(ws.data)
        dataset.verify_windows(ws.data, ledger, Seen(ws.cache / "seen.json"))
        chain = {grid.parse(name): address for name, address in dataset.chain(ledger).items()}
        reader = ws.reader
        ids = Ids(ws.cache / "ids", chain, lambda window: reader(window, ["event_id"]).column("event_id"))
        tables = [attributes.read_attributes(spec, ws.root) for spec in ws.config.attributes]
        return cls(ws, Spool(ws.inbox, grid), ids, tables, ledger)

    @property
    def consumed(self) -> frozenset[str]:
        """The shards that closed windows have consumed."""
        return frozenset(shard for line in self.ledger for shard in line.shards)

    def pending(self, as_of: datetime) -> list[int]:
        """The windows that may be closed at `as_of` and are not yet, oldest first."""
        grid = self.ws.config.windows.grid
        if self.ledger:
            first = grid.parse(self.ledger[-1].window) + 1
        else:
            span = self.spool.span(self.consumed)
            if span is None:
                return []
            first = span[0]
        return list(range(first, grid.last_closed(as_of) + 1))

    def close(self, window: int) -> LedgerLine:
        """Close one window: its rows, its quarantine and its line in the ledger.

        Raises:
            BlockedError: a suite stands in the way; nothing is written.
        """
        ws, grid = self.ws, self.ws.config.windows.grid
        name = grid.name(window)
        consumed = self.consumed
        events = (*self.spool.shards(window, consumed), *self.spool.late(window, consumed))
        refused = self.spool.rejected(window, consumed)
        collected = collect.close(
            window,
            ws.config,
            events=self.spool.read_events(events, ws.config),
            rejected=self.spool.read_rejected(refused),
            known=self.ids.known,
            attributes=self.tables,
        )
        judged = judge(ws, name, collected)
        failpoint("close:before")
        sha_events, sha_quarantine = dataset.write_window(ws.data, name, judged.good, judged.quarantined)
        failpoint("close:mid")
        line = LedgerLine(
            window=name,
            start=grid.start(window),
            end=grid.end(window),
            **asdict(judged.counts),
            events_sha256=sha_events,
            quarantine_sha256=sha_quarantine,
            shards=tuple(sorted((*events, *refused))),
            outcomes=self._settled(name),
            rules=rules(ws),
        )
        self.ledger = dataset.append(ws.data, line)
        failpoint("close:after")
        self.ids.add(window, dataset.fingerprint(self.ledger))
        self.spool.forget(frozenset(line.shards))
        return line

    def _settled(self, window: str) -> Outcomes:
        """The outcomes that the inbox settled with a window; the first one also has those from before it."""
        before = self.ledger[-1].window if self.ledger else ""
        told = [
            counts
            for taken in self.spool.deliveries()
            for name, counts in taken.mark.get("outcomes", {}).items()
            if before < name <= window
        ]
        return Outcomes(*(sum(counts[f.name] for counts in told) for f in fields(Outcomes)))


def close(ws: Workspace, as_of: datetime) -> list[LedgerLine]:
    """Close every window that may be closed at `as_of`, in order; the first that is blocked stops it.

    Raises:
        BlockedError: a window does not meet its suites. Those before it are closed.
    """
    closing = Closing.begin(ws)
    pending = closing.pending(as_of)
    closed = []
    for done, window in enumerate(pending, start=1):
        closed.append(closing.close(window))
        tell("close", done, len(pending))
    return closed


def version(ws: Workspace, message: str = "") -> str:
    """Move data.dvc to the dataset as it is; its md5."""
    failpoint("version:before")
    made = dvc_data.version(ws.root)
    if ws.config.commit_data:
        dvc_data.commit_pointer(ws.root, message or f"Close windows up to {ws.ledger()[-1].window}")
    failpoint("version:after")
    return made.md5


def push(ws: Workspace) -> str:
    """Send the dataset to its DVC remote, if it has one; where that fails it is told, and the next turn tries again."""
    said = dvc_data.push(ws.root)
    if said.startswith("unpushed"):
        logging.getLogger("flywheel").warning("the data is not on its remote yet, %s; the next turn tries again", said)
    return said


def examine(ws: Workspace, rows: pa.Table) -> list[SuiteResult]:
    """What each suite at the doors says of a window's rows."""
    frame = rows.to_pandas()
    return [gx_suites.run(gx_suites.read(ws.expectations / door), frame) for door in DOORS]
