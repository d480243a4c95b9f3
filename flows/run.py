"""Runs the flows for a person at a terminal: with their history kept by Prefect, and progress shown."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.lock import demand_writable
from flows.progress import Listener, listening
from flywheel.errors import ConfigError
from flywheel.integrations import prefect_api
from flywheel.windows import parse_duration
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flows.backfill import Done
    from flows.correcting import UnfinishedError
    from flows.turn import Turned
    from flywheel.watched import Watched

STAGES = ("windows", "features", "generations")
REPROCESS = ("missing", "failed", "changed", "all")
AGAIN = "flywheel backfill --stage windows --reprocess changed"
Watch = Callable[[], AbstractContextManager[Listener]]


def turn(ws: Workspace, as_of: datetime, *, promote: bool, wait: bool, on_progress: Watch) -> "Turned":
    """One turn, recorded in Prefect's history."""
    demand_writable(ws.cache)
    booting = prefect_api.boot(ws.root)
    from flows.turn import turn as flow  # Prefect reads its settings at its first import

    with prefect_api.ready(booting) as history, on_progress() as listener, listening(listener):
        tell_note(history)
        return prefect_api.recorded(flow, ws.root, as_of, trigger="hand", promote_champion=promote, wait=wait)


def monitor(ws: Workspace, as_of: datetime) -> "Watched":
    """One look at the champion, recorded in Prefect's history."""
    demand_writable(ws.cache)
    booting = prefect_api.boot(ws.root)
    from flows.monitor import monitor as flow

    with prefect_api.ready(booting) as history:
        tell_note(history)
        return prefect_api.recorded(flow, ws.root, as_of)


def backfill(
    ws: Workspace,
    every: str,
    span: tuple[datetime | None, datetime | None],
    *,
    promote: bool,
    dry_run: bool,
    wait: bool,
    on_progress: Watch,
    **what: Any,
) -> "tuple[Done, UnfinishedError | None]":
    """A backfill, recorded in Prefect's history, where it is no dry run; and what to say of windows that failed.

    `what` goes to the flow: stage, reprocess, max_active, recipe.
    """
    check_every(every)
    check_choices(what)
    demand_writable(ws.cache)
    booting = prefect_api.boot(ws.root)
    from flows.backfill import backfill as flow
    from flows.correcting import UnfinishedError

    if dry_run:
        prefect_api.stop(booting)
        return flow.fn(ws.root, every, *span, dry_run=True, **what), None
    with prefect_api.ready(booting) as history, on_progress() as listener, listening(listener):
        tell_note(history)
        try:
            done = prefect_api.recorded(flow, ws.root, every, *span, promote_champion=promote, wait=wait, **what)
            return done, None
        except UnfinishedError as error:
            return error.done, error


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


def check_choices(what: Mapping[str, Any]) -> None:
    """Return if stage and reprocess are such, and go together with a recipe.

    Raises:
        ConfigError: they are not.
    """
    for name, known in (("stage", STAGES), ("reprocess", REPROCESS)):
        if what.get(name, known[0]) not in known:
            raise ConfigError(f"there is no --{name} {what[name]}", why=f"there are: {', '.join(known)}", next=AGAIN)
    if what.get("recipe") and what.get("stage") != "generations":
        raise ConfigError("a recipe is tried on generations", next="flywheel backfill --recipe …")
