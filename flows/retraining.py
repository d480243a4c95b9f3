"""Models that never serve: fitted on part of the rows, to see what the other part is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as memory
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import fitting, learning
from flywheel.data import dataset
from flywheel.learn import train
from flywheel.learn.features import Matrix
from flywheel.learn.matrix import Cache, Recipe
from flywheel.learn.train import Batch, Columns, Trained
from flywheel.workspace import Workspace

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

HELD = 2 << 30  # bytes of matrices that are kept in memory while samples of them are fitted


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


@dataclass(frozen=True, eq=False)
class Pool:
    """The training rows of some windows, to fit on many samples of them: batches, columns, and whose each row is.

    `who` and `which` are a hash of the user (0 for nobody) and of the event of each row, a function a window.
    """

    batches: tuple[Batch, ...]
    columns: Columns
    who: tuple[Callable[[], Hashes], ...]
    which: tuple[Callable[[], Hashes], ...]

    def within(self, sample: Sample) -> list[Mask]:
        """Which rows of each window are in a sample."""
        return [_within(sample, who, which) for who, which in zip(self.who, self.which, strict=True)]

    def users(self, within: Sequence[Mask]) -> int:
        """How many users some rows have; 0 where none are known."""
        found = [who()[at] for who, at in zip(self.who, within, strict=True)]
        return int(np.count_nonzero(np.unique(np.concatenate(found))))


def pool(ws: Workspace, windows: tuple[str, ...], cache: Cache | None = None) -> Pool:
    """The training rows of closed windows, columns by `cache` or by today's recipe; read once, if memory allows."""
    cache = cache or ws.matrices()
    grid = ws.config.windows.grid
    cache.build([grid.parse(name) for name in windows])
    batches = [fitting.batch(ws, cache, name) for name in windows]
    recipe = cache.recipe
    if 4 * len(recipe.names) * sum(len(batch.labels) for batch in batches) <= HELD:
        batches = [Batch(batch.window, batch.labels, memory(batch.load)) for batch in batches]
    columns = Columns(recipe.names, recipe.types, cache.vocabulary(grid.parse(windows[-1])))
    role = next((role for role in ("user", "request") if getattr(ws.config.contract, role)), "event_id")
    who, which = (tuple(memory(partial(_hashed, ws, name, key)) for name in windows) for key in (role, "event_id"))
    return Pool(tuple(batches), columns, who, which)


def fit(ws: Workspace, sample: Sample, *, seed: int, rounds: int | None = None, cache: Cache | None = None) -> Trained:
    """Fit a model on a sample; with `rounds`, so many trees, else as many as its newest rows say.

    Columns are those of `cache`, or of today's recipe.

    Raises:
        DataError: nothing can be learned from so few rows.
    """
    return fit_from(ws, pool(ws, sample.windows, cache), sample, seed=seed, rounds=rounds)


def fit_from(ws: Workspace, held: Pool, sample: Sample, *, seed: int, rounds: int | None = None) -> Trained:
    """The same, from rows that are held already; the windows are those of `held`."""
    policy = ws.config.train.model_copy(
        update={"seed": seed} | ({} if rounds is None else {"rounds": rounds, "early_stopping": 0})
    )
    batches: Sequence[Batch] = held.batches
    if sample.users < 1 or sample.rows < 1:
        batches = [
            Batch(whole.window, whole.labels[at], memory(partial(_taken, whole, at)))
            for whole, at in zip(held.batches, held.within(sample), strict=True)
        ]
    return train.fit(batches, held.columns, kind=ws.config.contract.kind, policy=policy)


def scores(trained: Trained, rows: Panel) -> npt.NDArray[np.float64]:
    """What a model says of an exam's rows, shape (rows,)."""
    return train.predict(trained.model, trained.columns, rows.matrix)


def chosen(ws: Workspace, sample: Sample, name: str) -> Mask:
    """Which of a window's training rows are in the sample, shape (training rows of the window,)."""
    role = next((role for role in ("user", "request") if getattr(ws.config.contract, role)), "event_id")
    return _within(sample, partial(_hashed, ws, name, role), partial(_hashed, ws, name, "event_id"))


def among(names: "pd.Series[str]", users: float, draw: int = 0) -> Mask:
    """Which of these users are in a share of all of them, as in a sample of that draw."""
    return _unit(_hashes(names), 2 * draw) < users


def _within(sample: Sample, who: Callable[[], Hashes], which: Callable[[], Hashes]) -> Mask:
    within = _unit(who(), 2 * sample.draw) < sample.users
    if sample.rows < 1:
        within &= _unit(which(), 2 * sample.draw + 1) < sample.rows
    return within


def _taken(whole: Batch, at: Mask) -> Matrix:
    return whole.load()[at]


def _hashed(ws: Workspace, name: str, column: str) -> Hashes:
    """A number for each training row's name in a column, the same wherever the name occurs; 0 for none."""
    found = dataset.read_window(ws.data, name, [column]).column(column).to_pandas()
    return _hashes(found[fitting.usable(ws, name)])


def _hashes(names: "pd.Series[str]") -> Hashes:
    codes, known = pd.factorize(names)
    hashes = pd.util.hash_array(np.asarray(known, dtype=object), categorize=False)
    return np.append(np.maximum(hashes, 1), np.uint64(0))[codes]


def _unit(hashes: Hashes, draw: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each hash, another in each draw; 0 for nobody, who is in every sample.

    The mixing is that of SplitMix64 (Steele, Lea and Flood 2014).
    """
    mixed = hashes + np.uint64((draw + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.where(hashes > 0, (mixed >> np.uint64(11)) * 2.0**-53, 0.0)
