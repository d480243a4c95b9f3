"""The inbox as a source for collect: decisions joined with their outcomes once their window may close, and ready rows.

Deliveries of decisions follow each other: each begins where the one before was cut. They are never taken again under
another contract, for where one begins is written in the mark of the one before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from flywheel.config import Config
from flywheel.errors import IntegrityError
from flywheel.events import Decision
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_database import reading
from flywheel.sources.inbox_reading import bodies, cut_now, decided, heard, rows_now, tally_rest
from flywheel.sources.normalise import contract_columns
from flywheel.sources.readers import Progress, read_objects
from flywheel.sources.served_rows import Slot, label_column, raw_batch, slots
from flywheel.sources.settling import Cut, Heard, Tally, cuts, judge, orphaned
from flywheel.sources.source import Mark, delivery_name
from flywheel.sources.spool import Spool

_ROWS = 20_000
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def demand_marks(spool: Spool, consumed: Iterable[str]) -> None:
    """Return if it is known here which deliveries the closed windows were made of.

    Raises:
        IntegrityError: it is not, and what was taken would be taken again.
    """
    lacking = {shard.partition("/")[0] for shard in consumed} - {taken.name for taken in spool.deliveries()}
    if lacking:
        raise IntegrityError(
            f"the marks of {len(lacking):,} deliveries that closed windows were made of are not here",
            where=str(spool.inbox / "shards"),
            why="without them what was taken from the inbox would be taken again, and counted twice",
            next="copy inbox/ from where the newest window was closed, or from its backup",
        )


@dataclass(frozen=True)
class InboxSource:
    """What arrived in an inbox; `until`, the watermark, is the end of the newest window that may close."""

    inbox: Inbox
    config: Config
    until: datetime

    def deliveries(self, marks: Sequence[Mark]) -> Iterator["RowsDelivery | DecisionsDelivery"]:
        """The ready rows that came since the last delivery; and the decisions dated before `until`, if that has moved.

        Raises:
            InboxUnavailable: the inbox cannot be read.
            IntegrityError: it holds less than was taken from it.
            ConfigError: the contract's label is nothing that the value of an outcome could be compared with.
        """
        label_column(self.config)
        try:
            yield from self._rows(marks)
            yield from self._decisions(marks)
        finally:
            self.inbox.close()

    def again(self, mark: Mark, marks: Sequence[Mark]) -> "RowsDelivery | DecisionsDelivery":
        """The delivery that left a mark, to be read once more; the cuts of all `marks` say what it held."""
        if "last" in mark:
            before = max((one["last"] for one in marks if one.get("last", mark["last"]) < mark["last"]), default=0)
            return RowsDelivery(self.inbox, self.config, before, mark["last"])
        now = Cut(**mark["cut"])
        return DecisionsDelivery(self.inbox, self.config, [cut for cut in cuts(marks) if cut.until < now.until], now)

    def forget(self, marks: Sequence[Mark], before: datetime) -> int:
        """Empty the bodies of decisions and rows that were delivered and are dated before the end of a closed window.

        Their ids stay for good. Says how many.
        """
        return self.inbox.forget(_micros(before), decisions=cuts(marks)[-1].decisions, rows=_last_row(marks))

    def _rows(self, marks: Sequence[Mark]) -> Iterator["RowsDelivery"]:
        before = _last_row(marks)
        with reading(self.inbox.engine) as connection:
            newest = rows_now(connection, before)
        if newest > before:
            yield RowsDelivery(self.inbox, self.config, before, newest)

    def _decisions(self, marks: Sequence[Mark]) -> Iterator["DecisionsDelivery"]:
        """One for each `until` once there is anything, and be it empty: what arrives later arrived after that."""
        earlier, until = cuts(marks), _micros(self.until)
        if until <= earlier[-1].until:
            return
        with reading(self.inbox.engine) as connection:
            now = cut_now(connection, until, earlier[-1])
        if now.decisions or now.outcomes:
            yield DecisionsDelivery(self.inbox, self.config, earlier, now)


class DecisionsDelivery:
    """The decisions between two cuts, a row a slot, in order of time; and the outcomes settled with them."""

    first_row = 1

    def __init__(self, inbox: Inbox, config: Config, earlier: Sequence[Cut], now: Cut) -> None:
        self._inbox, self._config, self._earlier, self._now = inbox, config, earlier, now
        self._grid = config.windows.grid
        until = _UNIX + now.until * _MICROSECOND
        self._newest = self._grid.index(until) - 1
        self.label = f"inbox up to {self._grid.name(self._newest + 1)}"
        self.name = delivery_name("inbox", *astuple(earlier[-1]), *astuple(now))
        self._mark: Mark = {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its raw rows, in bounded memory; see `Delivery`."""
        tally, before = Tally(), self._earlier[-1]
        waiting: list[Slot] = []
        with reading(self._inbox.engine) as connection:
            tally_rest(connection, before, self._now, self._grid.name(self._newest), tally)
            for page in decided(connection, before, self._now):
                came = heard(connection, page, self._now)
                for seq, decision in page:
                    waiting += self._slots(seq, decision, came.get(decision.id, ()), tally)
                while len(waiting) >= _ROWS:
                    yield raw_batch(waiting[:_ROWS], self._config)
                    del waiting[:_ROWS]
        if waiting:
            yield raw_batch(waiting, self._config)
        self._mark = {"kind": "inbox", "once": True, "cut": asdict(self._now), "outcomes": tally.outcomes()}
        self._mark["samples"] = tally.samples

    def mark(self) -> Mark:
        """The cut, and what was settled by window; empty until it has been read to its end."""
        return self._mark

    def _slots(self, seq: int, decision: Decision, came: Iterable[Heard], tally: Tally) -> list[Slot]:
        open_ones = [one for one in came if not orphaned(one.seq, one.ts, seq, self._earlier)]
        attribution = self._grid.attribution // _MICROSECOND
        return slots(decision, judge(decision, open_ones, self._window(decision.ts), attribution, tally))

    def _window(self, ts: int) -> str:
        """The window of a decision; of a late one, whose own was delivered before, the newest of this delivery."""
        late = ts < self._earlier[-1].until
        return self._grid.name(self._newest if late else self._grid.index(_UNIX + ts * _MICROSECOND))


class RowsDelivery:
    """Ready rows in order of arrival."""

    first_row = 1

    def __init__(self, inbox: Inbox, config: Config, before: int, last: int) -> None:
        self._inbox, self._config, self._before, self._last = inbox, config, before, last
        self.label = f"inbox, ready rows {before + 1} to {last}"
        self.name = delivery_name("inbox rows", before, last)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its raw rows, in bounded memory; see `Delivery`. A column that no row has is null."""
        progress = Progress(columns=list(contract_columns(self._config.contract)))
        with reading(self._inbox.engine) as connection:
            for page in bodies(connection, self._before, self._last):
                yield from read_objects(page, progress)

    def mark(self) -> Mark:
        """The last row taken."""
        return {"kind": "inbox rows", "once": True, "last": self._last}


def _last_row(marks: Sequence[Mark]) -> int:
    return max((mark["last"] for mark in marks if mark.get("kind") == "inbox rows"), default=0)


def _micros(at: datetime) -> int:
    return (at - _UNIX) // _MICROSECOND
