"""An old decision made again: the same models on the same windows, by the labels known since and today's policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import deciding, inspect, learning, valuing
from flows.learning import Scorer
from flywheel.data import dataset
from flywheel.errors import DataError
from flywheel.integrations import mlflow_model, mlflow_registry
from flywheel.learn import gate, history
from flywheel.learn.features import Matrix
from flywheel.learn.history import History
from flywheel.learn.matrix import Recipe
from flywheel.records import Finding, Generation, Verdict
from flywheel.workspace import Workspace

Places = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Again:
    """What a generation's decision was, and what it would be; of the exam's rows now, `late` came late."""

    generation: int
    examined_against: int
    as_of: datetime
    exam_windows: tuple[str, str]
    then: Verdict
    now: Verdict
    rows_then: int
    rows_now: int
    late: int

    @property
    def says(self) -> str:
        """Whether the verdict stands."""
        stands = "stands" if self.then.decision == self.now.decision else "would be another"
        return (
            f"the verdict on generation {self.generation} {stands}: {self.then.decision} then, {self.now.decision} "
            f"by what is known at {self.as_of:%Y-%m-%d %H:%M}Z and today's policy"
        )


def decide_again(ws: Workspace, number: int, as_of: datetime) -> Again:
    """Examine a generation and its opponent again on its own exam's windows, and decide; nothing is changed.

    Rows of these windows that came late count where they lie in windows closed by `as_of`; without a logged state their
    features are looked up as of the window they came with, alike for both models.

    Raises:
        RegistryError: there is no such generation, or its opponent is gone.
        DataError: its exam was not closed by then.
    """
    made = deciding.generation(ws, number)
    exam = _exam(ws, made, as_of)
    late = _late(ws, exam, as_of)
    frame = pd.concat([learning.exam_rows(ws, name) for name in exam] + [rows for rows, _ in late.values()])
    challenger = deciding.scorer(ws, number, exam[0])
    sits = partial(_scorer, ws, exam[0], challenger.recipe)
    ancestor = deciding.ancestor_of(ws, made.examined_against)
    examined = learning.sit(
        ws,
        frame.reset_index(drop=True),
        partial(_matrix, ws, exam, {name: at for name, (_, at) in late.items()}),
        challenger,
        sits(made.examined_against),
        ancestor=None if ancestor == made.examined_against else partial(sits, ancestor),
    )
    earlier = [one for one in inspect.generations(ws) if one.as_of <= made.as_of and one.generation < number]
    uses = history.uses(earlier, exam, (made.config, made.tags.get("recipe", "")))
    earned = valuing.finding(ws, challenger, exam)
    now = gate.decide(
        examined.evaluation,
        ws.config.gate,
        kind=ws.config.contract.kind,
        servable=_servable(ws, challenger),
        champion_generation=made.examined_against,
        history=History(ancestor, examined.against, examined.absent, history.exams(earlier), uses),
        beside=() if earned is None else (earned,),
    )
    then = Verdict(made.verdict, made.reason, tuple(inspect.explain(ws, number).findings))
    count = sum(len(rows) for rows, _ in late.values())
    against = made.examined_against
    return Again(number, against, as_of, made.exam_windows, then, now, made.exam_rows, len(frame), count)


def _scorer(ws: Workspace, first: str, recipe: Recipe, number: int) -> Scorer:
    """A generation as the exam needs it; the baseline scores by the counters that the challenger was trained with."""
    return deciding.scorer(ws, number, first) if number else Scorer(0, recipe)


def _exam(ws: Workspace, made: Generation, as_of: datetime) -> list[str]:
    """The windows with rows of a generation's exam."""
    first, last = made.exam_windows
    grid = ws.config.windows.grid
    if grid.closes_at(grid.parse(last)) > as_of:
        closes = grid.closes_at(grid.parse(last))
        raise DataError(
            f"the exam of generation {made.generation} was not closed by {as_of:%Y-%m-%d %H:%M}Z",
            why=f"its last window, {last}, closed at {closes:%Y-%m-%d %H:%M}Z",
            next=f"flywheel decide {made.generation}",
        )
    return [line.window for line in ws.ledger() if line.rows and first <= line.window <= last]


def _late(ws: Workspace, exam: Sequence[str], as_of: datetime) -> dict[str, tuple[pd.DataFrame, Places]]:
    """By window: the labelled rows of the exam's span that came late with it, and where they stand in it.

    A row that was given back to its own window is there already.
    """
    grid = ws.config.windows.grid
    start, end = grid.start(grid.parse(exam[0])), grid.end(grid.parse(exam[-1]))
    held = {i for name in exam for i in dataset.read_window(ws.data, name, ["event_id"]).column(0).to_pylist()}
    found = {}
    for line in ws.ledger():
        if not line.late or grid.closes_at(grid.parse(line.window)) > as_of:
            continue
        table = dataset.read_window(ws.data, line.window, [*learning.exam_columns(ws), "ts", "event_id"])
        rows = table.to_pandas()
        new = rows["late"] & rows["label"].notna() & ~rows["event_id"].isin(held)
        at = (new & (rows["ts"] >= start) & (rows["ts"] < end)).to_numpy()
        if at.any():
            found[line.window] = (rows[at], at)
    return found


def _matrix(ws: Workspace, exam: Sequence[str], late: dict[str, Places], recipe: Recipe) -> Matrix:
    """The matrix of the exam's rows, then of those that came late, by a recipe."""
    cache, grid = ws.matrices(recipe), ws.config.windows.grid
    cache.build([grid.parse(name) for name in (*exam, *late)])
    return np.vstack(
        [learning.matrix_of(ws, exam, recipe), *(cache.load(grid.parse(name))[at] for name, at in late.items())]
    )


def _servable(ws: Workspace, challenger: Scorer) -> Finding:
    """Whether the stored model loads, byte by byte, and scores its golden rows alike by both ways of scoring."""
    stored = mlflow_registry.load(deciding.open_store(ws), challenger.generation)
    return mlflow_model.servable(stored, challenger.scores(stored.parts.golden, ws.config.contract.kind))
