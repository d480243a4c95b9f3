"""How flows meet a Prefect API: one that is there, or one that boots while the command does other work.

    booting = boot(root)               # at the very start of the command, before Prefect is imported
    ...                                # imports, reading: anything that is no flow
    with ready(booting) as history:    # waits for what is left of the boot
        recorded(turn, ...)            # a flow

It is the API of PREFECT_API_URL; else the one that `serve_ui` has up for this workspace; else a child
process that ends with ours. The history lies in `.flywheel/prefect`; two commands at once have a child each
on the one database. History is best effort: where no API can be had, `history.note` says why, and flows and
tasks that are called run as the plain functions they wrap. Where it goes away later, the flow goes on.
"""

import copy
import functools
import json
import logging
import os
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flywheel.errors import BusyError, FlywheelError
from flywheel.integrations import prefect_process as process

if TYPE_CHECKING:
    from prefect import Flow

BOOT_SECONDS = 90.0
DRAIN_SECONDS = 15.0
RETRIES = 1  # of a request to an API that went away, after 2 s; Prefect's own 5 take a minute, for each request
P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("flywheel")
_HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"


@dataclass(frozen=True, slots=True)
class Booting:
    """An API on its way: its address where known, or the child that will tell it, or why there is none."""

    home: Path | None = None
    url: str | None = None
    child: process.Child | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """Where runs are recorded. Where they are not, `url` is None and `note` is a sentence that says why."""

    url: str | None
    note: str = ""


def boot(root: Path) -> Booting:
    """Find the API for the workspace at `root`, or start one; return at once, and never fail.

    Prefect reads this process's settings at its first import: call this before. It sets PREFECT_HOME unless
    there is one, and forbids the temporary server that Prefect would start by itself.
    """
    _settle_environment()
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        return Booting(url=configured)
    try:
        home = process.home_of(root)
        os.environ.setdefault("PREFECT_HOME", str(home))
        url = process.served(home)
        return Booting(home, url) if url else Booting(home, child=process.start(home, 0, "history"))
    except OSError as error:
        return Booting(fault=f"its API cannot be started: {error}")


@contextmanager
def ready(booting: Booting, timeout: float = BOOT_SECONDS) -> Iterator[History]:
    """Have the flows called inside recorded by the API that `boot` found; wait at most `timeout` s for it.

    What they reported is stored, and the child has ended, when this is left. Without an API the flows and
    tasks called inside are plain functions: no retries, no `get_run_logger`, no `.submit`.
    """
    import prefect.main  # noqa: F401  here and not above: 1 s, in which the child boots on

    try:
        history = _meet(booting, timeout)
        with _recorded(history.url, ours=booting.home is not None) if history.url else _plain():
            yield history
    finally:
        stop(booting)


def stop(booting: Booting) -> None:
    """End the child of a `boot` that no `ready` follows, if there is one; a fresh history is migrated by then."""
    if booting.child is not None:
        process.end(booting.child)


