"""Rows become a generation: features, fit, and the exam that challenger and champion sit together."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from flows import fitting, spreading
from flows.failpoints import failpoint
from flows.fitting import fit_together
from flows.interrupts import deferred
from flows.progress import tell
from flywheel.data import dataset, validate
from flywheel.data.identity import Users
from flywheel.errors import BlockedError, FlywheelError
from flywheel.fingerprint import atomic_write, sha256
from flywheel.learn import baseline, evaluate, metrics, train
from flywheel.learn.features import Matrix
from flywheel.learn.matrix import Cache, Recipe
from flywheel.learn.plan import Plan
from flywheel.learn.train import Columns, Trained
from flywheel.records import Comparison, Evaluation
from flywheel.schema import REJECTED
from flywheel.workspace import Workspace

GOLDEN_ROWS = 50
SLICE_VALUES = 12  # a column with more values than these is no slice


@dataclass(frozen=True)
class Scorer:
    """A model as an exam needs it: how its columns are made, and how they are scored. Generation 0 is the baseline."""

    generation: int
    recipe: Recipe
    columns: Columns | None = None
    model: bytes = b""

    def scores(self, matrix: Matrix, kind: evaluate.Kind) -> npt.NDArray[np.float64]:
        """Score rows whose columns this scorer's own recipe made."""
        if self.columns is None:
            return baseline.scores(matrix, self.recipe.names, kind=kind)
        return train.predict(self.model, self.columns, matrix)


@dataclass(frozen=True)
class Examined:
    """What the exam said: against the champion, of the baseline on the same rows, and golden rows to check by.

    `against` is the challenger compared with the ancestor, None where nobody asked or it could not sit: then `absent`
    says why.
    """

    evaluation: Evaluation
    baseline: dict[str, float]
    calibration: dict[str, list[tuple[float, float, int]]]
    golden: Matrix
    golden_scores: npt.NDArray[np.float64]
    against: Comparison | None = None
    absent: str = ""


def fit(ws: Workspace, plan: Plan, turn_id: str) -> Trained:
    """Fit the challenger of a turn, or take it up where a killed run had finished it."""
    folder = ws.cache / "turns" / turn_id
    done = _stored(folder)
    if done is not None:
        return done
    cache = ws.matrices()
    grid = ws.config.windows.grid
    windows = [grid.parse(name) for name in (*plan.train, *plan.exam)]
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        tell("features", rows)
        failpoint("features:mid")

    spreading.build(cache, windows, count)
    failpoint("features:after")
    recipe = ws.recipe
    columns = Columns(recipe.names, recipe.types, cache.vocabulary(grid.parse(plan.train[-1])))
    cluster = spreading.cluster()
    trained = _fit(ws, plan, cache, columns) if cluster is None else fit_together(ws, cluster, plan.train, columns)
    _store(folder, trained)
    failpoint("fit:after")
    return trained


def _fit(ws: Workspace, plan: Plan, cache: Cache, columns: Columns) -> Trained:
    with deferred() as stop_if_asked:

        def grown(done: int, most: int) -> None:
            tell("fit", done, most)
            failpoint("fit:mid")
            stop_if_asked()

        return fitting.fit(ws, cache, plan.train, columns, grown)


def guard(ws: Workspace, plan: Plan) -> None:
    """Judge the features of the newest training window by `expectations/features.json`, before anything is fitted.

    Raises:
        BlockedError: they are not as it expects.
    """
    from flywheel.integrations import gx_suites  # 4 s; whoever only asks for generations need not wait for it

    suite = gx_suites.read(ws.expectations / "features.json")
    if not suite.demands:
        return
    name, cache = plan.train[-1], ws.matrices()
    frame = pd.DataFrame(cache.load(ws.config.windows.grid.parse(name)), columns=list(ws.recipe.names))
    said = validate.validate(
        pa.Table.from_pandas(frame),
        [gx_suites.run(suite, frame)],
        refused=REJECTED.empty_table(),
        max_quarantined=ws.config.max_quarantined,
    )
    if said.blocks:
        raise BlockedError(
            f"the features of window {name} are not as expected, and nothing was fitted",
            where="expectations/features.json",
            why=said.blocks[0],
            next="correct features.py, the source or the expectation, then flywheel turn",
        )


def train_users(ws: Workspace, plan: Plan) -> int:
    """How many users the training rows have; 0 where the contract knows none."""
    return users(ws).until(ws.config.windows.grid.parse(plan.train[-1])) if ws.config.contract.user else 0


def users(ws: Workspace) -> Users:
    """Since when each user is there."""
    grid, reader = ws.config.windows.grid, ws.reader
    chain = {grid.parse(name): address for name, address in dataset.chain(ws.ledger()).items()}
    return Users(ws.cache / "users", chain, lambda window: reader(window, ["user"]).column("user"))


