"""Whether a challenger harms anybody: one finding a slice, and one for those too small to be judged one by one.

To promote, every slice that is large enough has to pass: a loss of the slice margin is ruled out (intersection-union:
as all must pass, none is corrected for; Berger 1982). Large enough is a slice whose own standard error gives it the
power to rule such a loss out four times in five where there is none; below that it is "not enough evidence", never
"pass", and does not stand in the way, for else every promotion would wait for the smallest slice. To reject is a
claim of harm, and of many slices one looks harmed by chance: harm is shown where the slices' p-values say so after
Holm (1979), which holds however the slices overlap. What is shown counts in a noisy slice as well.

In 400 simulated exams of 20 slices (`tests/benchmarks/gate_wheels.py`), judging each slice by its own interval alone
let 99 % of generations through that cost a large slice the margin itself; so judged, 10 %. Of generations that harm
nobody 7.5 % wait for an exam more. Of twice the margin on a large slice 75 % are rejected and the rest kept.

Small slices are pooled: their mean, with a standard error that takes them as wholly dependent since they share rows and
users, and the lowest of them after shrinkage towards the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtridf

from flywheel.learn import figures
from flywheel.learn.figures import UNSURE, Status
from flywheel.learn.prior import NOISE
from flywheel.records import Finding, Interval, Slice
from flywheel.sections import Gate

MAY_BE_UNDEFINED = ("auc", "average_precision", "ndcg")  # on a slice of one class
POWER = 0.8
TOGETHER = "small slices"


@dataclass(frozen=True)
class Judged:
    """The findings of all slices; and of these the ones that could have passed and did not."""

    findings: tuple[Finding, ...]
    unsure: tuple[Finding, ...]


def judge(slices: Sequence[Slice], policy: Gate) -> Judged:
    """Weigh every slice by the policy's slice margin."""
    small = [part for part in slices if part.rows and _small(part, policy)]
    pooled = _pooled(small)
    tested = [part.comparison.difference for part in slices if part.rows >= policy.slice_min_rows and _known(part)]
    harm = _harmed([*tested, *([pooled] if pooled else [])], policy)
    findings = tuple(_finding(part, policy, harm) for part in slices)
    strong = [
        finding
        for part, finding in zip(slices, findings, strict=True)
        if finding.status == UNSURE and _known(part) and not _small(part, policy)
    ]
    together = (_together(pooled, small, policy, harm),) if pooled else ()
    return Judged((*findings, *together), tuple(strong))


def _finding(part: Slice, policy: Gate, harm: frozenset[Interval]) -> Finding:
    """Whether the challenger does harm where `column` is `value`; where nobody can tell, that is said."""
    interval = part.comparison.difference
    status, said = _status(part, policy, harm)
    shown = isfinite(interval.estimate)
    told = figures.compared(part.comparison, policy.confidence) if shown else f"{part.rows:,} rows"
    name = f"slice {part.column}={part.value}"
    return Finding(name, status, interval.low, -policy.slice_margin, part.rows, f"{name}: {told}: {said}")


def _status(part: Slice, policy: Gate, harm: frozenset[Interval]) -> tuple[Status, str]:
    comparison, interval = part.comparison, part.comparison.difference
    metric, margin = figures.name(comparison.metric), figures.number(policy.slice_margin)
    both = (comparison.challenger, comparison.champion)
    if part.rows < policy.slice_min_rows:
        return UNSURE, f"fewer than the {policy.slice_min_rows:,} rows that decide"
    if comparison.metric in MAY_BE_UNDEFINED and all(isnan(value) for value in both):
        return UNSURE, f"{metric} is not defined here"
    if not all(isfinite(value) for value in (*both, interval.estimate)):
        return "fail", f"{metric} is not a finite number"
    if interval in harm:
        return "fail", f"a loss beyond {margin} is shown"
    if _known(part) and detectable(interval) > policy.slice_margin:
        return UNSURE, f"{_floor(part, policy)} to tell a loss of {margin} from none"
    if _known(part) and interval.low > -policy.slice_margin:
        return "pass", f"a loss beyond {margin} is ruled out"
    return UNSURE, f"a loss beyond {margin} is not ruled out"


