"""How far a long command is: bars on a terminal, a line for each generation elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.progress import Listener


@contextmanager
def bars(say: Callable[[str], None]) -> Iterator[Listener]:
    """A bar a stage with rate and remaining time; where nobody watches, lines for a log are given to `say`."""
    if not sys.stderr.isatty():
        began = time.monotonic()
        yield lambda stage, done, total: _line(say, stage, done, total, time.monotonic() - began)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second, or seconds a unit."""

        def render(self, task: Any) -> Text:
            """The rate so far."""
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:,.1f}/s" if speed >= 1 else f"{1 / speed:,.0f} s each")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            again = stage in tasks and done < shown.tasks[shown.task_ids.index(tasks[stage])].completed
            if again:  # the next generation begins this stage anew
                shown.remove_task(tasks.pop(stage))
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total or None)
            shown.update(tasks[stage], completed=done, total=total or None)

        yield tell


def _line(say: Callable[[str], None], stage: str, done: int, total: int, elapsed: float) -> None:
    if stage == "generations" and done:
        left = elapsed / done * (total - done)
        say(f"generations {done}/{total} elapsed {elapsed:.0f} s remaining {left:.0f} s")
