"""What a policy would have earned, from what other policies logged with their probabilities.

A row counts by its weight: the probability with which the policy would have shown what was shown, over that with
which it was shown. Inverse propensity scoring (IPS) averages rewards so weighted, SNIPS divides by the mean weight,
and the doubly robust estimate (DR) weighs only what a reward model leaves unexplained, its weights shrunk where that
takes away more variance than it adds bias (Su et al. 2020, optimistic shrinkage). Where weights leave less than 500
rows' worth of evidence, or the policy would have shown what the log never could, there is no number.

Rewards of one user are not independent: intervals rest on users. A few heavy weights make their error hard to tell,
so its degrees of freedom follow from the fourth moment of what users contribute, and the interval of a mean leans to
the side of its skewness; what shrinking may have taken away of the truth is part of the error of DR. Unlike empirical
Bernstein intervals, which hold the truth always and tell nothing, these hold it in 19 of 20 cases
(`tests/benchmarks/offpolicy_coverage.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from flywheel.errors import DataError
from flywheel.evidence import Estimate, OffPolicy, PolicyValue
from flywheel.records import Finding
from flywheel.sections import Gate

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST_EFFECTIVE = 500.0  # rows' worth of evidence; with less, a few rows decide
MOST_UNSUPPORTED = 0.01
ALARM = 4.0  # standard errors by which the mean weight may be off 1 before the propensities are not believed
WRONG_BY = 0.1  # and by how much at least: in a large log a tiny error is seen, and does no harm
NORMAL = 1.96  # standard errors on either side that hold 95 % of a normal distribution
GENTLE = 100.0  # the least λ: weights near 1 cost nothing, and a reward model may be wrong
OFF_POLICY = "off-policy value"


@dataclass(frozen=True, eq=False)
class Log:
    """Rows that policies logged, and what another policy would have done in their place; arrays of shape (rows,).

    Args:
        reward: what came of each row.
        logged: the probability with which what was shown was shown; of several policies, that of their `mixture`.
        target: the probability with which the other policy would have shown it.
        predicted: the reward that a model expects of what was shown; it was not fitted on these rows.
        expected: the reward that it expects of what the other policy would have shown.
        users: to whom, from 0; rows of one user are not independent.
        unsupported: the share of the other policy's choices, here, that were never possible in the log.
        exposure: how much of its reward a row's slot lets through, 1 on average; None where slots are alike. The
            probabilities of a row are then those of a slot through which as much comes (see `measure/slots.py`).
    """

    reward: Floats
    logged: Floats
    target: Floats
    predicted: Floats
    expected: Floats
    users: Codes
    unsupported: Floats
    exposure: Floats | None = None

    @property
    def weights(self) -> Floats:
        """How much each row counts."""
        return self.target / self.logged

    @property
    def mass(self) -> Floats:
        """The weight of each row and its slot: 1 on average, if the probabilities are right."""
        return self.weights if self.exposure is None else self.weights * self.exposure


def mixture(propensities: Floats, generations: Codes) -> Floats:
    """The probability with which any of the logging generations would have shown what was shown, shape (rows,).

    Weights over the mixture are bounded by whichever generation explored (balanced weights, Agarwal et al. 2017).

    Args:
        propensities: of each generation for each row, shape (generations, rows).
        generations: which of them logged each row.

    >>> mixture(np.array([[0.9, 0.9], [0.1, 0.1]]), np.array([0, 1]))
    array([0.5, 0.5])
    """
    share = np.bincount(generations, minlength=len(propensities)) / len(generations)
    return np.asarray(share @ propensities)


def value(log: Log, policy: str) -> OffPolicy:
    """What the policy would have earned per row, or why nobody can tell.

    Raises:
        DataError: the rows are of one user, or there are none.
    """
    if len(np.unique(log.users)) < 2:
        raise DataError(f"{len(log.users):,} rows of one user say nothing about others", next="wait for more decisions")
    mass = log.mass
    effective, unsupported = effective_rows(mass), float(log.unsupported.mean())
    mean_weight = interval(mass, log.users)
    refused = _refused(effective, unsupported, mean_weight)
    logged = interval(log.reward, log.users)
    found = () if refused else estimates(log)
    gain = None if refused else _robust(log, log.reward)
    return OffPolicy(
        policy=policy,
        rows=len(log.reward),
        logged=logged,
        values=found,
        gain=gain,
        model_alone=float(log.expected.mean()),
        effective=effective,
        largest_weight=float(mass.max() / mass.sum()) if mass.any() else 1.0,
        unsupported=unsupported,
        mean_weight=mean_weight,
        refused=refused,
        says=(*_says(policy, logged, found, gain, refused), *_wants(effective, len(log.reward))),
    )


def estimates(log: Log) -> tuple[PolicyValue, ...]:
    """IPS, SNIPS and DR, refused or not."""
    weights, mass = log.weights, log.mass
    ratio = float(weights @ log.reward / mass.sum())
    return (
        PolicyValue("ips", interval(weights * log.reward, log.users)),
        PolicyValue("snips", interval(ratio + (weights * log.reward - mass * ratio) / mass.mean(), log.users, mass)),
        PolicyValue("dr", _robust(log, np.zeros(len(log.reward)))),
    )


def effective_rows(weights: Floats) -> float:
    """As how many rows of equal weight these count (Kish's effective sample size).

    >>> effective_rows(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / max(float(weights @ weights), 1e-300))


def shrunk(log: Log) -> Floats:
    """The weights of DR: `w · λ / (w² + λ)`, for the λ with the least variance and squared bias, as far as can be told.

    A large λ leaves weights as they are, a small one trusts the reward model where they are large (Su et al. 2020,
    section 4).
    """
    weights = log.weights
    trials = [weights, *(weights * strength / (weights**2 + strength) for strength in _strengths(weights))]
    return min(trials, key=lambda trial: _error(_doubly(log, trial), log.users) ** 2 + max(_bias(log, trial)))


def interval(contributions: Floats, users: Codes, counts: Floats | None = None, *, unseen: float = 0.0) -> Estimate:
    """The mean of what rows contribute, with its 95 % interval.

    Args:
        contributions: of each row, shape (rows,).
        users: whose row it is, shape (rows,).
        counts: how much each row counts in an estimate that is a ratio, shape (rows,); without them, it is a mean.
        unseen: a squared error that contributions do not show.
    """
    mean = float(contributions.mean())
    totals, freedom = _totals(contributions - mean, users, counts)
    error = math.sqrt(float(totals @ totals) + unseen)
    reach = float(stdtrit(freedom, 0.975)) * error
    middle = mean + (_leaning(totals, error) * error if counts is None else 0.0)
    return Estimate(mean, middle - reach, middle + reach)


def finding(found: OffPolicy, policy: Gate) -> Finding:
    """What the gate is told. Only harm that is shown fails: the policy earns less than the log by more than the margin.

    The margin is the gate's, as a share of what was earned. A refusal is "not enough evidence".
    """
    bound = -policy.margin * abs(found.logged.value)
    if found.gain is None:
        return Finding(OFF_POLICY, "not enough evidence", np.nan, bound, found.rows, f"{OFF_POLICY}: {found.refused}")
    status, said = "not enough evidence", "is not ruled out"
    if found.gain.high < bound:
        status, said = "fail", "is shown"
    elif found.gain.low > bound:
        status, said = "pass", "is ruled out"
    detail = f"{OFF_POLICY}: {found.says[0]}; a loss beyond {policy.margin:.1%} of what was earned {said}"
    return Finding(OFF_POLICY, status, found.gain.low, bound, found.rows, detail)  # type: ignore[arg-type]


def _robust(log: Log, against: Floats) -> Estimate:
    """What the policy earns more than is given for each row, by DR."""
    weights = shrunk(log)
    return interval(_doubly(log, weights) - against, log.users, unseen=sum(_bias(log, weights)) / 2)


def _doubly(log: Log, weights: Floats) -> Floats:
    return log.expected + weights * (log.reward - log.predicted)


def _bias(log: Log, weights: Floats) -> tuple[float, float]:
    """The squared bias of shrunk weights as the log shows it, and the squared error with which it does.

    Weights are shrunk only where the larger is worth it. What is chosen for a small bias has more of it than is seen:
    an interval takes the mean of both for it, which holds the truth as often as it says.
    """
    lost = (log.weights - weights) * (log.reward - log.predicted)
    return float(lost.mean()) ** 2, _error(lost, log.users) ** 2


def _refused(effective: float, unsupported: float, mean_weight: Estimate) -> str:
    if unsupported > MOST_UNSUPPORTED:
        return f"{unsupported:.1%} of its choices were never possible in the log; at most {MOST_UNSUPPORTED:.0%} may be"
    if effective < LEAST_EFFECTIVE:
        return f"what it would have shown was shown too rarely: {effective:,.0f} rows' worth, of {LEAST_EFFECTIVE:,.0f}"
    off = mean_weight.value - 1
    error = (mean_weight.high - mean_weight.low) / 4
    if abs(off) > max(WRONG_BY, ALARM * error):
        return f"the mean weight is {mean_weight.value:.2f} and not 1: these are not the log's probabilities"
    return ""


def _says(
    policy: str, logged: Estimate, found: Sequence[PolicyValue], gain: Estimate | None, refused: str
) -> tuple[str, ...]:
    if gain is None:
        return (f"nobody can tell what {policy} would have earned: {refused}",)
    robust = found[-1].value
    verdict = "more" if gain.low > 0 else "less" if gain.high < 0 else "no clear difference"
    first = (
        f"{policy} would have earned {robust.value:.4f} a slot (95 % {robust.low:.4f} to {robust.high:.4f}), where the "
        f"log earned {logged.value:.4f}: {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), {verdict}"
    )
    return (first,)


def _wants(effective: float, rows: int) -> tuple[str, ...]:
    """What it would take, where too few rows count."""
    if effective >= LEAST_EFFECTIVE:
        return ()
    needed = float(f"{rows * LEAST_EFFECTIVE / max(effective, 1.0):.1e}")
    return (f"an exam of about {needed:,.0f} slots like these would do, or more exploration: flywheel explore",)


def _strengths(weights: Floats) -> Floats:
    """The λ to choose from: from hardly any shrinkage down to where no weight is above 5 and those of 1 stay."""
    return np.geomspace(GENTLE, max(100 * float(weights.max(initial=0)) ** 2, GENTLE), 25)


def _error(contributions: Floats, users: Codes) -> float:
    totals, _ = _totals(contributions - contributions.mean(), users, None)
    return math.sqrt(float(totals @ totals))


def _leaning(totals: Floats, error: float) -> float:
    """By how many errors the interval of a mean lies beyond it, because what users contribute is skewed.

    A mean that has missed the rare large contributions is too low, and so is the error that it shows: the truth is more
    often above than below (Johnson 1978, the modified t, solved for an interval of 95 %).
    """
    skewness = float(np.sum(totals**3)) / error**3 if 0 < error < math.inf else 0.0
    return skewness * (1 + 2 * NORMAL**2) / 6


def _totals(influence: Floats, users: Codes, counts: Floats | None) -> tuple[Floats, float]:
    """What each user contributes to the estimate's error, and the degrees of freedom of their sum of squares.

    The variance is bias-reduced by each user's share (Bell and McCaffrey 2002), as the exam's is. Its degrees of
    freedom are Satterthwaite's: twice its square over its variance, by the fourth moment of what users contribute.
    """
    share = np.bincount(users, counts).astype(np.float64)
    share /= share.sum()
    if share.max() >= 1:
        return np.array([np.inf]), 1.0
    totals = np.bincount(users, influence) / len(influence) / np.sqrt(1 - share)
    square = float(totals @ totals)
    if square == 0:
        return totals, 1.0
    spread = float(np.sum(totals**4)) / square**2 - 1 / len(totals)
    return totals, min(1 / float(share @ share), max(2.0, 2 / max(spread, 1e-9)))