def _known(part: Slice) -> bool:
    interval = part.comparison.difference
    both = (part.comparison.challenger, part.comparison.champion)
    return all(isfinite(n) for n in (*both, interval.estimate, interval.low, interval.high, interval.se))


def _small(part: Slice, policy: Gate) -> bool:
    """Whether a slice with an interval has too few rows, or is too noisy, to be judged alone."""
    if not _known(part):
        return False
    return part.rows < policy.slice_min_rows or detectable(part.comparison.difference) > policy.slice_margin


def detectable(interval: Interval) -> float:
    """The difference that an exam tells from none four times in five: its interval's reach and a little more."""
    return (interval.high - interval.low) / 2 + float(ndtri(POWER)) * interval.se


def _floor(part: Slice, policy: Gate) -> str:
    if policy.slice_margin == 0:
        return "no number of rows is enough"
    rows = part.rows * (detectable(part.comparison.difference) / policy.slice_margin) ** 2
    return f"it takes about {figures.roughly(rows)} such rows"


def _harmed(tested: Sequence[Interval], policy: Gate) -> frozenset[Interval]:
    """The differences that are shown to be losses beyond the margin, by Holm's step-down over all of them."""
    ordered = sorted(tested, key=lambda interval: _p_value(interval, policy))
    level = (1 - policy.confidence) / 2
    shown = []
    for place, interval in enumerate(ordered):
        if not _p_value(interval, policy) <= level / (len(ordered) - place):
            break
        shown.append(interval)
    return frozenset(shown)


def _p_value(interval: Interval, policy: Gate) -> float:
    """Of no loss beyond the margin, one-sided, by the t distribution whose quantile made the interval."""
    if interval.se < NOISE:
        return float(interval.estimate >= -policy.slice_margin)
    t = (interval.estimate + policy.slice_margin) / interval.se
    upper = 0.5 + policy.confidence / 2
    quantile = (interval.high - interval.low) / 2 / interval.se
    if quantile <= ndtri(upper) * 1.0005:  # more than a thousand degrees of freedom: the normal itself
        return float(ndtr(t))
    return float(stdtr(stdtridf(upper, quantile), t))


def _pooled(small: Sequence[Slice]) -> Interval | None:
    """The mean of small slices, weighted by their rows; None where there are fewer than two."""
    if len(small) < 2:
        return None
    parts = [part.comparison.difference for part in small]
    weights = np.array([part.rows for part in small]) / sum(part.rows for part in small)
    mean, se = (float(weights @ [getattr(part, field) for part in parts]) for field in ("estimate", "se"))
    reach = float(weights @ [(part.high - part.low) / 2 for part in parts])
    return Interval(mean, mean - reach, mean + reach, se, max(part.rows for part in small), 0)


def _together(pooled: Interval, small: Sequence[Slice], policy: Gate, harm: frozenset[Interval]) -> Finding:
    parts = [part.comparison.difference for part in small]
    margin = policy.slice_margin
    estimates, noises = (np.array([getattr(one, field) for one in parts]) for field in ("estimate", "se"))
    spread = max(0.0, float(np.var(estimates, ddof=1) - np.mean(noises**2)))  # DerSimonian and Laird 1986
    shrunk = pooled.estimate + spread / (spread + noises**2 + NOISE**2) * (estimates - pooled.estimate)
    lowest = int(np.argmin(shrunk))
    status: Status = "fail" if pooled in harm else UNSURE
    detail = (
        f"{len(parts)} slices too small to be judged alone, of at most {pooled.rows:,} rows: together "
        f"{figures.number(pooled.estimate, figures.decimals(pooled.se), sign=True)} "
        f"({figures.bounds(pooled, policy.confidence)}), the lowest after shrinkage {small[lowest].column}="
        f"{small[lowest].value} {figures.number(shrunk[lowest], figures.decimals(pooled.se), sign=True)}: "
        f"a loss beyond {figures.number(margin)} {'is shown' if status == 'fail' else 'is not shown'}"
    )
    return Finding(TOGETHER, status, pooled.low, -margin, pooled.rows, detail)
