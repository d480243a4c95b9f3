"""`flywheel curve`: models of ever more of the same rows, all on one exam, and what more data would be worth.

Samples are of users, nested, by hash: at ever half an octave, five draws each, three where two draws share most rows.
The number of trees is tuned at three sizes and interpolated between them, in logarithms of both.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import deciding, evidence, retraining
from flows.lock import locked
from flows.progress import listening, tell
from flows.retraining import Panel, Pool, Sample
from flows.run import Watch
from flywheel.errors import DataError
from flywheel.evidence import Curve
from flywheel.integrations import mlflow_curve
from flywheel.learn import metrics
from flywheel.learn.plan import Plan, plan
from flywheel.measure import curves, forecast, laws, spread, worth
from flywheel.measure.curves import Asked, Scored
from flywheel.workspace import Workspace

SIZES, WANTED = 13, 10
DRAWS, FEW_DRAWS, FULL_DRAWS = 5, 3, 2
THINNED = tuple((users, rows) for users in (1.0, 0.5, 0.25) for rows in (0.5, 0.25))  # shares of users, of their rows
TOP = 0.1  # of the rows of an exam without requests: those that a model would put first
REMEMBERED = (
    "Counters remember everybody, whatever rows a model was fitted on: what is shown is the worth of rows to train on, "
    "and data that also fills counters is worth at least that."
)


@dataclass(frozen=True, eq=False)
class Exam:
    """One exam, and how models are scored on it."""

    panel: Panel
    metric: str
    requests: npt.NDArray[np.int64] | None

    def quality(self, scores: npt.NDArray[np.float64]) -> float:
        """The metric."""
        return metrics.measure(self.metric, self.panel.labels, scores, self.requests)[0]

    def reward(self, scores: npt.NDArray[np.float64]) -> float:
        """The mean label of the row put first in each request, or of the top tenth of rows; ties by chance, once."""
        tie = np.random.default_rng(0).random(len(scores))
        if self.requests is None:
            first = np.lexsort((tie, -scores))[: max(1, round(TOP * len(scores)))]
        else:
            order = np.lexsort((tie, -scores, self.requests))
            of = self.requests[order]
            shared = np.bincount(of[of >= 0])[np.maximum(of, 0)] > 1
            first = order[np.concatenate([[True], of[1:] != of[:-1]]) & (of >= 0) & shared]
        return float(self.panel.labels[first].mean()) if len(first) else float("nan")


def asked(
    ws: Workspace, as_of: datetime, more: int | None, target: float | None, *, on_progress: Watch
) -> tuple[Curve, tuple[str, ...]]:
    """The learning curve as of an instant, for a person at a terminal, and what it says of more rows or of a target.

    Raises:
        DataError: there is no exam yet, too few rows for a curve, or what is asked cannot be foretold.
        BusyError: another process holds the workspace.
    """
    with locked(ws.cache, "curve"), on_progress() as listener, listening(listener):
        found = curve_at(ws, as_of)
    return found, worth.answers(found, more, target)


def curve_at(ws: Workspace, as_of: datetime) -> Curve:
    """The learning curve as of an instant; kept, logged to MLflow, and not measured again while nothing has changed.

    Raises:
        DataError: there is no exam yet, or too few rows for a curve.
    """
    planned = plan(ws.ledger(), ws.config, as_of)
    made_from = _made_from(ws, planned)
    known = evidence.kept(ws, Curve)
    if known is None or known.made_from != made_from:
        sizes = _sizes(ws, planned)  # before anything is read: it refuses too few rows
        exam = _exam(ws, planned)
        scored = list(_scored(ws, retraining.pool(ws, planned.train), exam, planned, sizes))
        notes = (*_fewer(scored, planned), *([REMEMBERED] if ws.config.features.counters else []))
        margin = ws.config.gate.margin
        asked = Asked(ws.config.metric, as_of, len(exam.panel.labels), margin, made_from, notes)
        drawn = curves.curve(scored, asked)
        known = replace(drawn, says=(*worth.says(drawn), *drawn.says))
        evidence.keep(ws, known)
    mlflow_curve.log(deciding.open_store(ws), known)
    return known


def _made_from(ws: Workspace, planned: Plan) -> str:
    """The hash of rows, recipe, exam and of the code that measures."""
    code = [Path(str(m.__file__)).read_bytes() for m in (curves, forecast, laws, spread, worth, retraining)]
    told = [planned.fingerprint, *planned.exam, ws.recipe.fingerprint, ws.config.fingerprint("gate")]
    own = Path(__file__).read_bytes()
    return hashlib.sha256(b"\0".join([*code, own, *(part.encode() for part in told)])).hexdigest()[:16]


def _exam(ws: Workspace, planned: Plan) -> Exam:
    panel = retraining.panel(ws, planned.exam)
    requests = None if panel.requests is None else pd.factorize(panel.requests)[0].astype(np.int64)
    if not np.isfinite(metrics.measure(ws.config.metric, panel.labels, np.full(len(panel.labels), 0.5), requests)[0]):
        why = f"{ws.config.metric} is not defined on the {len(panel.labels):,} rows of {', '.join(planned.exam)}"
        raise DataError("the exam tells no curve", why=why, next="flywheel curve --as-of another instant")
    return Exam(panel, ws.config.metric, requests)


def _sizes(ws: Workspace, planned: Plan) -> list[float]:
    """Shares of the users, ascending to 1 by half octaves, down to as few rows as may be trained on."""
    least = ws.config.train.min_rows
    sizes = [2 ** (-step / 2) for step in range(SIZES) if planned.train_rows * 2 ** (-step / 2) >= least][::-1]
    if len(sizes) < curves.FEWEST_SIZES:
        takes = round(least * 2 ** ((curves.FEWEST_SIZES - 1) / 2))
        why = f"there are {planned.train_rows:,} to train on, and it takes {takes:,}"
        raise DataError("there are too few rows for a learning curve", why=why, next="flywheel turn, as data comes in")
    return sizes


def _fewer(scored: list[Scored], planned: Plan) -> list[str]:
    """Why the curve has fewer sizes than wanted, or draws."""
    found = len({one.users_share for one in scored if one.rows_share == 1})
    if found >= WANTED:
        return []
    return [f"The curve has {found} sizes, not {WANTED}: of {planned.train_rows:,} rows smaller parts teach nothing."]


def _scored(ws: Workspace, pool: Pool, exam: Exam, planned: Plan, sizes: list[float]) -> Iterator[Scored]:
    """Every model's worth: those whose trees are tuned first, then the rest; samples that teach nothing left out."""
    trees: dict[float, int] = {}
    tuned = [sizes[0], sizes[len(sizes) // 2], 1.0] if ws.config.train.early_stopping else []
    first = [Sample(planned.train, users=share) for share in tuned]
    rest = [Sample(planned.train, users=share, draw=d) for share in sizes for d in range(_draws(share))]
    rest = [sample for sample in rest if sample not in first]
    rest += [Sample(planned.train, users, rows, draw) for users, rows in THINNED for draw in range(FEW_DRAWS)]
    for done, sample in enumerate([*first, *rest], start=1):
        try:
            found = _fitted(ws, pool, exam, sample, trees, tune=sample in first)
        except DataError:  # too few rows, or one class alone: this sample teaches nothing
            found = None
        if found is not None:
            yield found
        tell("models", done, len(first) + len(rest))


def _draws(share: float) -> int:
    return FULL_DRAWS if share >= 1 else FEW_DRAWS if share > 0.4 else DRAWS


def _fitted(ws: Workspace, pool: Pool, exam: Exam, sample: Sample, trees: dict[float, int], *, tune: bool) -> Scored:
    within = pool.within(sample)
    rows = sum(int(at.sum()) for at in within)
    rounds = None if tune or not trees else _interpolated(trees, rows)
    trained = retraining.fit_from(ws, pool, sample, seed=ws.config.train.seed + sample.draw, rounds=rounds)
    if tune:
        trees[rows] = trained.rounds
    scores = retraining.scores(trained, exam.panel)
    users = pool.users(within) if ws.config.contract.user else 0
    reward = exam.reward(scores) if ws.config.contract.kind == "binary" else float("nan")
    return Scored(sample.users, sample.rows, sample.draw, rows, users, exam.quality(scores), reward)


def _interpolated(trees: dict[float, int], rows: int) -> int:
    """The number of trees for so many rows, between those that were tuned."""
    known = np.log(sorted(trees)), np.log([trees[rows] for rows in sorted(trees)])
    return max(1, round(float(np.exp(np.interp(np.log(rows), *known)))))
