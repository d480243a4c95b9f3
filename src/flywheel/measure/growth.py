"""The loop gain G: what share of a shock in users comes back as more users, by way of data and quality.

Definitions. A span is some turns, up to the newest; `one turn` is the newest alone, `so far` is all since the first
champion. Over a span, with everything else as it was,

    ε₁ = ∂ln D / ∂ln U    training rows after it, by users during it. One user in a hundred more brings one row in a
                          hundred more of the new rows, and none of the old: the share of D that is new in the span.
    ε₂ = ∂ln Q / ∂ln D    reward per shown row, by training rows.
    ε₃ = ∂ln U / ∂ln Q    users, by the quality that they have been living with. In one turn: of those seen in a
                          turn, the share seen in the next, over all turns since the first champion. So far: of all
                          seen since the first champion, the share seen in a turn of the newest third.
    G  = ε₁ · ε₂ · ε₃

G of one turn says how fast the wheel feeds itself. G so far says how much of lasting growth it has given back by now:
what would have been 100 users more is 100 / (1 − G). Above 1 it needs no push, so the verdict is about this one.

Identification. ε₃ is a Wald ratio: the difference of ln U between the wheel's users and the holdback over that of
ln Q, both by a salted hash, so nothing else differs. It is the slope from the baseline's lists to the champion's, the
mean over that distance, and where returns diminish more than the slope at the champion's end. ε₂ comes from a curve
or an ablation, whose metric is not on a ratio scale; the holdback translates it. A point of the metric is taken to be
worth, in ln Q, what it is worth on the way from the baseline to the champion: ε₂ = ∂M/∂ln D · Δln Q / ΔM, with both
models on the same exams. So Δln Q stands in ε₂ and again under ε₃: in G it cancels, and G is the effect on users for
each point of the metric, times points for more data.

Whoever is told by a contented user is hashed afresh, and may fall into either arm: what word of mouth brings is in
both, so G counts retention alone and is a lower bound. What the arms share (catalogue, popularity) leaks in the same
direction.

Intervals are Monte Carlo: sums over users are drawn jointly from their normal law with Student tails (the user is the
cluster), slopes from theirs. A ratio is not formed where its denominator is within three standard errors of 0
(Fieller's interval would be unbounded or wide): then that is what is said.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from flywheel.evidence import Estimate, Turning

DRAWS = 4000
STRONG = 3.0  # standard errors from 0, for what is divided by
TIGHT = 0.1  # a gain so far that is surely smaller than this moves nothing
FEWEST = 30  # users of an arm

Floats = npt.NDArray[np.float64]


class Slope(NamedTuple):
    """Points of an exam's metric, more is better: for e times the rows, and from the baseline to the champion."""

    per_log_rows: float
    se: float
    to_champion: float
    to_champion_se: float


@dataclass(frozen=True)
class Factors:
    """The three elasticities over a span, and their product; None where the evidence does not reach."""

    data_per_user: Estimate
    quality_per_data: Estimate | None
    users_per_quality: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True)
class Growth:
    """What the arms and the curve say together. `quality` is Δln Q; `weak` says what was too weak to divide by."""

    turns: int
    holdback_users: int
    quality: Estimate
    one_turn: Factors
    so_far: Factors
    users_added: Estimate
    weak: str


