"""What every turn measures of the wheel itself, because it takes seconds; and the page that shows it."""

from collections.abc import Callable
from datetime import datetime

from flows import growing, reporting
from flows.journal import tell
from flywheel.errors import FlywheelError
from flywheel.workspace import Workspace


def after_turn(ws: Workspace, as_of: datetime, generation: int) -> None:
    """Measure loop gain and hazards where people are served, and write the page; with the generation, if there is one.

    A turn is over by then and its champion serves: what cannot be measured is told in the journal, and fails nothing.
    """
    if ws.config.serve is not None:
        _try("gain", lambda: growing.gain(ws, as_of))
        _try("hazards", lambda: growing.hazards_of(ws, as_of))
    show(ws, generation)


def show(ws: Workspace, generation: int = 0) -> None:
    """Write the page, and put it with a generation's run; where that fails, tell the journal."""
    _try("page", lambda: reporting.log(ws, generation) if generation else reporting.report(ws))


def _try(what: str, measure: Callable[[], object]) -> None:
    try:
        measure()
    except FlywheelError as error:
        tell("unmeasured", what=what, reason=error.what)
