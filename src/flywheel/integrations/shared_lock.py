"""One command at a time on all machines that share a server: an advisory lock of PostgreSQL's, which a session holds.

The server drops it with the session, so none is ever stale: a process dies, a host is gone for half a minute, the
server itself restarts. The holder is not told. So whoever writes to what is shared first asks, by `demand`, whether
the lock is still this process's. A pool of connections between the two must be one of sessions, not of transactions.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from flywheel.errors import BusyError, ConfigError, RegistryError

POLL = 0.5  # s between two tries to have the lock
RESTART = 15.0  # s for which a server may refuse, as it does while it restarts
_NAME = 63  # bytes that PostgreSQL keeps of a session's name
_KEY = "hashtextextended(concat(current_schema(), '/', CAST(:product AS text)), 0)"
_TAKE = sa.text(f"SELECT pg_try_advisory_lock({_KEY})")
_HELD = """FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database()
    AND (classid::bigint << 32) | objid::bigint = """
_WHO = sa.text(f"SELECT application_name, backend_start {_HELD} {_KEY}")
_OURS = sa.text(f"SELECT count(*) {_HELD} {_KEY} AND pid = pg_backend_pid()")
_SESSION = sa.text(  # a host that is gone is found out, and an idle session is not ended
    "SELECT set_config(name, CASE name WHEN 'tcp_keepalives_idle' THEN '15' WHEN 'tcp_keepalives_interval' THEN '5'"
    " WHEN 'tcp_keepalives_count' THEN '3' ELSE '0' END, false) FROM pg_settings WHERE name IN ('tcp_keepalives_idle',"
    " 'tcp_keepalives_interval', 'tcp_keepalives_count', 'idle_session_timeout', 'statement_timeout')"
)


Server = sa.URL


class LockLost(RegistryError):
    """The lock that machines share cannot be had from its server, or is no longer this process's."""


_LOCK: ContextVar["tuple[sa.Connection, str] | None"] = ContextVar("shared lock", default=None)


def server(url: str) -> Server | None:
    """The URL of a PostgreSQL server with the driver that is used here; None if it is another database's, or none."""
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        return None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed if parsed.get_backend_name() == "postgresql" else None


def label(url: Server) -> str:
    """What people call a server's database: no user, and no password."""
    return f"{url.host or url.query.get('host') or 'localhost'}/{url.database or ''}"


@contextmanager
def held(url: Server, product: str, command: str, *, patience: float, later: str) -> Iterator[None]:
    """Hold the lock of a product on a server; wait so many seconds for it, and for good if that is below 0.

    Raises:
        BusyError: another process holds it, here or elsewhere; says which, where and since when, and `later`.
        LockLost: the server cannot be asked.
        ConfigError: there is no driver for it.
    """
    try:
        engine = _engine(url, command)
    except ImportError as error:
        raise ConfigError(f"{label(url)} needs {error.name}", next=f"pip install {error.name}") from None
    connection = _taken(engine, product, patience, later)
    token = _LOCK.set((connection, product))
    try:
        yield
    finally:
        _LOCK.reset(token)
        connection.close()


def demand() -> None:
    """Return if the lock is still this process's, or it never took one.

    Raises:
        LockLost: it is not.
    """
    lock = _LOCK.get()
    if lock is None:
        return
    connection, product = lock
    try:
        ours = connection.execute(_OURS, {"product": product}).scalar()
    except exc.SQLAlchemyError as error:
        raise _lost(connection.engine.url, _why(error)) from None
    if not ours:  # the connection was replaced, and the session that held it is gone
        raise _lost(connection.engine.url, "the session that held it has ended")


def holder(url: Server, product: str) -> str:
    """Who holds the lock of a product now, in words; nothing if nobody does, or the server cannot be asked."""
    try:
        with _engine(url, "status").connect() as connection:
            return _who(connection, product)
    except (exc.SQLAlchemyError, ImportError):
        return ""


def _engine(url: Server, command: str) -> sa.Engine:
    reach: dict[str, Any] = {"application_name": _name(command), "connect_timeout": 10, "tcp_user_timeout": 10_000}
    wanted = {name: value for name, value in reach.items() if name not in url.query}
    return sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=wanted)


def _taken(engine: sa.Engine, product: str, patience: float, later: str) -> sa.Connection:
    """A session that holds the lock. Each try is a session of its own, so that a holder's began when it took it."""
    began = answered = time.monotonic()
    while True:
        who = ""
        try:
            connection = engine.connect()
            connection.execute(_SESSION)
            if connection.execute(_TAKE, {"product": product}).scalar():
                return connection
            who, answered = _who(connection, product), time.monotonic()
            connection.close()
        except exc.SQLAlchemyError as error:
            if time.monotonic() - answered > RESTART:
                next = "see to the server and to registry.url in flywheel.toml, then run this again"
                what = "the server that keeps the lock of the wheel cannot be asked"
                raise LockLost(what, where=label(engine.url), why=_why(error), next=next) from None
        else:
            if 0 <= patience < time.monotonic() - began:
                why = who or "another flywheel command has just started"
                raise BusyError("the wheel is busy", where=label(engine.url), why=why, next=later)
        time.sleep(POLL)


def _who(connection: sa.Connection, product: str) -> str:
    found = connection.execute(_WHO, {"product": product}).first()
    return f"{found[0]}, since {found[1].astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if found else ""


def _name(command: str) -> str:
    """What a session is called: the command, the process and its host."""
    return f"flywheel {command}, process {os.getpid()} on {socket.gethostname()}".encode()[:_NAME].decode(
        errors="ignore"
    )


def _lost(url: Server, why: str) -> LockLost:
    next = "run the same command again: what was finished is taken up"
    what = "the lock of the wheel was lost while it turned, and nothing was made visible since"
    return LockLost(what, where=label(url), why=why, next=next)


def _why(error: exc.SQLAlchemyError) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]
