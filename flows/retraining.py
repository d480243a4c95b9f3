"""Models that never serve: fitted on part of the rows, to see what the other part is worth."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import learning
from flywheel.data import dataset
from flywheel.learn import train
from flywheel.learn.features import Matrix
from flywheel.learn.matrix import Cache, Recipe
from flywheel.learn.train import Batch, Columns, Trained
from flywheel.workspace import Workspace


@dataclass(frozen=True)
class Sample:
    """Part of the training rows: the windows, oldest first, a share of their users, a share of each one's rows.

    Users are drawn by hash, so a smaller share of the same `draw` is within a larger one.
    """

    windows: tuple[str, ...]
    users: float = 1.0
    rows: float = 1.0
    draw: int = 0


@dataclass(frozen=True)
class Panel:
    """The rows of an exam: labels, who they were shown to and with what, and their matrix."""

    labels: npt.NDArray[np.float64]
    users: npt.NDArray[np.object_] | None
    requests: npt.NDArray[np.object_] | None
    matrix: Matrix


def panel(ws: Workspace, windows: tuple[str, ...], recipe: Recipe | None = None) -> Panel:
    """The labelled rows of closed windows that were not late, as an exam; columns by `recipe`, or by today's."""
    frame = pd.concat([learning.exam_rows(ws, name) for name in windows], ignore_index=True)
    users, requests = (learning.names(frame, role) for role in ("user", "request"))
    return Panel(frame["label"].to_numpy(), users, requests, learning.matrix_of(ws, windows, recipe or ws.recipe))


def fit(ws: Workspace, sample: Sample, *, seed: int, rounds: int | None = None, cache: Cache | None = None) -> Trained:
    """Fit a model on a sample; with `rounds`, so many trees, else as many as its newest rows say.

    Columns are those of `cache`, or of today's recipe.

    Raises:
        DataError: nothing can be learned from so few rows.
    """
    cache = cache or ws.matrices()
    grid = ws.config.windows.grid
    cache.build([grid.parse(name) for name in sample.windows])
    recipe = cache.recipe
    columns = Columns(recipe.names, recipe.types, cache.vocabulary(grid.parse(sample.windows[-1])))
    policy = ws.config.train.model_copy(
        update={"seed": seed} | ({} if rounds is None else {"rounds": rounds, "early_stopping": 0})
    )
    batches = [_part(ws, cache, sample, name) for name in sample.windows]
    return train.fit(batches, columns, kind=ws.config.contract.kind, policy=policy)


def scores(trained: Trained, rows: Panel) -> npt.NDArray[np.float64]:
    """What a model says of an exam's rows, shape (rows,)."""
    return train.predict(trained.model, trained.columns, rows.matrix)


def chosen(ws: Workspace, sample: Sample, name: str) -> npt.NDArray[np.bool_]:
    """Which of a window's training rows are in the sample, shape (training rows of the window,)."""
    role = next((role for role in ("user", "request") if getattr(ws.config.contract, role)), "event_id")
    table = dataset.read_window(ws.data, name, [role, "event_id"])
    usable = learning.usable(ws, name)
    within = _hashed(table.column(role).to_pandas(), f"{sample.draw}") < sample.users
    if sample.rows < 1:
        within &= _hashed(table.column("event_id").to_pandas(), f"{sample.draw} rows") < sample.rows
    return within[usable]


def _part(ws: Workspace, cache: Cache, sample: Sample, name: str) -> Batch:
    whole = learning.batch(ws, cache, name)
    if sample.users >= 1 and sample.rows >= 1:
        return whole
    at = chosen(ws, sample, name)
    return Batch(name, whole.labels[at], partial(_taken, whole, at))


def _taken(whole: Batch, at: npt.NDArray[np.bool_]) -> Matrix:
    return whole.load()[at]


def _hashed(names: "pd.Series[str]", key: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each name, the same wherever it occurs."""
    codes, known = pd.factorize(names)
    hashes = pd.util.hash_array(np.asarray(known, dtype=object), hash_key=key.ljust(16, "0")[:16], categorize=False)
    unit = np.append(hashes / 2.0**64, 0.0)  # a row of nobody is in every sample
    return np.asarray(unit[codes], dtype=np.float64)