def measure(seen: pd.DataFrame, *, since: int, rows_before: int, slope: Slope | None, seed: int = 0) -> Growth | None:
    """Measure the factors and their product; None where either arm has too few users to say anything.

    Args:
        seen: one row for each user and turn in which they were seen: `user` and `turn` (whole numbers), `wheel`
            (False for the holdback), `rows`, `reward` (the sum of labels). The newest turn is whole.
        since: the first turn that a champion served.
        rows_before: training rows of users outside `seen`, or of turns before it.
        slope: what data buys on the exam; None where nobody has measured it.
        seed: of the draws.
    """
    last = int(seen["turn"].max())
    rows = rows_before + int(seen["rows"].sum())
    seen = seen[seen["turn"] >= since]
    recent = (last - since + 3) // 3
    arms = [_sums(seen[seen["wheel"] == wheel], last, recent) for wheel in (True, False)]
    if min(map(len, arms)) < FEWEST or last <= since or any((arm.sum(axis=0) <= 0).any() for arm in arms):
        return None
    rng = np.random.default_rng([seed, *b"gain"])
    drawn = [_draw(arm, rng) for arm in arms]
    quality, kept, still = (_contrast(drawn, *columns) for columns in ((5, 4), (1, 0), (2, 3)))
    slopes = None if slope is None else _slopes(slope, rng)
    weak = _weak(quality, slopes)
    share = [_share(seen[seen["turn"] >= first], rows, rng) for first in (last, since)]
    return Growth(
        turns=last - since + 1,
        holdback_users=len(arms[1]),
        quality=_estimate(quality),
        one_turn=_factors(share[0], kept, quality, slopes, weak),
        so_far=_factors(share[1], still, quality, slopes, weak),
        users_added=_estimate(len(arms[0]) * (_part(drawn[0], 2, 3) - _part(drawn[1], 2, 3))),
        weak=weak,
    )


def verdict(gain: Estimate | None) -> Turning:
    """What a gain so far comes to, by its interval.

    >>> verdict(Estimate(0.3, 0.1, 0.5)), verdict(Estimate(0.01, -0.02, 0.04)), verdict(Estimate(0.3, -0.1, 0.7))
    ('amplifying', 'decoration', 'not enough evidence')
    """
    if gain is None:
        return "not enough evidence"
    if gain.low >= 1:
        return "compounding"
    if gain.low > 0:
        return "amplifying"
    if gain.high < 0:
        return "reversing"
    return "decoration" if max(-gain.low, gain.high) < TIGHT else "not enough evidence"


def binding(growth: Growth | None) -> str:
    """Which factor holds the product down: one that cannot be told from 0, else the smallest; or the evidence.

    All three are shares for a share, so that they can be compared as they are.
    """
    if growth is None or growth.so_far.gain is None:
        return "evidence"
    factors = growth.so_far
    named = {
        "data per user": factors.data_per_user,
        "quality per data": factors.quality_per_data,
        "users per quality": factors.users_per_quality,
    }
    known = {name: factor for name, factor in named.items() if factor is not None}
    doubtful = {name: factor for name, factor in known.items() if factor.low <= 0}
    if doubtful and verdict(factors.gain) == "not enough evidence":
        return "evidence"
    return min(doubtful or known, key=lambda name: known[name].value)


def multiplier(gain: Estimate) -> Estimate | None:
    """By how much the loop multiplies growth from outside, 1 / (1 − G); None where G may be 1 or more.

    >>> multiplier(Estimate(0.5, 0.0, 0.75))
    Estimate(value=2.0, low=1.0, high=4.0)
    """
    return Estimate(*(1 / (1 - g) for g in (gain.value, gain.low, gain.high))) if gain.high < 1 else None


def slope_at_end(rows: Floats, quality: Floats, se: Floats) -> tuple[float, float] | None:
    """What e times the rows are worth at the end of a learning curve, and its standard error; None for one point.

    The line through what lies within a quarter of all rows, weighted by precision; where a curve flattens out this is
    a little more than the slope at the very end. Scatter beyond the points' own errors widens it.

    >>> slope_at_end(np.array([1e3, 2e3, 4e3]), np.array([0.70, 0.71, 0.72]), np.full(3, 0.001))[0].__round__(5)
    0.01443
    """
    near = rows >= rows.max() / 4
    if near.sum() < 2:
        return None
    weight = 1 / np.maximum(se[near], 1e-9) ** 2
    x, y = np.log(rows[near]), quality[near]
    x = x - np.average(x, weights=weight)
    spread = float(weight @ x**2)
    slope = float(weight @ (x * y)) / spread
    off = y - np.average(y, weights=weight) - slope * x
    scatter = float(weight @ off**2) / max(1, int(near.sum()) - 2)
    return slope, float(np.sqrt(max(1.0, scatter) / spread))


