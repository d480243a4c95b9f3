"""The inbox: durable arrival. What `write` has returned is on disk, each event id once for good.

The server and the simulator write; collect reads (`inbox_source`). SQLAlchemy's Core on SQLite or PostgreSQL.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
import xxhash

from flywheel.events import Decision, Outcome, Row
from flywheel.sources.inbox_database import (
    CONFLICTS,
    DECISIONS,
    OUTCOMES,
    REPEATS,
    ROWS,
    connect,
    label_of,
    listed,
    reading,
    talking,
    writing,
)

Fate = Literal["accepted", "duplicate", "conflict"]
OTHER_CONTENT = "same event id, other content"
_MOST_ROWS = 500  # in one statement
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Written:
    """What became of each event of a write, in the order given: a `conflict` is a duplicate id with other content."""

    decisions: list[Fate]
    outcomes: list[Fate]
    rows: list[Fate]


@dataclass(frozen=True)
class Arrived:
    """How many events of a kind ever arrived: `kept` once each, `duplicate` again, `conflict` with other content."""

    kept: int
    duplicate: int
    conflict: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.kept + self.duplicate + self.conflict


Values = tuple[Any, ...]


@dataclass(frozen=True)
class _Kind:
    """One kind of event: its table, its columns, what an event writes there, and which of them are its content."""

    table: sa.Table
    columns: tuple[str, ...]
    values: Callable[[Any], Values]
    content: slice
    ts: int
    body: Callable[[Any], bytes]


def _decision(event: Decision) -> Values:
    body = _encode(event)
    return (event.id, event.ts, _hash(body), body)


def _outcome(event: Outcome) -> Values:
    return (event.event_id, event.decision_id, event.item, event.value, event.ts)


def _row(event: Row) -> Values:
    return (event.event_id, event.ts, _hash(event.body), event.body)


def _hash(body: bytes) -> int:
    return xxhash.xxh3_64_intdigest(body) - 2**63


_BODIED = ("id", "ts", "content", "body")
_KINDS = {
    "decisions": _Kind(DECISIONS, _BODIED, _decision, slice(2, 3), 1, _encode),
    "outcomes": _Kind(OUTCOMES, ("id", "decision_id", "item", "value", "ts"), _outcome, slice(1, 4), 4, _encode),
    "rows": _Kind(ROWS, _BODIED, _row, slice(2, 3), 1, lambda row: bytes(row.body)),
}


class Inbox:
    """A database of decisions, outcomes and ready rows. May be used by several threads and processes at once."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._present = {name: _present(kind, engine) for name, kind in _KINDS.items()}

    @classmethod
    def open(cls, url: str | None, root: Path) -> "Inbox":
        """The inbox at `url`, made where it is absent; without a URL, `root/inbox/inbox.db`.

        Raises:
            SourceError: the URL cannot be read, or there is no driver for it.
            InboxUnavailable: the database cannot be reached.
        """
        return cls(connect(url, root))

    @property
    def label(self) -> str:
        """What people call it."""
        return label_of(self.engine)

    def write(
        self, decisions: Sequence[Decision] = (), outcomes: Sequence[Outcome] = (), rows: Sequence[Row] = ()
    ) -> Written:
        """Write events in one transaction; they are on disk when it returns.

        An event whose id was seen before is counted, and not kept; if its content is another, that is kept aside.
        The content of an outcome is its decision, item and value: a client that leaves out `ts` may send it again.

        Raises:
            InboxUnavailable: the database refuses. Nothing is acknowledged, and writing it again is safe.
            EventError: no database can hold one of the events. Nothing was written.
        """
        with talking(self.label), writing(self.engine) as connection:
            return Written(
                decisions=self._write(connection, "decisions", decisions),
                outcomes=self._write(connection, "outcomes", outcomes),
                rows=self._write(connection, "rows", rows),
            )

    def arrived(self) -> dict[str, Arrived]:
        """How many decisions, outcomes and rows ever arrived, by these names."""
        with reading(self.engine) as connection:
            return {name: _arrived(connection, name, kind.table) for name, kind in _KINDS.items()}

    def forget(self, before: int, *, decisions: int, rows: int) -> int:
        """Empty the bodies of decisions and rows dated before a time and up to a `seq` of each; how many.

        Their ids stay for good. `inbox_source` knows what was delivered and may be forgotten.
        """
        return self._forget(DECISIONS, before, decisions) + self._forget(ROWS, before, rows)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def _forget(self, table: sa.Table, before: int, last: int) -> int:
        kept = table.c.body.is_not(None)
        page = sa.select(table.c.seq).where(kept, table.c.ts < before, table.c.seq <= last).limit(_MOST_ROWS)
        emptied = sa.update(table).where(table.c.seq.in_(page)).values(body=None)
        total = 0
        while True:  # a page at a time, for writers wait meanwhile
            with talking(self.label), writing(self.engine) as connection:
                count = connection.execute(emptied).rowcount
            total += count
            if count < _MOST_ROWS:
                return total

    def _write(self, connection: sa.Connection, name: str, events: Sequence[Any]) -> list[Fate]:
        if not events:
            return []
        kind = _KINDS[name]
        values = [kind.values(event) for event in events]
        ids = [value[0] for value in values]
        found = connection.execute(self._present[name], {"ids": _encode(ids).decode()})
        known = {id: tuple(content) for id, *content in found}
        if not known and len(set(ids)) == len(ids):
            _insert(connection, kind.table, kind.columns, values)
            return ["accepted"] * len(values)
        fates = _fates(values, known, kind.content)
        _insert(
            connection, kind.table, kind.columns, [v for v, f in zip(values, fates, strict=True) if f == "accepted"]
        )
        odd = [event for event, fate in zip(events, fates, strict=True) if fate == "conflict"]
        aside = [(name, (v := kind.values(e))[0], v[kind.ts], kind.body(e), OTHER_CONTENT) for e in odd]
        _insert(connection, CONFLICTS, ("kind", "id", "ts", "body", "reason"), aside)
        if again := fates.count("duplicate"):
            _insert(connection, REPEATS, ("kind", "duplicate"), [(name, again)])
        return fates


