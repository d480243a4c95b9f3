"""Whether the wheel turns, and what it may harm: the arms of a served workspace, read and measured."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from flows import deciding, evidence, retraining
from flywheel.data import dataset
from flywheel.errors import DataError
from flywheel.evidence import Curve, Gain, Hazards, Period
from flywheel.integrations import mlflow_tracking
from flywheel.learn import evaluate
from flywheel.learn.metrics import LOWER_IS_BETTER
from flywheel.learn.plan import plan
from flywheel.measure import growth, hazards, levers
from flywheel.measure.growth import Slope
from flywheel.records import Generation, LedgerLine
from flywheel.workspace import Workspace

DRAWS = 3  # halves of the users that are left out, where there is no curve
COLUMNS = ("user", "item", "request", "ts", "label", "late", "arm", "generation", "explored", "propensity")
NOBODY = "This workspace serves nobody, so there is no holdback to compare with: add [serve] to flywheel.toml."


@dataclass(frozen=True)
class Log:
    """Rows of closed windows that are training rows, with the turn that each is of; turns end with the watermark."""

    rows: pd.DataFrame
    start: datetime  # of turn 0
    turn: timedelta
    since: int | None  # the first turn with rows of a champion


class Turns(NamedTuple):
    """The generations that were made by then, and how long a turn takes."""

    made: list[Generation]
    every: timedelta


def gain(ws: Workspace, as_of: datetime, *, retrain: bool = False) -> Gain:
    """Measure the loop gain as of an instant, and keep it.

    Args:
        ws: the workspace.
        as_of: the instant; windows that may be closed by then count.
        retrain: where no learning curve is kept, fit models without half of the users to see what data does. Without
            it this takes seconds, and the gain is not known.

    Raises:
        DataError: nobody is served, or no window is closed.
    """
    log, turns = _log(ws, as_of)
    slope = _slope(ws, turns.made, as_of, retrain=retrain) if log.since is not None else None
    seen = log.rows.groupby(["user", "turn", "wheel"], as_index=False).agg(
        rows=("label", "size"), reward=("label", "sum")
    )
    found = None
    if log.since is not None:
        found = growth.measure(seen, since=log.since, rows_before=0, slope=slope)
    facts = levers.Facts(
        rows=len(log.rows),
        turn_days=log.turn / timedelta(days=1),
        explore=ws.config.serve.explore if ws.config.serve else 0.0,
        holdback=ws.config.serve.holdback if ws.config.serve else 0.0,
        holdback_users=int(seen.loc[~seen["wheel"], "user"].nunique()),
        champion=log.since is not None,
        measured=slope is not None,
    )
    made = levers.told(found, facts, as_of, _periods(log, seen))
    evidence.keep(ws, made)
    return made


def hazards_of(ws: Workspace, as_of: datetime) -> Hazards:
    """Measure what the wheel may harm as of an instant, and keep it.

    Raises:
        DataError: nobody is served, or no window is closed.
    """
    log, _ = _log(ws, as_of)
    served = log.rows[log.rows["turn"] >= log.since] if log.since is not None else log.rows[:0]
    found = hazards.measure(served, as_of)
    evidence.keep(ws, found)
    return found


def _log(ws: Workspace, as_of: datetime) -> tuple[Log, Turns]:
    """The rows up to the watermark, cut into turns counted back from it."""
    if ws.config.serve is None:
        raise DataError(NOBODY, next="flywheel init ANOTHER_FOLDER --serve")
    grid = ws.config.windows.grid
    last = grid.last_closed(as_of)
    lines = [line for line in ws.ledger() if grid.parse(line.window) <= last]
    if not any(line.rows for line in lines):
        raise DataError(f"no closed window has a row at {as_of:%Y-%m-%d %H:%M}", next="flywheel status")
    turns = _turns(ws, as_of)
    windows = max(1, round(turns.every / grid.every))
    first = -(-len(lines) // windows)  # turns, the oldest perhaps shorter
    frames = [_window(ws, line, first - 1 - (len(lines) - 1 - n) // windows) for n, line in enumerate(lines)]
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    rows["user"], rows["item"] = (pd.factorize(rows[name])[0] for name in ("user", "item"))
    served = rows.loc[(rows["arm"] == "wheel") & (rows["generation"] > 0), "turn"]  # a canary is no champion yet
    start = lines[-1].end - first * windows * grid.every
    since = int(served.min()) if len(served) else None
    return Log(rows, start, windows * grid.every, since), turns


def _window(ws: Workspace, line: LedgerLine, turn: int) -> pd.DataFrame:
    frame: pd.DataFrame = dataset.read_window(ws.data, line.window, COLUMNS).to_pandas()
    for name in ("user", "item", "request", "arm"):
        frame[name] = frame[name].astype(object)
    kept = frame["label"].notna() & ~frame["late"] & frame["user"].notna() & frame["arm"].notna()
    frame = frame[kept].drop(columns="late")
    frame["turn"], frame["wheel"] = turn, frame["arm"] != "holdback"  # whoever meets a canary is the wheel's too
    return frame


def _turns(ws: Workspace, as_of: datetime) -> Turns:
    made = [g for g in mlflow_tracking.generations(deciding.open_store(ws)) if g.as_of <= as_of]
    times = sorted({g.as_of for g in made})
    gaps = np.diff([t.timestamp() for t in times])
    every = timedelta(seconds=float(np.median(gaps))) if len(gaps) else ws.config.windows.every
    return Turns(made, max(every, ws.config.windows.every))


def _slope(ws: Workspace, made: list[Generation], as_of: datetime, *, retrain: bool) -> Slope | None:
    """What more data and the champion's lead are worth on the exams, both in points of the metric, more is better."""
    metric = ws.config.metric
    sign = -1 if metric in LOWER_IS_BETTER else 1
    passed = [g for g in made if g.verdict == "promote" and g.difference]
    exams = [g for g in passed if metric in g.metrics and metric in g.baseline]
    if not exams:
        return None
    leads = np.array([sign * (g.metrics[metric] - g.baseline[metric]) for g in exams])
    noise = np.array([g.difference.se for g in exams if g.difference])
    lead = float(leads.mean()), float(np.sqrt((noise**2).mean() / len(exams)))
    kept = evidence.kept(ws, Curve)
    data = None
    if kept is not None and kept.metric == metric:
        points = [(p.rows, sign * p.quality, p.se) for p in kept.points]
        data = growth.slope_at_end(*map(np.array, zip(*points, strict=True)))
    elif retrain:
        data = _ablation(ws, as_of)
    return None if data is None else Slope(*data, *lead)


