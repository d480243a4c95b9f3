"""`flywheel network`: whether everybody's data improves everybody's model, or only their own.

A cohort of users is fixed by hash. Models learn from the cohort's rows and from those of more and more others, with
counters that know these users alone; the exam is the cohort's newest rows. What was shown to the cohort is what it was,
by whichever generation served: that the others made that one better too is not taken away.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from flows import evidence, fitting, retraining, trials
from flows.lock import locked
from flows.progress import listening
from flows.retraining import Panel, Sample
from flows.run import Watch
from flows.trials import Outcome, Trial
from flywheel.data import dataset
from flywheel.errors import ConfigError, DataError
from flywheel.evidence import CurvePoint, Estimate, Network
from flywheel.learn.matrix import Cache
from flywheel.learn.plan import Plan, plan
from flywheel.measure import contrasts
from flywheel.workspace import Workspace

COHORT = 0.25  # of all users
JOINED = (0.0, 0.25, 0.5, 1.0)  # of the others
EXAM = "cohort"
OWN, EVERYBODY, COUNTED = "0", "1", "own rows, everybody's counters"


def network(ws: Workspace, as_of: datetime, *, on_progress: Watch) -> Network:
    """Measure what others' data is worth to a cohort as of an instant, and keep what was found.

    Raises:
        ConfigError: the contract knows no users.
        DataError: there is no exam yet, or the cohort is too small to learn from or to examine.
        BusyError: another process holds the workspace.
    """
    if ws.config.contract.user is None:
        raise ConfigError(
            "there are no users to tell apart",
            where=str(ws.root / "flywheel.toml"),
            why="contract.user names no column",
            next="edit flywheel.toml, or flywheel stale, which needs none",
        )
    with locked(ws.cache, "network"), on_progress() as listener, listening(listener):
        planned = plan(ws.ledger(), ws.config, as_of)
        with TemporaryDirectory(dir=ws.cache) as scratch:
            found = _found(ws, planned, as_of, Path(scratch))
        evidence.keep(ws, found)
    return found


def thinned(ws: Workspace, users: float, folder: Path) -> Cache:
    """Matrices of all rows whose counters know only a share of the users, kept in a folder of their own."""

    def read(window: int, columns: list[str]) -> pa.Table:
        if "label" not in columns:
            return ws.reader(window, columns)
        table = ws.reader(window, list(dict.fromkeys([*columns, "user"])))
        label = pd.Series(table.column("label").to_numpy())
        known = retraining.among(table.column("user").to_pandas(), users)
        at = table.column_names.index("label")
        return table.set_column(at, "label", pa.array(label.where(known).to_numpy())).select(columns)

    return replace(ws.matrices(), folder=folder, read=read)


def _found(ws: Workspace, planned: Plan, as_of: datetime, scratch: Path) -> Network:
    metric = ws.config.metric
    cohort = retraining.panel(ws, planned.exam)
    kinds: dict[str, Trial] = {}
    for share in JOINED:
        users = COHORT + share * (1 - COHORT)
        cache = ws.matrices() if share == 1 else thinned(ws, users, scratch / f"{share:g}")
        kinds[f"{share:g}"] = _trial(ws, planned, users, cache, cohort)
    kinds[COUNTED] = _trial(ws, planned, COHORT, ws.matrices(), cohort)
    exams = trials.exams(kinds[OWN].panels)
    _check(ws, len(exams[EXAM].labels))
    outcome = trials.run(kinds, exams, metric)
    weigh = partial(contrasts.contrast, results=outcome.results, exams=exams, metric=metric)
    difference = weigh({(EVERYBODY, EXAM): 1.0, (OWN, EXAM): -1.0})
    learned = weigh({(EVERYBODY, EXAM): 1.0, (COUNTED, EXAM): -1.0})
    points = tuple(_point(ws, planned, share, outcome) for share in JOINED)
    own, everybody = points[0].quality, points[-1].quality
    says = (_worth(metric, difference), _way(difference, learned), HELD)
    return Network(metric, as_of, own, everybody, difference, points, says)


def _trial(ws: Workspace, planned: Plan, users: float, cache: Cache, everybody: Panel) -> Trial:
    """Models of a share of the users: the cohort is the first to be in it."""
    cache.build([ws.config.windows.grid.parse(name) for name in (*planned.train, *planned.exam)])
    drawn = tuple(Sample(planned.train, users=users) for _ in range(trials.SEEDS))
    assert everybody.users is not None
    at = retraining.among(pd.Series(everybody.users), COHORT)
    matrix = np.vstack([fitting.batch(ws, cache, name).load() for name in planned.exam])
    requests = None if everybody.requests is None else everybody.requests[at]
    return Trial(ws, drawn, cache, {EXAM: Panel(everybody.labels[at], everybody.users[at], requests, matrix[at])})


def _check(ws: Workspace, rows: int) -> None:
    if rows < ws.config.gate.min_rows:
        raise DataError(
            f"the cohort's exam has {rows:,} rows, too few to tell anything by",
            why=f"it is {COHORT:.0%} of the users, and [gate] min_rows is {ws.config.gate.min_rows:,}",
            next="flywheel turn, as data comes in, or a larger [exam] rows",
        )


def _point(ws: Workspace, planned: Plan, share: float, outcome: Outcome) -> CurvePoint:
    name = f"{share:g}"
    result = outcome.results[name, EXAM]
    se = float(result.qualities.std(ddof=1) / np.sqrt(trials.SEEDS))
    users = _count(ws, planned, lambda names: retraining.among(names, COHORT + share * (1 - COHORT)))
    return CurvePoint(outcome.rows[name], users, abs(result.quality), se, trials.SEEDS)


def _count(ws: Workspace, planned: Plan, chosen: Callable[["pd.Series[str]"], npt.NDArray[np.bool_]]) -> int:
    found: set[str] = set()
    for name in planned.train:
        names = pd.Series(dataset.read_window(ws.data, name, ["user"]).column("user").to_pandas().dropna().unique())
        found |= set(names[chosen(names)])
    return len(found)


HELD = (
    "Counters know only the users that have joined. What was shown is held fixed: lists that the others' data made "
    "better in the past stay as they were."
)


def _worth(metric: str, difference: Estimate) -> str:
    low, high = difference.low, difference.high
    told = f"{abs(difference.value):.4f} {metric} ({low:+.4f} to {high:+.4f})"
    if low > 0:
        return f"Everybody's data improves everybody's model: for the same users others' rows are worth {told}."
    if high < 0:
        return f"Others' data makes the model worse for these users, by {told}."
    return f"Whether others' data improves the model for these users is not clear: by {told}."


def _way(difference: Estimate, learned: Estimate) -> str:
    counted = difference.value - learned.value
    return (
        f"Of that {learned.value:+.4f} ({learned.low:+.4f} to {learned.high:+.4f}) is what the model learns from "
        f"others' rows, and {counted:+.4f} what the counters know of them."
    )