def _present(kind: _Kind, engine: sa.Engine) -> sa.Select[Any]:
    """The ids among `:ids` that are there, each with its content."""
    columns = [kind.table.c[name] for name in ("id", *kind.columns[kind.content])]
    return sa.select(*columns).where(kind.table.c.id.in_(listed(engine)))


def _fates(values: Sequence[Values], known: dict[str, Values], content: slice) -> list[Fate]:
    fates: list[Fate] = []
    for value in values:
        before = known.get(value[0])
        fates.append("accepted" if before is None else "duplicate" if before == value[content] else "conflict")
        known.setdefault(value[0], value[content])
    return fates


def _insert(connection: sa.Connection, table: sa.Table, columns: tuple[str, ...], values: Sequence[Values]) -> None:
    """Insert as few statements as may be.

    Not by Core's `executemany`: SQLite's driver lets go of the interpreter's lock at each of its rows, and beside a
    busy thread gets it back after 5 ms only: 100 rows took 660 ms, and take 24 ms as one statement.
    """
    for start in range(0, len(values), _MOST_ROWS):
        part = values[start : start + _MOST_ROWS]
        statement = _insert_text(table.name, columns, len(part), "?" if connection.dialect.name == "sqlite" else "%s")
        connection.exec_driver_sql(statement, tuple(itertools.chain.from_iterable(part)))


@lru_cache(maxsize=4 * _MOST_ROWS)
def _insert_text(table: str, columns: tuple[str, ...], rows: int, place: str) -> str:
    one = f"({', '.join([place] * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * rows)}"


def _arrived(connection: sa.Connection, name: str, table: sa.Table) -> Arrived:
    again = sa.select(sa.func.coalesce(sa.func.sum(REPEATS.c.duplicate), 0)).where(REPEATS.c.kind == name)
    other = sa.select(sa.func.count()).where(CONFLICTS.c.kind == name)
    kept = sa.select(sa.func.count()).select_from(table)
    counts = connection.execute(sa.select(kept.scalar_subquery(), again.scalar_subquery(), other.scalar_subquery()))
    return Arrived(*map(int, counts.one()))