def examine(
    ws: Workspace, plan: Plan, trained: Trained, champion: Scorer, ancestor: Callable[[], Scorer] | None = None
) -> Examined:
    """Have challenger and champion score the same rows, each by the columns that its own recipe makes.

    An ancestor that cannot be had, or cannot score these rows, is said to be absent; the exam goes on without it.
    """
    challenger = Scorer(-1, ws.recipe, trained.columns, trained.model)
    frame = pd.concat([exam_rows(ws, name) for name in plan.exam], ignore_index=True)
    return sit(ws, frame, partial(matrix_of, ws, plan.exam), challenger, champion, ancestor=ancestor)


def sit(
    ws: Workspace,
    frame: pd.DataFrame,
    columns: Callable[[Recipe], Matrix],
    challenger: Scorer,
    champion: Scorer,
    *,
    ancestor: Callable[[], Scorer] | None = None,
) -> Examined:
    """Have all score the rows of a frame, whose matrix is made by each one's own recipe."""
    kind = ws.config.contract.kind
    matrix = columns(challenger.recipe)
    labels, scores = frame["label"].to_numpy(), challenger.scores(matrix, kind)
    compare = partial(
        evaluate.evaluate,
        labels,
        scores,
        kind=kind,
        metric=ws.config.metric,
        users=names(frame, "user"),
        requests=names(frame, "request"),
        confidence=ws.config.gate.confidence,
    )

    def scored(by: Scorer) -> npt.NDArray[np.float64]:
        same = by.recipe.fingerprint == challenger.recipe.fingerprint
        return by.scores(matrix if same else columns(by.recipe), kind)

    opposing = scored(champion)
    evaluation = compare(opposing, slices=_slices(ws, frame, matrix, challenger.recipe.names))
    of_baseline = compare(scored(Scorer(0, challenger.recipe)))
    against, absent = None, ""
    if ancestor is not None:
        try:
            against = compare(scored(ancestor())).overall
        except FlywheelError as error:
            absent = f"{error.what}, {error.why}" if error.why else error.what
    golden = matrix[:GOLDEN_ROWS]
    bins = {} if kind == "number" else {"challenger": _bins(labels, scores), "champion": _bins(labels, opposing)}
    return Examined(evaluation, of_baseline.champion, bins, golden, scores[:GOLDEN_ROWS], against, absent)


def _bins(labels: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> list[tuple[float, float, int]]:
    found = metrics.calibration(labels, scores)
    return list(zip(found.predicted.tolist(), found.observed.tolist(), found.rows.tolist(), strict=True))


def matrix_of(ws: Workspace, windows: Sequence[str], recipe: Recipe) -> Matrix:
    """The matrix of the training rows of windows, made by a recipe."""
    cache = ws.matrices(recipe)
    spreading.build(cache, [ws.config.windows.grid.parse(name) for name in windows])
    return np.vstack([fitting.batch(ws, cache, name).load() for name in windows])


def exam_rows(ws: Workspace, name: str) -> pd.DataFrame:
    """The labelled rows of a window that were not late, with what an exam is cut by."""
    frame = dataset.read_window(ws.data, name, exam_columns(ws)).to_pandas()
    labelled: pd.DataFrame = frame[frame["label"].notna() & ~frame["late"]]
    return labelled


def exam_columns(ws: Workspace) -> list[str]:
    """The columns of a row that an exam looks at."""
    roles = [role for role in ("user", "request") if getattr(ws.config.contract, role)]
    return ["label", "late", *roles, *ws.config.categorical]


def names(frame: pd.DataFrame, role: str) -> npt.NDArray[np.object_] | None:
    """Who each row was shown to, or with which: the column of a role, or None where there is none."""
    return frame[role].astype(object).to_numpy() if role in frame else None


def _slices(
    ws: Workspace, frame: pd.DataFrame, matrix: Matrix, columns: Sequence[str]
) -> dict[str, npt.NDArray[np.object_]]:
    """What the exam is cut by: new and returning users, new and known items, and every context with few values."""
    slices = {}
    for role, old in (("user", "returning"), ("item", "known")):
        column = f"{role}__since_first"
        if column in columns:
            slices[role] = np.where(np.isnan(matrix[:, columns.index(column)]), "new", old).astype(object)
    for column in ws.config.categorical:
        if frame[column].nunique() <= SLICE_VALUES:
            slices[column] = frame[column].astype(object).where(frame[column].notna(), None).to_numpy()
    return slices


def _store(folder: Path, trained: Trained) -> None:
    """Keep a fitted challenger until its turn is over."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model.ubj", lambda path: path.write_bytes(trained.model))
    told = {k: v for k, v in asdict(trained).items() if k != "model"} | {"sha256": sha256(folder / "model.ubj")}
    atomic_write(folder / "trained.json", lambda path: path.write_text(json.dumps(told)))


def _stored(folder: Path) -> Trained | None:
    """A challenger that was fitted already, or None where it was not, or its bytes are not those that were written."""
    try:
        told = json.loads((folder / "trained.json").read_text())
        columns = Columns(
            tuple(told["columns"]["names"]), tuple(told["columns"]["types"]), told["columns"]["vocabulary"]
        )
        if sha256(folder / "model.ubj") != told.pop("sha256"):
            return None
        return Trained(**{**told, "columns": columns, "model": (folder / "model.ubj").read_bytes()})
    except (OSError, ValueError, KeyError, TypeError):
        return None
