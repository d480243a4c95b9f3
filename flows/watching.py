"""What the monitor goes by: closed windows' rewards by arm and generation, what came in, and what reached it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import deciding, learning
from flywheel.data import dataset
from flywheel.integrations import mlflow_registry
from flywheel.learn import train
from flywheel.learn.train import Columns
from flywheel.measure import drift, watch
from flywheel.records import Generation, LedgerLine
from flywheel.watched import Signal
from flywheel.workspace import Workspace

COLUMNS = ("user", "label", "late", "arm", "generation", "ts")
NEWEST = 5  # windows by whose outcomes it is seen whether they arrive
INPUTS, SCORES = "what comes in", "scores"


@dataclass(frozen=True, eq=False)
class Served:
    """Rows of all arms while the champion served, and before that while its predecessor did.

    Each has `user, label, arm, generation, ts`, its `window`, where it is `at` in it, and whether it is `own`, of the
    wheel and of that generation; those of now whether the user is `new`. What was not labelled, or came late, is left
    out.
    """

    now: pd.DataFrame
    before: pd.DataFrame


def due(ws: Workspace, as_of: datetime) -> list[LedgerLine]:
    """The closed windows that may be known as of an instant."""
    grid = ws.config.windows.grid
    return [line for line in ws.ledger() if grid.parse(line.window) <= grid.last_closed(as_of)]


def served(ws: Workspace, lines: Sequence[LedgerLine], champion: int, previous: int) -> Served:
    """What the champion served since it last began to, and its predecessor in the windows before."""
    now: list[pd.DataFrame] = []
    before: list[pd.DataFrame] = []
    ended = False
    for line in reversed(lines):
        rows = _rows(ws, line.window)
        wheel = set(rows.loc[rows["arm"] == "wheel", "generation"])
        ended = ended or bool(wheel and champion not in wheel)
        if not ended:
            now.append(rows)
        if previous in wheel:
            before.append(rows)
        if ended and (not now or (wheel and previous not in wheel)):
            break
    shown, then = _spell(now, champion), _spell(before, previous)
    if len(shown):
        then = then[then["ts"] < shown["ts"].min()] if len(then) else then
        shown["new"] = _new(ws, shown, now[-1])
    return Served(shown, then)


def signals(
    ws: Workspace, lines: Sequence[LedgerLine], found: Served, made: Generation | None, as_of: datetime
) -> tuple[Signal, ...]:
    """All that can be said of the champion `made`, None for the baseline, and of what reached the windows."""
    config, grid = ws.config, ws.config.windows.grid
    told = []
    if made is not None and config.serve is not None and len(found.now):
        lots = watch.arms(found.now, config.serve.holdback)
        told.append(lots)
        if lots.status != "off":
            told.append(watch.against_holdback(found.now, config.monitor.margin))
        if lots.status != "off" and len(found.before):
            told.append(watch.against_predecessor(found.now, found.before, config.monitor.margin))
        scored = _scored(ws, found.now, made)
        if config.contract.kind == "binary":
            told.append(watch.promise(scored, config.gate.max_calibration_error))
        newest = scored["window"] == scored["window"].iloc[-1]
        told.append(drift.signal(SCORES, scored.loc[~newest, ["score"]], scored.loc[newest, ["score"]]))
        columns = [*config.contract.numeric, *config.contract.categorical]
        exam = [line.window for line in ws.ledger() if made.exam_windows[0] <= line.window <= made.exam_windows[1]]
        then = pd.concat([dataset.read_window(ws.data, name, columns).to_pandas() for name in exam])
        came = dataset.read_window(ws.data, found.now["window"].iloc[-1], columns).to_pandas()
        told.append(drift.signal(INPUTS, then, came))
    if lines:
        behind = grid.last_closed(as_of) - grid.parse(lines[-1].window)
        told.append(watch.freshness(lines[-1].window, behind))
        if config.serve is not None:
            told.append(watch.joined((line.outcomes for line in lines[-NEWEST:]), config.max_quarantined))
    return tuple(told)


def _rows(ws: Workspace, window: str) -> pd.DataFrame:
    frame: pd.DataFrame = dataset.read_window(ws.data, window, COLUMNS).to_pandas()
    frame = frame.assign(window=window, at=np.arange(len(frame)), user=frame["user"].astype(object))
    kept = frame["label"].notna() & ~frame["late"] & frame["user"].notna() & frame["arm"].notna()
    return frame[kept].drop(columns="late")


def _spell(frames: list[pd.DataFrame], generation: int) -> pd.DataFrame:
    """The rows of the time in which a generation served, oldest first."""
    if not frames:
        return pd.DataFrame()
    rows = pd.concat(frames[::-1], ignore_index=True)
    rows["own"] = (rows["arm"] == "wheel") & (rows["generation"] == generation)
    since, until = rows.loc[rows["own"], "ts"].min(), rows.loc[rows["own"], "ts"].max()
    return rows[rows["ts"].between(since, until)].copy()


def _new(ws: Workspace, shown: pd.DataFrame, oldest: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each row's user was never there before the first of them, which is in the `oldest` window."""
    codes, users = pd.factorize(shown["user"])
    first = learning.users(ws).first(list(users)) >= ws.config.windows.grid.parse(oldest["window"].iloc[0])
    return (first & ~np.isin(users, oldest.loc[oldest["ts"] < shown["ts"].min(), "user"]))[codes]


def _scored(ws: Workspace, now: pd.DataFrame, made: Generation) -> pd.DataFrame:
    """The champion's own rows with the score of each."""
    own, parts = now[now["own"]], []
    stored = mlflow_registry.load(deciding.open_store(ws), made.generation).parts
    columns = Columns(stored.features, stored.types, dict(stored.vocabulary))
    cache = ws.matrices(deciding.recipe_of(ws, made))
    for name, rows in own.groupby("window", sort=False):
        matrix = cache.load(ws.config.windows.grid.parse(str(name)))[rows["at"].to_numpy()]
        parts.append(rows.assign(score=train.predict(stored.model, columns, matrix)))
    return pd.concat(parts)
