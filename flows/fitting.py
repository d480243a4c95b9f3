"""The training rows of a generation, window by window, fitted here or by workers together."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
from filelock import FileLock

from flywheel import exchange
from flywheel.data import dataset
from flywheel.learn import survey, train
from flywheel.learn.matrix import Cache, Recipe
from flywheel.learn.survey import Survey
from flywheel.learn.train import Batch, Columns, Trained
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.integrations.dask_cluster import Cluster

SHARE = 0.5  # of the memory that is free, which a fit may take


def batch(ws: Workspace, cache: Cache, name: str) -> Batch:
    """The training rows of a window: labelled, and not late."""
    window = ws.config.windows.grid.parse(name)
    labels, at = _labels(ws, name)
    if at.all():
        return Batch(name, labels.astype(np.float32), lambda: cache.load(window))
    return Batch(name, labels[at].astype(np.float32), lambda: cache.load(window)[at])


def usable(ws: Workspace, name: str) -> npt.NDArray[np.bool_]:
    """Which rows of a window are training rows: labelled, and not late."""
    return _labels(ws, name)[1]


def _labels(ws: Workspace, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The labels of a window's rows, and which of them are training rows."""
    table = dataset.read_window(ws.data, name, ["label", "late"])
    labels = table.column("label").to_numpy()
    return labels, ~np.isnan(labels) & ~table.column("late").to_numpy(zero_copy_only=False)


def fit(
    ws: Workspace, cache: Cache, windows: Sequence[str], columns: Columns, progress: Callable[[int, int], None]
) -> Trained:
    """Fit on the rows of windows in this process, by way of the disk where memory does not hold them.

    Raises:
        DataError: nothing can be learned from these rows.
    """
    batches = [batch(ws, cache, name) for name in windows]
    policy, values = ws.config.train, sum(len(one.labels) for one in batches) * len(columns.names)
    with _pages(ws.cache, values) as pages:
        return train.fit(batches, columns, kind=ws.config.contract.kind, policy=policy, pages=pages, progress=progress)


@contextmanager
def _pages(cache: Path, values: int) -> Iterator[Path | None]:
    """An empty folder for a fit that would take most of the memory; None for one that would not.

    There is one such fit at a time, and what a killed one left is gone when the next begins.
    """
    if values * train.BYTES < SHARE * psutil.virtual_memory().available:
        yield None
        return
    folder = cache / "pages"
    with FileLock(cache / "pages.lock"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Rows:
    """Some consecutive training rows of a window."""

    window: str
    first: int
    end: int


def fit_together(ws: Workspace, cluster: "Cluster", windows: Sequence[str], columns: Columns) -> Trained:
    """Fit on the rows of windows by workers together, none of which has all rows, and this process none.

    How the rows are parted hangs on their number and that of the parts alone, and so does the model.

    Raises:
        DataError: nothing can be learned from these rows.
    """
    policy, told = ws.config.train, (Workspace(ws.root, ws.config.told), ws.recipe, columns)
    found = list(cluster.spread(partial(_survey, *told), windows))
    whole = survey.total(one for one, _ in found)
    survey.check(whole, ws.config.contract.kind, policy)
    rows = {name: one.rows for name, (one, _) in zip(windows, found, strict=True)}
    newest = max(1, round(policy.tail * whole.rows)) if policy.early_stopping else 0
    parts = min(cluster.parts, whole.rows - newest, newest or whole.rows)
    head, tail = part(rows, 0, whole.rows - newest, parts), part(rows, whole.rows - newest, whole.rows, parts)
    shares = list(zip(head, tail, strict=True))
    model, rounds, importance = cluster.together(partial(_share, *told), shares)
    digest = survey.whole_hash([digest for one, digest in found if one.rows])
    return Trained(model, columns, rounds, whole.rows, digest, importance, parts)


def part(rows: dict[str, int], start: int, end: int, parts: int) -> list[list[Rows]]:
    """Cut the rows from `start` up to `end` of all into so many consecutive and equal parts.

    >>> part({"a": 4, "b": 4}, 1, 7, 2)
    [[Rows(window='a', first=1, end=4)], [Rows(window='b', first=0, end=3)]]
    """
    cuts = [start + (end - start) * k // parts for k in range(parts + 1)]
    made: list[list[Rows]] = [[] for _ in range(parts)]
    before = 0
    for name, count in rows.items():
        for k in range(parts):
            first, last = max(cuts[k] - before, 0), min(cuts[k + 1] - before, count)
            if first < last:
                made[k].append(Rows(name, first, last))
        before += count
    return made


def _matrices(ws: Workspace, recipe: Recipe) -> Cache:
    """The matrices as a worker has them."""
    exchange.bring([dataset.ledger_path(ws.data)], anew=True)
    return ws.matrices(recipe)


def _survey(ws: Workspace, recipe: Recipe, columns: Columns, name: str) -> tuple[Survey, bytes]:
    rows = batch(ws, _matrices(ws, recipe), name)
    digest = survey.hashed(name, rows.labels, columns.freeze(rows.load()), columns.names) if len(rows.labels) else b""
    return survey.survey(rows.labels), digest


def _share(
    ws: Workspace, recipe: Recipe, columns: Columns, share: tuple[list[Rows], list[Rows]], threads: int
) -> tuple[bytes, int, dict[str, float]]:
    cache = _matrices(ws, recipe)
    head, tail = ([_some(batch(ws, cache, one.window), one) for one in rows] for rows in share)
    return train.fit_part(head, tail, columns, kind=ws.config.contract.kind, policy=ws.config.train, threads=threads)


def _some(whole: Batch, rows: Rows) -> Batch:
    if rows.end - rows.first == len(whole.labels):
        return whole
    return Batch(whole.window, whole.labels[rows.first : rows.end], lambda: whole.load()[rows.first : rows.end])
