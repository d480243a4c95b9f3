"""Rows to booster: streamed window by window into a quantile matrix, seeded, stopped on the newest training rows."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from flywheel.learn.features import Matrix
from flywheel.learn.prediction import predictor
from flywheel.learn.survey import check, hashed, survey, total, whole_hash
from flywheel.sections import Train

Labels = npt.NDArray[np.float32]
# The tail has a base rate of its own: its log loss is least after a few trees, when its order still improves.
OBJECTIVES = {"binary": ("binary:logistic", "auc"), "number": ("reg:squarederror", "rmse")}
CHUNK_ROWS = 1 << 16  # XGBoost takes as long to look at a small batch as at one of so many rows
PAGE_ROWS = 1 << 19  # of a page on disk: smaller ones take longer to read, and two of them are in memory
BYTES = 7  # of memory that a fit needs for each value that it learns from, by tests/benchmarks/training.py
THREAD_ROWS = 250_000  # a thread more for so many rows: threads wait for each other at every node of a tree
MAX_BIN = 256  # XGBoost's own default; a matrix and the trees grown on it must agree


@dataclass(frozen=True)
class Batch:
    """The training rows of one window: their labels, and how to get their matrix."""

    window: str
    labels: Labels
    load: Callable[[], Matrix]


@dataclass(frozen=True)
class Columns:
    """The frozen columns of a model: names, XGBoost types, and how many names each categorical one knew."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    vocabulary: dict[str, int]

    def freeze(self, matrix: Matrix) -> Matrix:
        """The matrix as the model may see it: names it has never seen are missing, as XGBoost refuses others."""
        unseen = [(i, self.vocabulary[n]) for i, n in enumerate(self.names) if n in self.vocabulary]
        if not any((matrix[:, i] >= size).any() for i, size in unseen):
            return matrix
        matrix = matrix.copy()
        for i, size in unseen:
            matrix[matrix[:, i] >= size, i] = np.nan
        return matrix


@dataclass(frozen=True)
class Trained:
    """A fitted generation: the model in XGBoost's own UBJ, and what it was made of."""

    model: bytes
    columns: Columns
    rounds: int
    rows: int
    matrix_hash: str
    importance: dict[str, float]
    parts: int = 1  # processes that fitted it together: another number of them, another model within the seed's noise


def predict(model: bytes, columns: Columns, matrix: Matrix) -> npt.NDArray[np.float64]:
    """Score rows, shape (rows,): probability for a binary label, else the expected number."""
    booster = xgb.Booster(model_file=bytearray(model))
    return _scored(predictor(booster), columns, matrix)


def scorer(model: bytes, columns: Columns, threads: int = 1) -> Callable[[Matrix], npt.NDArray[np.float64]]:
    """A model loaded once to score small matrices often; says what `predict` says."""
    booster = xgb.Booster(model_file=bytearray(model))
    booster.set_param({"nthread": threads})
    return partial(_scored, predictor(booster), columns)


def _scored(
    predict: Callable[[Matrix], npt.NDArray[np.float32]], columns: Columns, matrix: Matrix
) -> npt.NDArray[np.float64]:
    return predict(columns.freeze(matrix)).astype(np.float64) if len(matrix) else np.empty(0)


