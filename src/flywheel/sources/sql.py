"""A database as a source: any SQLAlchemy URL, a table or a query, streamed, each row once.

With a cursor column, which only grows as rows arrive, everything beyond the greatest value taken is read. Without
one the timestamp is the cursor, and only rows before `until` are read: once a window's lateness has passed, its
rows are taken, and never again. Rows whose cursor is null cannot be told apart from those read, and are not read.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from flywheel.errors import SourceError
from flywheel.sections import SourceConfig
from flywheel.sources.source import Mark, delivery_name

_ROWS = 20_000
_SECONDS: dict[int, float] = {
    1: 4.2e9,
    1_000: 4.2e12,
    1_000_000: 4.2e15,
    1_000_000_000: float("inf"),
}  # per second: greatest before 2103


@dataclass(frozen=True)
class SqlSource:
    """A table or a query; a relative SQLite file is found from `root`."""

    config: SourceConfig
    timestamp: str
    root: Path
    until: datetime | None = None

    def deliveries(self, marks: Sequence[Mark]) -> Iterator["SqlDelivery"]:
        """At most one: what lies beyond the greatest mark, up to what is there now.

        Raises:
            SourceError: the database, the table or the cursor column is not there, or there is no driver for it.
        """
        if self.config.cursor is None and self.until is None:
            raise SourceError(
                "a SQL source without a cursor needs to know until when to read",
                next="set source.cursor in flywheel.toml",
            )
        url = _url(self.config.url, self.root)
        label = f"{Path(url.database or '').name or url.drivername}:{self.config.table or 'query'}"
        own = [mark for mark in marks if mark.get("kind") == "sql" and mark["label"] == label]
        last = max(own, key=lambda mark: int(mark["number"]), default=None)
        with talking(label):
            engine = sa.create_engine(url)
            with engine.connect() as connection:
                selection = self._selection(connection, label)
                column = self._cursor(selection, label)
                low = _unpack(last["value"]) if last else None
                high = self._high(connection, column)
        if high is None or (low is not None and high <= low):
            return
        between = _Between(column, low, high, inclusive=self.config.cursor is None)
        yield SqlDelivery(engine, selection, between, label, last)

    def _selection(self, connection: sa.Connection, label: str) -> sa.FromClause:
        if self.config.table is not None:
            schema, _, name = self.config.table.rpartition(".")
            try:
                return sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=connection)
            except NoSuchTableError:
                known = ", ".join(sa.inspect(connection).get_table_names())[:300]
                raise SourceError(
                    f"there is no table {self.config.table!r}",
                    where=label,
                    why=f"there are: {known}",
                    next="edit source.table in flywheel.toml",
                ) from None
        query = (self.config.query or "").strip().rstrip(";").replace(":", r"\:")
        probe = connection.execute(sa.text(f"SELECT * FROM ({query}) AS probe WHERE 1 = 0"))
        return sa.text(query).columns(*(sa.column(name) for name in probe.keys())).subquery("given")  # noqa: SIM118

    def _cursor(self, selection: sa.FromClause, label: str) -> sa.ColumnElement[Any]:
        name = self.config.cursor or self.timestamp
        if name not in selection.c:
            what = f"{label} has no column {name!r} to read by"
            raise SourceError(
                what,
                where=label,
                why=f"it has: {', '.join(selection.c.keys())[:300]}",
                next="edit source.cursor or contract.timestamp in flywheel.toml",
            )
        return selection.c[name]

    def _high(self, connection: sa.Connection, column: sa.ColumnElement[Any]) -> Any:
        """The bound of this delivery: the greatest cursor value, or `until` as the column writes it; None if empty."""
        if self.config.cursor is not None:
            return connection.execute(sa.select(sa.func.max(column))).scalar()
        sample = connection.execute(sa.select(column).where(column.is_not(None)).limit(1)).scalar()
        return None if sample is None or self.until is None else _written_like(sample, self.until)


@dataclass(frozen=True)
class _Between:
    """The part of the cursor that a delivery covers: from `low` (not it itself, unless `inclusive`) to `high`."""

    column: sa.ColumnElement[Any]
    low: Any
    high: Any
    inclusive: bool

    def clauses(self) -> tuple[sa.ColumnElement[bool], ...]:
        below = self.column < self.high if self.inclusive else self.column <= self.high
        if self.low is None:
            return (below,)
        return (self.column >= self.low if self.inclusive else self.column > self.low, below)


class SqlDelivery:
    """The rows between two values of the cursor, in its order."""

    def __init__(
        self, engine: sa.Engine, selection: sa.FromClause, between: _Between, label: str, last: Mark | None
    ) -> None:
        self.label = label
        self.name = delivery_name("sql", label, _pack(between.low), _pack(between.high))
        self._number: int = last["number"] + 1 if last else 1
        self._rows: int = last["rows"] if last else 0
        self.first_row = self._rows + 1
        self._engine, self._high = engine, between.high
        self._statement = sa.select(selection).where(*between.clauses()).order_by(between.column)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its raw rows, 20,000 at a time, off a server-side cursor where the database has them."""
        with talking(self.label, self._rows), self._engine.connect() as connection:
            result = connection.execution_options(yield_per=_ROWS).execute(self._statement)
            names = list(result.keys())
            for rows in result.partitions():
                self._rows += len(rows)
                columns = zip(*rows, strict=True)
                yield pa.record_batch([_array(list(column)) for column in columns], names=names)
        self._engine.dispose()

    def mark(self) -> Mark:
        """Up to which value of the cursor it was read, and the rows so far."""
        return {
            "kind": "sql",
            "label": self.label,
            "value": _pack(self._high),
            "number": self._number,
            "rows": self._rows,
        }


