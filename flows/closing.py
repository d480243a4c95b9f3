"""Events become closed windows: take deliveries, then close what may be closed, one window after the other.

Where there are workers they make the windows (`closing_together`); here each is given its place, in order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from flows import closing_together, judging, spreading
from flows.failpoints import failpoint
from flows.judging import Offered
from flows.progress import tell
from flywheel.data import dataset
from flywheel.data.collect import Counts
from flywheel.data.identity import Ids
from flywheel.errors import BlockedError
from flywheel.fingerprint import Seen
from flywheel.integrations import dvc_data
from flywheel.records import LedgerLine, Outcomes
from flywheel.segments import Keys
from flywheel.sources import attributes
from flywheel.sources.files import NoFileError
from flywheel.sources.inbox_source import InboxSource, demand_marks
from flywheel.sources.locate import locate
from flywheel.sources.spool import Spool, Taken
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.integrations.dask_cluster import Cluster

WINDOWS_A_WORKER = 8  # made before the first of them is closed: what a kill costs, and whose ids are compared at once


def take(ws: Workspace, as_of: datetime, now: datetime) -> tuple[Taken, ...]:
    """Bring every new delivery into the inbox; `now` is the clock's, past which no event can be dated.

    Raises:
        BlockedError: more of a delivery than may be quarantined cannot be read as the contract says; it is not taken.
        IntegrityError: what was taken from the inbox before is not known here.
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
        if isinstance(source, InboxSource):
            with closing(source.inbox):  # which opens again for whoever reads it
                demand_marks(spool, consumed)
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
        ledger = ws.ledger()
        dataset.sweep(ws.data)
        dataset.verify_windows(ws.data, ledger, Seen(ws.cache / "seen.json"))
        tables = [attributes.read_attributes(spec, ws.root) for spec in ws.config.attributes]
        spool = Spool(ws.inbox, ws.config.windows.grid)
        closing_together.end(ws)  # what a killed run left, and the shards of the window that it had just closed
        spool.forget(frozenset(shard for line in ledger[-1:] for shard in line.shards))
        return cls(ws, spool, judging.ids(ws, ws.cache / "ids", ledger), tables, ledger)

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
        (offered,) = self._offered([window])
        judged = judging.judge(
            self.ws,
            window,
            events=self.spool.read_events(offered.events, self.ws.config),
            rejected=self.spool.read_rejected(offered.rejected),
            known=self.ids.known,
            attributes=self.tables,
        )
        failpoint("close:before")
        name = self.ws.config.windows.grid.name(window)
        sha256 = dataset.write_window(self.ws.data, name, judged.good, judged.quarantined)
        return self._closed(offered, judged.counts, sha256, judging.rules(self.ws))

    def close_together(self, windows: Sequence[int], cluster: "Cluster") -> Iterator[LedgerLine]:
        """Close windows as `close` would one after the other, made by workers some at a time.

        Raises:
            BlockedError: a suite stands in the way; those before it are closed.
        """
        some = WINDOWS_A_WORKER * cluster.parts
        for first in range(0, len(windows), some):
            offered = list(self._offered(windows[first : first + some]))
            self.ids.heal()
            part = closing_together.Part.begin(self.ws, self.tables)
            for one, made in zip(offered, closing_together.make(cluster.spread, part, offered), strict=True):
                if isinstance(made, Exception):
                    raise made
                failpoint("close:before")
                dataset.place_window(self.ws.data, self.ws.config.windows.grid.name(one.window), made.folder)
                yield self._closed(one, made.counts, made.sha256, made.rules, made.ids)

    def _offered(self, windows: Iterable[int]) -> Iterator[Offered]:
        """What each of these windows is closed from, the next ones to close."""
        consumed = self.consumed
        for window in windows:
            events = (*self.spool.shards(window, consumed), *self.spool.late(window, consumed))
            rejected = self.spool.rejected(window, consumed)
            yield Offered(window, events, rejected)
            consumed |= {*events, *rejected}

    def _closed(
        self, offered: Offered, counts: Counts, sha256: tuple[str, str | None], rules: str, ids: Keys | None = None
    ) -> LedgerLine:
        """Close a window whose files are written."""
        failpoint("close:mid")
        grid, name = self.ws.config.windows.grid, self.ws.config.windows.grid.name(offered.window)
        line = LedgerLine(
            window=name,
            start=grid.start(offered.window),
            end=grid.end(offered.window),
            **asdict(counts),
            events_sha256=sha256[0],
            quarantine_sha256=sha256[1],
            shards=tuple(sorted(offered.shards)),
            outcomes=self._settled(name),
            rules=rules,
        )
        self.ledger = dataset.append(self.ws.data, line)
        failpoint("close:after")
        self.ids.add(offered.window, dataset.fingerprint(self.ledger), ids)
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
    cluster = spreading.cluster() if len(pending) > 1 else None
    lines = map(closing.close, pending) if cluster is None else closing.close_together(pending, cluster)
    closed = []
    try:
        for line in lines:
            closed.append(line)
            tell("close", len(closed), len(pending))
    finally:
        closing_together.end(ws)
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
