"""What the wheel may take while it gives: whom it serves against the holdback, by confidence sequence.

Exposure, similarity and entropy depend on how many people one looks at, and far more have the wheel than are held
back. So like is compared with like: groups of as many users of the wheel as the holdback has, drawn at random without
replacement, each measured as the holdback is. Their mean is the figure of the exposed; their spread is how much such
a figure differs by who happens to be in a group, and so the standard error of the holdback's own (users are the
cluster; corrected for what groups drawn from the same users share). The difference of the two is a statistic of whole
users, and its interval is widened to a confidence sequence (`measure/sequences.py`, the tightest where the holdback
has as many users as now), so that it may be looked at every turn. An alarm is a sequence that excludes no harm; a
difference of less than a twentieth of the holdback's figure is none.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from flywheel.evidence import Estimate, Hazard, Hazards
from flywheel.measure import sequences

GROUPS = 40  # of users of the wheel
NONE = 0.05  # of the holdback's figure: a smaller difference is no harm
NEEDED = 3  # impressions, with which a new item has had its first
PATIENCE = 28.0  # days that a new item is waited for
SHOWN = 12  # rows of a user that their own variety is judged by
PAIRS = 2000  # of lists that are compared
SURE = 0.9  # a propensity above which a choice was none

Floats = npt.NDArray[np.float64]


class Group(NamedTuple):
    """Rows of some users, and what they are measured by besides: of everybody's rows, and random numbers."""

    rows: pd.DataFrame
    items: int  # that anybody was shown
    released: "pd.Series[float]"  # when each new item was first shown, in days
    end: float  # of the rows, in days
    rng: np.random.Generator


class Kind(NamedTuple):
    """A hazard: what it is called, how it is measured, and whether more of it is the harm (1) or less (-1)."""

    name: str
    unit: str
    measure: Callable[[Group], float]
    harm: int
    says: str


def measure(rows: pd.DataFrame, as_of: datetime, seed: int = 0) -> Hazards:
    """Measure every hazard on the rows that were served since the first champion.

    Args:
        rows: `user, item` (whole numbers), `request, ts, wheel` (False for the holdback), `propensity, explored`.
        as_of: the instant that it is told for.
        seed: of the groups.
    """
    wheel, held = (np.unique(rows.loc[rows["wheel"] == arm, "user"]) for arm in (True, False))
    if len(rows) == 0:
        return Hazards(as_of, (), ("No champion has served yet, so it can have done no harm.",))
    if len(held) < sequences.FEWEST or len(wheel) < 2 * len(held):
        said = (
            f"The holdback has {len(held):,} users and the wheel {len(wheel):,}: it takes {sequences.FEWEST} in the "
            "holdback, and twice as many with the wheel, to compare them."
        )
        return Hazards(as_of, (), (said,))
    rng = np.random.default_rng([seed, *b"hazards"])
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[rows["ts"].dt.unit]
    rows = rows.assign(day=rows["ts"].astype("int64") / (86_400 * ticks))
    drawn = [held, *(rng.choice(wheel, len(held), replace=False) for _ in range(GROUPS))]
    groups = _groups(rows, drawn, rng)
    figures = [(kind, [kind.measure(group) for group in groups]) for kind in KINDS]
    found = tuple(
        _hazard(kind, ours, users=len(held), share=len(held) / len(wheel))
        for kind, ours in figures
        if np.isfinite(ours).all()
    )
    alarms = [h.name for h in found if h.alarm]
    said = f"Alarm: {', '.join(alarms)}." if alarms else f"None of {len(found)} hazards is shown."
    basis = f"The wheel is compared in groups of {len(held):,} users, as many as the holdback has."
    return Hazards(as_of, found, (said, basis))


