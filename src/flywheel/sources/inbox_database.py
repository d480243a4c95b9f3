"""The database of the inbox: its tables, how it is reached, and what its refusals mean.

The tables are append-only. `seq` grows in the order in which transactions commit, on either database, because
writers take turns: a reader that has seen a `seq` has seen every smaller one. Times are microseconds since 1970 UTC.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from flywheel.errors import SourceError

FILE = "inbox/inbox.db"
_META = sa.MetaData()
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows by itself only under this name
_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # compared byte by byte


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, _META, sa.Column("seq", _NUMBER, primary_key=True), *columns)


def _column(name: str, kind: Any, *, unique: bool = False, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null, unique=unique or None)


DECISIONS = _table(
    "decisions",
    _column("id", _ID, unique=True),
    _column("ts", sa.BigInteger),
    _column("content", sa.BigInteger),  # a hash of the body
    _column("body", sa.LargeBinary, null=True),  # an `events.Decision` as JSON; null once forgotten
)
OUTCOMES = _table(
    "outcomes",
    _column("id", _ID, unique=True),
    _column("ts", sa.BigInteger),
    _column("decision_id", _ID),
    _column("item", sa.Text),
    _column("value", sa.Double),
)
ROWS = _table(
    "rows",
    _column("id", _ID, unique=True),
    _column("ts", sa.BigInteger),
    _column("content", sa.BigInteger),
    _column("body", sa.LargeBinary, null=True),  # a ready row as JSON; null once forgotten
)
REPEATS = _table(  # how many events of a transaction were there before, for each kind that had any
    "repeats", _column("kind", sa.Text), _column("duplicate", sa.BigInteger)
)
CONFLICTS = _table(  # events whose id was used before, for something else
    "conflicts",
    _column("kind", sa.Text),
    _column("id", _ID),
    _column("ts", sa.BigInteger),
    _column("body", sa.LargeBinary),
    _column("reason", sa.Text),
)
for _dated in (DECISIONS, ROWS):  # those with a body: to be delivered, or to be forgotten
    _kept = _dated.c.body.is_not(None)
    sa.Index(f"{_dated.name}_kept", _dated.c.ts, sqlite_where=_kept, postgresql_where=_kept)
sa.Index("outcomes_ts", OUTCOMES.c.ts)
sa.Index("outcomes_decision", OUTCOMES.c.decision_id)

_WRITE = {  # the first statement of a transaction that writes: writers take turns
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(7378697629483820646)",
}
_READ = {  # and of one that reads: all its statements see one moment
    "sqlite": "BEGIN",
    "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
}
_SESSION = {
    "sqlite": (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA cache_size = -65536",
        "PRAGMA temp_store = MEMORY",  # else an INSERT of several rows keeps its undo journal in a file
    ),
    "postgresql": (
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        "SET lock_timeout = '10s'",
    ),
}
_REACH = {"sqlite": {"timeout": 10}, "postgresql": {"connect_timeout": 10, "tcp_user_timeout": 10_000}}


class InboxUnavailable(SourceError):
    """The inbox's database cannot write or read now; nothing that was being written is acknowledged."""


class EventError(SourceError):
    """An event that no database holds: too long, or with a character or a number that there is no room for."""


def connect(url: str | None, root: Path) -> sa.Engine:
    """The engine of the database that `url` names, its tables created where they are absent.

    Args:
        url: of SQLite or PostgreSQL; None is `inbox/inbox.db`. A SQLite file is found from `root`.
        root: the workspace.

    Raises:
        SourceError: the URL cannot be read, there is no driver for it, or it is of another database.
        InboxUnavailable: the database cannot be reached.
    """
    parsed = _parse(url, root)
    label = _label(parsed)
    with talking(label):
        engine = sa.create_engine(
            parsed, pool_pre_ping=parsed.get_backend_name() == "postgresql", connect_args=_reach(parsed)
        )
        sa.event.listen(engine, "connect", partial(_begin_session, engine))
        with writing(engine) as connection:
            _META.create_all(connection)
        if engine.dialect.name == "sqlite":  # what the last process wrote and could not sync is not built upon
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
    return engine


