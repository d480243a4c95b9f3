"""Runs the flows for a person at a terminal: with their history kept by Prefect, and progress shown."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.lock import demand_writable
from flows.progress import Listener, listening
from flywheel.errors import ConfigError
from flywheel.integrations import prefect_api
from flywheel.windows import parse_duration
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flows.backfill import Step
    from flows.turn import Turned

Watch = Callable[[], AbstractContextManager[Listener]]


def turn(ws: Workspace, as_of: datetime, *, promote: bool, wait: bool, on_progress: Watch) -> "Turned":
    """One turn, recorded in Prefect's history."""
    demand_writable(ws.cache)
    booting = prefect_api.boot(ws.root)
    from flows.turn import turn as flow  # Prefect reads its settings at its first import

    with prefect_api.ready(booting) as history, on_progress() as listener, listening(listener):
        tell_note(history)
        return flow(ws.root, as_of, trigger="hand", promote_champion=promote, wait=wait)


def backfill(
    ws: Workspace,
    every: str,
    span: tuple[datetime | None, datetime | None],
    *,
    promote: bool,
    dry_run: bool,
    wait: bool,
    on_progress: Watch,
) -> "list[Step]":
    """A backfill, recorded in Prefect's history; a dry run only lists its steps."""
    check_every(every)
    demand_writable(ws.cache)
    booting = prefect_api.boot(ws.root)
    from flows.backfill import backfill as flow
    from flows.backfill import steps

    if dry_run:
        prefect_api.stop(booting)
        return steps(ws, parse_duration(every), *span, datetime.now(UTC))
    with prefect_api.ready(booting) as history, on_progress() as listener, listening(listener):
        tell_note(history)
        return flow(ws.root, every, *span, promote_champion=promote, wait=wait)


def tell_note(history: prefect_api.History) -> None:
    """Say once that a run is not recorded, and why, where it is not."""
    if history.note:
        logging.getLogger("flywheel").warning(history.note)


def check_every(every: str) -> None:
    """Return if a backfill can step by `every`.

    Raises:
        ConfigError: it is no duration, or none at all.
    """
    try:
        span = parse_duration(every)
    except ValueError as error:
        raise ConfigError(
            f"--every {every} cannot be read", why=str(error), next="flywheel backfill --every 28d"
        ) from None
    if not span:
        raise ConfigError(f"--every {every} never gets anywhere", next="flywheel backfill --every 28d")