def recorded(flow: "Flow[P, R]", *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a flow inside of `ready`. What it comes to counts, whether or not its end can still be recorded."""
    from httpx import HTTPError

    came: list[R] = []
    raised: list[BaseException | None] = []

    @functools.wraps(flow.fn)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            came.append(flow.fn(*args, **kwargs))
            return came[0]
        finally:
            raised.append(sys.exception())

    told = copy.copy(flow)
    told.fn = remembered
    try:
        return told(*args, **kwargs)
    except HTTPError as error:
        log.warning("Prefect's history of this run has no end; its API went away: %s", error)
        _give_up()
        if came:
            return came[0]
        if raised and raised[0] is not None and not isinstance(raised[0], HTTPError):
            raise raised[0] from None
        with _plain():  # what was begun is taken up
            return flow(*args, **kwargs)


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Keep `rows` as a table artifact of the running flow, if its API answers; outside a recorded run, do nothing.

    `key` is made of lower-case letters, digits and dashes; runs that share it are versions of one artifact.
    """
    from httpx import HTTPError
    from prefect.artifacts import create_table_artifact
    from prefect.context import FlowRunContext
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    if FlowRunContext.get() is None:
        return
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
            create_table_artifact(table=rows, key=key, description=description)
    except HTTPError as error:
        log.warning("the table %s is not in Prefect's history: %s", key, error)


def serve_ui(root: Path, port: int, announce: Callable[[str], None]) -> None:
    """Serve Prefect's pages for the workspace at `root` on loopback `port` until interrupted, also offline.

    `announce` is called with their address once they answer. Meanwhile this workspace's commands record here.

    Raises:
        BusyError: this workspace's pages are served already.
        FlywheelError: the server cannot start, or ended by itself.
    """
    home = process.home_of(root)
    url = process.served(home)
    if url:
        raise BusyError("Prefect's pages of this workspace are served already", where=url.removesuffix("/api"))
    child = process.start(home, port, "ui")
    try:
        if process.port_of(child, BOOT_SECONDS):
            (home / process.RECORD).write_text(json.dumps({"pid": child.pid, "port": port}))
            announce(process.api_url(port).removesuffix("/api"))
            child.wait()
        raise FlywheelError(
            "Prefect's pages cannot be served", where=f"port {port}", why=process.last_words(home, "ui")
        )
    except KeyboardInterrupt:
        return
    finally:
        (home / process.RECORD).unlink(missing_ok=True)
        process.end(child)


def _settle_environment() -> None:
    for name, value in {
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command tells an error once; the rest is history
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # what cannot be reported, item by item
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flywheel",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        os.environ.setdefault(name, value)


def _meet(booting: Booting, timeout: float) -> History:
    url, fault = booting.url, booting.fault
    if booting.child is not None and booting.home is not None:
        port = process.port_of(booting.child, timeout)
        url = process.api_url(port) if port else None
        fault = "" if port else f"its API did not start: {process.last_words(booting.home, 'history')}"
    elif url:
        fault = _unreachable(url)
    return History(None, f"This run leaves no Prefect history; {fault}") if fault else History(url)


def _unreachable(url: str) -> str:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    return f"{url} does not answer: {error}" if error else ""


@contextmanager
def _recorded(url: str, *, ours: bool) -> Iterator[None]:
    from prefect import settings
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    updates: dict[Any, Any] = {settings.PREFECT_API_URL: url, settings.PREFECT_CLIENT_MAX_RETRIES: RETRIES}
    if _HEARTBEAT not in os.environ:  # joining its thread costs each flow a second
        updates[settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    if ours:  # of our version, and without tokens
        updates[settings.PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED] = False
        updates[settings.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED] = False
    with settings.temporary_settings(updates), _reporting():
        try:
            yield
        finally:
            logging.getLogger(EventsWorker.__name__).setLevel(logging.ERROR)  # it warns that it is not done yet
            EventsWorker.drain_all(timeout=DRAIN_SECONDS)
            APILogWorker.drain_all(timeout=DRAIN_SECONDS)


@contextmanager
def _reporting() -> Iterator[None]:
    """What our own code logs reaches the run's page, from INFO on; the console stays quiet, also where that fails."""
    level, raises = log.level, logging.raiseExceptions
    log.setLevel(level or logging.INFO)
    logging.raiseExceptions = False
    try:
        yield
    finally:
        log.setLevel(level)
        logging.raiseExceptions = raises


def _give_up() -> None:
    """Forget what still waits to be reported: each of it would wait for the API in vain, and the process for all."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in cast(tuple[Any, ...], (EventsWorker, APILogWorker)):
        for service in list(worker._instances.values()):
            with suppress(queue.Empty):
                while True:
                    service._queue.get_nowait()


@contextmanager
def _plain() -> Iterator[None]:
    from prefect import Flow, Task

    def call(wrapped: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapped.fn(*args, **kwargs)

    kept: list[tuple[type, Any]] = [(Flow, Flow.__call__), (Task, Task.__call__)]
    try:
        for wrapper, _ in kept:
            type.__setattr__(wrapper, "__call__", call)
        yield
    finally:
        for wrapper, original in kept:
            type.__setattr__(wrapper, "__call__", original)