def label_of(engine: sa.Engine) -> str:
    """What people call the database."""
    return _label(engine.url)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction, alone among all that write; on disk when it has ended."""
    with engine.begin() as connection:
        path, file = connection.info["file"]
        if _known_by(path) != file:
            fix = "restore it, or begin a new one, and start again whoever writes to it"
            raise InboxUnavailable(f"{label_of(engine)} was moved or deleted", where=str(path), next=fix)
        connection.exec_driver_sql(_WRITE[engine.dialect.name])
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction to which the database stands still.

    Raises:
        InboxUnavailable: it cannot be read.
    """
    with talking(label_of(engine)), engine.begin() as connection:
        connection.exec_driver_sql(_READ[engine.dialect.name])
        yield connection


def listed(engine: sa.Engine) -> sa.Select[tuple[str]]:
    """The texts of `:ids`, a JSON array: one parameter, however many they are."""
    ids = sa.bindparam("ids", type_=sa.Text)
    each = (
        sa.func.json_each(ids)
        if engine.dialect.name == "sqlite"
        else sa.func.json_array_elements_text(sa.cast(ids, sa.JSON))
    )
    return sa.select(each.table_valued("value").c.value)


@contextmanager
def talking(label: str) -> Iterator[None]:
    """What a database or its driver refuses becomes an `InboxUnavailable` or an `EventError`, without a password."""
    try:
        yield
    except (exc.DataError, exc.IntegrityError, UnicodeError, OverflowError) as error:
        raise _event_error(label, error) from None
    except ModuleNotFoundError as error:
        fix = f"pip install {error.name}"
        raise SourceError(f"there is no driver for {label}", where=label, why=str(error), next=fix) from None
    except exc.SQLAlchemyError as error:
        if getattr(getattr(error, "orig", None), "sqlstate", None) == "54000":  # an id longer than an index takes
            raise _event_error(label, error) from None
        fix = "see to the database and the disk it writes to; nothing that was acknowledged is lost"
        raise InboxUnavailable(f"{label} is not available", where=label, why=_why(error), next=fix) from None


def _event_error(label: str, error: Exception) -> EventError:
    return EventError(
        "an event cannot be written", where=label, why=_why(error), next="leave it out, and send the rest"
    )


def _why(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]


def _parse(url: str | None, root: Path) -> sa.URL:
    try:
        parsed = sa.make_url(url or f"sqlite:///{FILE}")
    except exc.ArgumentError:
        raise SourceError("inbox.url is no SQLAlchemy URL", next="edit inbox.url in flywheel.toml") from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in _WRITE:
        why = "an inbox is a SQLite file or on a PostgreSQL server"
        raise SourceError(f"inbox.url is of {parsed.drivername}", why=why, next="edit inbox.url in flywheel.toml")
    if parsed.get_backend_name() != "sqlite":
        return parsed
    path = root / (parsed.database or FILE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InboxUnavailable(f"{path.parent} cannot be made", where=str(path), why=error.strerror or "") from None
    return parsed.set(database=str(path))


def _reach(url: sa.URL) -> dict[str, int]:
    wanted: dict[str, int] = _REACH[url.get_backend_name()]
    return {name: value for name, value in wanted.items() if name not in url.query}


def _label(url: sa.URL) -> str:
    """Its file, or its server and database; no user, and no password."""
    if url.get_backend_name() == "sqlite":
        return Path(url.database or FILE).name
    return f"{url.host or url.query.get('host') or 'localhost'}/{url.database or ''}"


def _begin_session(engine: sa.Engine, connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for statement in _SESSION[engine.dialect.name]:
        _patiently(cursor, statement)
    cursor.close()
    connection.commit()
    path = Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
    record.info["file"] = path, _known_by(path)


def _patiently(cursor: Any, statement: str) -> None:
    """Execute a statement; where others begin on a new file at once, SQLite says so and does not wait by itself."""
    end = time.monotonic() + _REACH["sqlite"]["timeout"]
    while True:
        try:
            cursor.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(0.02)


def _known_by(file: Path | None) -> tuple[int, int] | None:
    """What tells a file from another under its name; None where there is none."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino)