def _sums(seen: pd.DataFrame, last: int, recent: int) -> Floats:
    """For each user of an arm: turns before the newest, how many of these were followed by a next one, in what
    share of the `recent` newest they were seen, 1, rows, reward; shape (users, 6)."""
    place = seen["user"].to_numpy(np.int64) * (last + 2) + seen["turn"].to_numpy(np.int64)
    before = seen["turn"].to_numpy() < last
    columns = {
        "at_risk": before,
        "kept": before & np.isin(place + 1, place),
        "still": (seen["turn"].to_numpy() > last - recent) / recent,
        "rows": seen["rows"].to_numpy(),
        "reward": seen["reward"].to_numpy(),
    }
    found = pd.DataFrame(columns).astype(np.float64).groupby(seen["user"].to_numpy()).sum()
    found.insert(3, "one", 1.0)
    return found.to_numpy()


def _draw(arm: Floats, rng: np.random.Generator) -> Floats:
    """Means over users as they might have come out, the first as they did; shape (1 + DRAWS, columns)."""
    users, columns = arm.shape
    spread = np.cov(arm, rowvar=False) / users
    values, vectors = np.linalg.eigh(spread)
    normal = rng.normal(size=(DRAWS, columns)) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    tails = np.sqrt((users - 1) / rng.chisquare(users - 1, (DRAWS, 1)))
    centre = arm.mean(axis=0)
    return np.vstack([centre, np.maximum(centre + normal * tails, 1e-3 * centre)])


def _part(drawn: Floats, above: int, below: int) -> Floats:
    return np.asarray(drawn[:, above] / drawn[:, below])


def _contrast(drawn: list[Floats], above: int, below: int) -> Floats:
    """The logarithm of a ratio, the wheel's less the holdback's."""
    return np.asarray(np.log(_part(drawn[0], above, below)) - np.log(_part(drawn[1], above, below)))


def _share(new: pd.DataFrame, rows: int, rng: np.random.Generator) -> Floats:
    by_user = new.groupby("user")["rows"].sum().to_numpy(np.float64)
    drawn = by_user.sum() + np.sqrt(by_user @ by_user) * rng.normal(size=DRAWS)
    return np.clip(np.append(by_user.sum(), drawn) / rows, 0, 1)


def _slopes(slope: Slope, rng: np.random.Generator) -> tuple[Floats, Floats]:
    def drawn(value: float, se: float) -> Floats:
        return np.append(value, value + se * rng.normal(size=DRAWS))

    return drawn(slope.per_log_rows, slope.se), drawn(slope.to_champion, slope.to_champion_se)


def _weak(quality: Floats, slopes: tuple[Floats, Floats] | None) -> str:
    """What is too near to 0 to be divided by."""
    if abs(quality[0]) < STRONG * quality[1:].std():
        return "the reward of the wheel's rows is too near to that of the holdback's to tell what a difference does"
    if slopes is None:
        return "nobody has measured yet what more data does to quality"
    if slopes[1][0] < STRONG * slopes[1][1:].std():
        return "the champion is not clearly better than the baseline on the exams, so that more cannot be weighed"
    return ""


def _factors(share: Floats, users: Floats, quality: Floats, slopes: tuple[Floats, Floats] | None, weak: str) -> Factors:
    told = abs(quality[0]) >= STRONG * quality[1:].std()
    response = _estimate(users / quality) if told else None
    if slopes is None or weak:
        return Factors(_estimate(share), None, response, None)
    points, distance = slopes
    per_data = _estimate(points * quality / distance)
    return Factors(_estimate(share), per_data, response, _estimate(share * points * users / distance))


def _estimate(drawn: Floats) -> Estimate:
    """The value as it came out, first, and the middle 95 % of those that might have."""
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Estimate(float(drawn[0]), float(low), float(high))