def _url(text: str, root: Path) -> sa.URL:
    url = sa.make_url(text)
    if url.drivername in ("postgres", "postgresql") and importlib.util.find_spec("psycopg"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database:
        path = root / url.database
        if not path.is_file():
            raise SourceError(
                f"{url.database} does not exist", where=str(path), next="edit source.url in flywheel.toml"
            )
        url = url.set(database=str(path))
    return url


def _written_like(sample: Any, until: datetime) -> Any:
    """An instant as a column writes its own: to be compared with them, in the database."""
    if isinstance(sample, datetime):
        return until if sample.tzinfo else until.replace(tzinfo=None)
    if isinstance(sample, (int, float, Decimal)):
        per_second = next(unit for unit, most in _SECONDS.items() if abs(float(sample)) < most)
        return int(until.timestamp()) * per_second
    text = str(sample)
    if text[19:].lstrip(".0123456789") not in ("", "Z", "+00:00", "+00", "+0000"):
        what = f"{text[:40]!r} is not in UTC, so that times cannot be compared as text"
        raise SourceError(
            what, why="without a cursor, rows are read by their timestamp", next="set source.cursor in flywheel.toml"
        )
    return until.isoformat(sep=text[10:11] or "T")[: min(19, max(10, len(text)))]


def _array(values: list[Any]) -> pa.Array:
    """Arrow's own type where all values agree; else the text of each."""
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return _text(values)  # a column of SQLite may hold numbers beside words
    return array if _plain(array.type) else _text(values)


def _text(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _plain(kind: pa.DataType) -> bool:
    """Whether the contract can read the type; a UUID, an exact decimal or a JSON object is read as its text."""
    return not (isinstance(kind, pa.BaseExtensionType) or pa.types.is_decimal(kind) or pa.types.is_struct(kind))


def _pack(value: Any) -> Any:
    """A cursor value as JSON; a time and a decimal say that they are one."""
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    return {"decimal": str(value)} if isinstance(value, Decimal) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return datetime.fromisoformat(value["time"]) if "time" in value else Decimal(value["decimal"])
    return value


@contextmanager
def talking(label: str, rows: int | None = None) -> Iterator[None]:
    """What a database or its driver refuses becomes a SourceError, without the password that may stand in the URL."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SourceError(
            f"there is no driver for {label}", where=label, why=str(error), next=f"pip install {error.name}"
        ) from None
    except SQLAlchemyError as error:
        where = label if rows is None else f"{label}, after row {rows}"
        why = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise SourceError(
            f"{label} cannot be read", where=where, why=why, next="edit [source] in flywheel.toml"
        ) from None