def _hazard(kind: Kind, figures: list[float], *, users: int, share: float) -> Hazard:
    """A hazard by its figures, the holdback's first; a group is so large a share of the wheel's users."""
    held, ours = figures[0], float(np.mean(figures[1:]))
    spread = float(np.std(figures[1:], ddof=1)) / math.sqrt(1 - share)
    look = sequences.around(ours - held, spread * math.sqrt(1 + share), users, best_at=users)
    tolerated = NONE * abs(held)
    alarm = look.low > tolerated if kind.harm > 0 else look.high < -tolerated
    difference = Estimate(look.estimate, look.low, look.high)
    told = f"{kind.says}: {_figure(ours)} {kind.unit} against {_figure(held)} in the holdback"
    verdict = "alarm" if alarm else "no harm shown"
    says = f"{told} ({_figure(look.low)} to {_figure(look.high)} more): {verdict}."
    return Hazard(kind.name, kind.unit, ours, held, difference, bool(alarm), says)


def _groups(rows: pd.DataFrame, users: list[npt.NDArray[np.int64]], rng: np.random.Generator) -> list[Group]:
    whose, first = rows["user"].to_numpy(), rows.groupby("item")["day"].min()
    released = first[first > rows["day"].min() + 1]
    end = float(rows["day"].max())
    return [Group(rows[np.isin(whose, some)], len(first), released, end, rng) for some in users]


def catalogue(group: Group) -> float:
    """The effective catalogue: as many items, evenly shown, have this entropy."""
    share = group.rows["item"].value_counts(normalize=True).to_numpy(np.float64)
    return math.exp(-float((share * np.log(share)).sum()))


def gini(group: Group) -> float:
    """Gini's coefficient of exposure over all items that anybody was shown."""
    shown = np.sort(group.rows["item"].value_counts().to_numpy(np.float64))
    counts = np.concatenate([np.zeros(max(0, group.items - len(shown))), shown])
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def first_shown(group: Group) -> float:
    """Days until new items have had their first impressions, the mean; nobody is waited for longer than PATIENCE."""
    due = group.released[group.released <= group.end - PATIENCE]
    if due.empty:
        return math.nan
    new = group.rows[group.rows["item"].isin(due.index)].sort_values("day")
    reached = new.groupby("item")["day"].nth(NEEDED - 1)
    by_item = pd.Series(reached.to_numpy(), index=new.loc[reached.index, "item"].to_numpy()).reindex(due.index)
    return float((by_item - due).fillna(PATIENCE).clip(upper=PATIENCE).mean())


def similarity(group: Group) -> float:
    """Jaccard's similarity of the lists of different users, the mean over random pairs of lists."""
    lists = group.rows.groupby("request", observed=True).agg(user=("user", "first"), items=("item", frozenset))
    user, items = lists["user"].to_numpy(), lists["items"].to_numpy()
    one, other = group.rng.integers(0, len(lists), (2, PAIRS))
    pairs = [(items[a], items[b]) for a, b in zip(one, other, strict=True) if user[a] != user[b]]
    return float(np.mean([len(a & b) / len(a | b) for a, b in pairs])) if pairs else math.nan


def variety(group: Group) -> float:
    """The effective number of items among a user's newest SHOWN rows, the mean over users who have as many."""
    newest = group.rows.sort_values("day").groupby("user").tail(SHOWN)
    counts = newest.groupby(["user", "item"]).size()
    enough = counts.groupby(level=0).sum() == SHOWN
    share = counts[enough.reindex(counts.index.get_level_values(0)).to_numpy()] / SHOWN
    by_user: Floats = (-share * np.log(share)).groupby(level=0).sum().to_numpy()
    return float(np.exp(by_user).mean())


def self_made(group: Group) -> float:
    """The share of rows that were their ranker's own choice, and hardly could have been another."""
    return float((~group.rows["explored"].fillna(True).astype(bool) & (group.rows["propensity"] > SURE)).mean())


KINDS = (
    Kind("effective catalogue", "items", catalogue, -1, "People see as if there were so many items"),
    Kind("exposure Gini", "", gini, 1, "Exposure is as unequal as"),
    Kind(f"new items' first {NEEDED} impressions", "days", first_shown, 1, "New items wait"),
    Kind("similarity of lists", "", similarity, 1, "Lists of different people are as similar as"),
    Kind("variety for a user", "items", variety, -1, f"In {SHOWN} rows a user sees as if there were"),
    Kind("rows the ranker made for itself", "of rows", self_made, 1, "Sure choices of the ranker's own are"),
)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
