"""How much to explore, from the decisions of the newest exam and what two generations make of them."""

from datetime import UTC, datetime

import numpy as np

from flows import choices as chosen
from flows import deciding, evidence, inspect, serving
from flywheel.errors import DataError
from flywheel.evidence import Exploration
from flywheel.learn.plan import plan as parted
from flywheel.measure import planning
from flywheel.records import Generation
from flywheel.workspace import Workspace


def plan(ws: Workspace, gain: float) -> Exploration:
    """The exploration that it takes to see a gain in reward a slot by the next turn; kept as evidence.

    The next challenger is taken to differ from the champion as the last one did: the newest generation that is not
    the champion, or while that one serves, the one before it.

    Raises:
        ConfigError: the workspace does not serve.
        DataError: there is no generation yet, or no decision of the newest exam can be told again.
    """
    how, made = serving.policy(ws.config), inspect.generations(ws)
    if not made:
        raise DataError(
            "there is no generation yet",
            why="what a challenger would show is learned from one",
            next="flywheel turn",
        )
    champion = deciding.champion(ws)
    challenger = max((g.generation for g in made if g.generation != champion), default=0)
    windows = parted(ws.ledger(), ws.config, datetime.now(UTC)).exam
    choices = chosen.choices(ws, windows)
    if not choices.decisions:
        raise DataError("no decision of the newest exam is kept", where=f"windows {windows[0]} to {windows[-1]}")
    nobody = np.zeros(len(choices.decisions), dtype=np.int64)
    lists, kept = choices.lists([chosen.scorer(ws, champion), chosen.scorer(ws, challenger)], nobody)
    lists = lists.take(kept)
    if not lists.known.any():
        why = "the states that its decisions were made from are kept no more"
        raise DataError("no decision of the newest exam can be told again", why=why, next="flywheel turn")
    exam = sum(line.rows for line in ws.ledger() if line.window in windows)
    traffic = planning.Traffic(_rows_a_turn(ws, made, exam), exam, planning.unexplained(lists))
    found = planning.plan(lists, how, traffic, gain)
    evidence.keep(ws, found)
    return found


def _rows_a_turn(ws: Workspace, made: list[Generation], exam: int) -> int:
    """The rows of the windows that closed between the last two turns; with one turn, those of its exam."""
    if len(made) < 2:
        return exam
    grid = ws.config.windows.grid
    before, last = (g.as_of for g in made[-2:])
    closed = [line.rows for line in ws.ledger() if before < grid.closes_at(grid.parse(line.window)) <= last]
    return sum(closed) or exam
