"""The terminal: where commands read what a person means, and the only module that prints."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from flows.progress import Listener
    from flywheel.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsOf = Annotated[str | None, typer.Option(help="The instant to act as of, such as 2014-12-02; now, if not given.")]
Why = Annotated[str, typer.Option(help="The reason; it is kept with the move.")]
Wait = Annotated[bool, typer.Option(help="Wait for another command that holds the workspace.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Number = Annotated[int, typer.Argument(help="The generation's number.")]


def opened() -> "Workspace":
    """The workspace that `--workspace` names."""
    from flywheel.workspace import Workspace

    return Workspace.open(Path(os.environ["FLYWHEEL_WORKSPACE"]))


def instant(text: str | None) -> datetime:
    """The instant that a person means; now, without one."""
    from flywheel.config import read_time

    return datetime.now(UTC) if text is None else read_time(text)


def console() -> "Console":
    """Where people look; as wide as it takes where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def say(text: str) -> None:
    """Print a line."""
    print(text)


def complain(text: str) -> None:
    """Say what went wrong, where errors are told."""
    print(f"flywheel: {text}", file=sys.stderr)


class Warnings(logging.Handler):
    """Tells what our own code warns of where errors are told; Prefect would keep it for its pages alone."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it now: standard error may be another one while a bar stands there."""
        complain(record.getMessage())


def out(as_json: bool, value: Any, show: Callable[[], None]) -> None:
    """Print a value as JSON, or shown to a person."""
    if as_json:
        print(
            json.dumps(
                asdict(value) if is_dataclass(value) and not isinstance(value, type) else value,
                default=plain,
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        show()


def plain(value: object) -> object:
    """What JSON has no word for."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def progress() -> "AbstractContextManager[Listener]":
    """How far a long command is, on standard error."""
    from flows.bars import bars

    return bars(lambda line: print(line, file=sys.stderr, flush=True))