def fit(
    batches: Sequence[Batch],
    columns: Columns,
    *,
    kind: str,
    policy: Train,
    pages: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Trained:
    """Fit a generation on the batches, oldest first.

    The number of trees is chosen on the newest `policy.tail` of the rows; the model is then fitted on all of them,
    for the newest rows are the most like what comes.

    Args:
        batches: the training rows, one batch a window.
        columns: names and types of the columns of every batch's matrix.
        kind: `binary` or `number`.
        policy: the `[train]` section.
        pages: an empty folder for what memory does not hold; None keeps all in memory. The model is the same.
        progress: called with trees done and trees at most.

    Raises:
        DataError: nothing can be learned from these rows, or a feature is infinite.
    """
    check(total(survey(batch.labels) for batch in batches), kind, policy)
    rows = sum(len(b.labels) for b in batches)
    threads = min(os.cpu_count() or 1, 1 + rows // THREAD_ROWS)
    rounds = policy.rounds
    if policy.early_stopping:
        head, tail = (_Stream(part, columns, pages) for part in _split(batches, policy.tail))
        rounds = stop_at(head, tail, settings(kind, policy, threads), policy, progress)
    stream = _Stream(batches, columns, pages)
    model, importance = grow(stream, settings(kind, policy, threads), rounds, progress)
    return Trained(model, columns, rounds, rows, whole_hash(stream.digests), importance)


def fit_part(
    head: Sequence[Batch],
    tail: Sequence[Batch],
    columns: Columns,
    *,
    kind: str,
    policy: Train,
    threads: int,
) -> tuple[bytes, int, dict[str, float]]:
    """Fit one model together with other processes, XGBoost's collective joining them; each has rows of its own.

    Args:
        head: rows of this process, none of which is among the newest of all.
        tail: rows of this process that are.
        columns: names and types of the columns of every batch's matrix.
        kind: `binary` or `number`.
        policy: the `[train]` section.
        threads: of this process.

    Returns:
        The model, its number of trees and its importance; the same in every process.
    """
    params, rounds = settings(kind, policy, threads), policy.rounds
    if policy.early_stopping:
        rounds = stop_at(_Stream(head, columns), _Stream(tail, columns), params, policy)
    model, importance = grow(_Stream([*head, *tail], columns), params, rounds)
    return model, rounds, importance


def settings(kind: str, policy: Train, threads: int) -> dict[str, Any]:
    """What XGBoost is told."""
    objective, metric = OBJECTIVES[kind]
    return {
        "nthread": threads,
        **policy.params,
        "objective": objective,
        "eval_metric": metric,
        "seed": policy.seed,
        "tree_method": "hist",
    }


def grow(
    stream: "_Stream", params: dict[str, Any], rounds: int, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[bytes, dict[str, float]]:
    """Fit so many trees; the model, and the gain of each column, the greatest first."""
    booster = xgb.train(params, stream.quantile(params), rounds, callbacks=[_Progress(progress, rounds)])
    gain: dict[str, Any] = booster.get_score(importance_type="total_gain")
    return bytes(booster.save_raw("ubj")), {n: float(gain[n]) for n in sorted(gain, key=lambda name: -gain[name])}


def stop_at(
    head: "_Stream",
    tail: "_Stream",
    params: dict[str, Any],
    policy: Train,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """The number of trees with the best metric on the newest rows, when fitted on the rows before."""
    labels = tail.labels()
    ends = np.array([-labels.min(), labels.max()])
    if xgb.collective.allreduce(ends, xgb.collective.Op.MAX).sum() == 0 and params["eval_metric"] == "auc":
        params = {**params, "eval_metric": "logloss"}  # one class has no order
    train = head.quantile(params)
    booster = xgb.train(
        params,
        train,
        policy.rounds,
        evals=[(tail.quantile(params, ref=train), "tail")],
        early_stopping_rounds=policy.early_stopping,
        verbose_eval=False,
        callbacks=[_Progress(progress, policy.rounds)],
    )
    return int(booster.best_iteration) + 1


def _split(batches: Sequence[Batch], share: float) -> tuple[list[Batch], list[Batch]]:
    """Cut off the newest share of the rows; the window in which the cut falls is parted."""
    wanted = max(1, round(share * sum(len(b.labels) for b in batches)))
    head = list(batches)
    tail: list[Batch] = []
    while wanted > 0:
        last = head.pop()
        if len(last.labels) > wanted:
            cut = len(last.labels) - wanted
            head.append(Batch(last.window, last.labels[:cut], lambda b=last, c=cut: b.load()[:c]))  # type: ignore[misc]
            last = Batch(last.window, last.labels[cut:], lambda b=last, c=cut: b.load()[c:])  # type: ignore[misc]
        tail.insert(0, last)
        wanted -= len(last.labels)
    return head, tail


class _Stream(xgb.DataIter):
    """Hands XGBoost small windows together and large ones alone, and hashes what it handed over on the first pass.

    With a folder for `pages`, XGBoost keeps there what it makes of the rows, and goes through it for each tree.
    """

    def __init__(self, batches: Sequence[Batch], columns: Columns, pages: Path | None = None) -> None:
        self._chunks = _chunks([b for b in batches if len(b.labels)], CHUNK_ROWS if pages is None else PAGE_ROWS)
        self._columns = columns
        self._next = 0
        self._hashed = 0
        self.digests: list[bytes] = []
        self._kind: type[xgb.DMatrix] = xgb.QuantileDMatrix if pages is None else xgb.ExtMemQuantileDMatrix
        super().__init__(cache_prefix=None if pages is None else str(pages / secrets.token_hex(4)))

    def labels(self) -> Labels:
        """The labels of all rows, shape (rows,)."""
        return np.concatenate([batch.labels for chunk in self._chunks for batch in chunk])

    def quantile(self, params: dict[str, Any], ref: xgb.DMatrix | None = None) -> xgb.DMatrix:
        """The batches as one quantile matrix, cut like `ref` where one is given."""
        return self._kind(self, ref=ref, max_bin=int(params.get("max_bin", MAX_BIN)), enable_categorical=True)

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over one chunk; False when there is none left."""
        if self._next == len(self._chunks):
            return False
        chunk = self._chunks[self._next]
        parts = [self._load(batch) for batch in chunk]
        self._hashed = max(self._hashed, self._next + 1)
        self._next += 1
        input_data(
            data=parts[0] if len(parts) == 1 else np.concatenate(parts),
            label=np.concatenate([batch.labels for batch in chunk]),
            feature_names=list(self._columns.names),
            feature_types=list(self._columns.types),
        )
        return True

    def reset(self) -> None:
        """Begin again with the first chunk."""
        self._next = 0

    def _load(self, batch: Batch) -> Matrix:
        matrix = self._columns.freeze(batch.load())
        if self._next == self._hashed:
            self.digests.append(hashed(batch.window, batch.labels, matrix, self._columns.names))
        return matrix


def _chunks(batches: Sequence[Batch], least: int) -> list[list[Batch]]:
    """Neighbours put together until they have so many rows."""
    chunks: list[list[Batch]] = []
    rows = least
    for batch in batches:
        if rows >= least:
            chunks.append([])
            rows = 0
        chunks[-1].append(batch)
        rows += len(batch.labels)
    return chunks


class _Progress(xgb.callback.TrainingCallback):
    """Tells how many trees are done."""

    def __init__(self, report: Callable[[int, int], None], rounds: int) -> None:
        super().__init__()
        self._report, self._rounds = report, rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002  XGBoost's signature
        """Report, and never stop."""
        self._report(epoch + 1, self._rounds)
        return False