def _ablation(ws: Workspace, as_of: datetime) -> tuple[float, float] | None:
    """Points of the metric that twice the users are worth, for e times the rows: models with and without a half."""
    planned = plan(ws.ledger(), ws.config, as_of)
    rows = retraining.panel(ws, planned.exam)
    whole = retraining.scores(retraining.fit(ws, retraining.Sample(planned.train), seed=0), rows)
    found = []
    for draw in range(DRAWS):
        half = retraining.fit(ws, retraining.Sample(planned.train, users=0.5, draw=draw), seed=draw)
        said = evaluate.evaluate(
            rows.labels, whole, retraining.scores(half, rows), kind=ws.config.contract.kind, metric=ws.config.metric,
            users=rows.users, requests=rows.requests,
        )  # fmt: skip
        found.append((said.overall.difference.estimate, said.overall.difference.se))
    gains, errors = np.array(found).T
    se = np.sqrt((errors**2).mean() + gains.var(ddof=1) / len(gains))
    return float(gains.mean() / np.log(2)), float(se / np.log(2))


def _periods(log: Log, seen: pd.DataFrame) -> tuple[Period, ...]:
    """Each turn as it was, and as the holdback alone, scaled by the share of users that are in it."""
    held = ~seen["wheel"]
    share = seen.loc[held, "user"].nunique() / seen["user"].nunique()
    by_turn = [frame.groupby("turn").agg(users=("user", "nunique"), rows=("rows", "sum"), reward=("reward", "sum"))
               for frame in (seen, seen[held])]  # fmt: skip
    both = by_turn[0].join(by_turn[1].add_suffix("_without"), how="inner")
    return tuple(
        Period(
            start=log.start + turn * log.turn,
            users=int(row["users"]),
            rows=int(row["rows"]),
            reward=float(row["reward"]),
            users_without=float(row["users_without"] / share),
            rows_without=float(row["rows_without"] / share),
            reward_without=float(row["reward_without"] / share),
        )
        for turn, row in zip(both.index.tolist(), both.to_dict("records"), strict=True)
    )
