"""What may become champion: one exam in, one verdict with all its evidence out.

The gate fails closed. Only evidence that is there, finite and good enough promotes: a number that is missing or
not finite and a model that nobody could load are refused, an exam that is too small or too close to call keeps
the champion. Nobody is waved through: generation 1 must beat the baseline by the same rule.

A challenger is promoted if on the same rows (a) a loss beyond the margin is ruled out, against the champion and
against the ancestor (`history`); (b) it is better with the probability that the policy asks for, its difference
shrunk by what past generations teach (`prior`), and more of it where the exam was used before; (c) no slice that is
large enough to tell may be harmed (`slices`). The error of each decision is bounded, not that of all decisions ever
made: sharing 5 % among all generations starves the wheel and leaves as much quality unserved as a gate that errs.
`tests/benchmarks/gate_wheels.py` turns this rule and simpler ones a thousand times in worlds whose truth is known.
"""

from math import isfinite, nan
from typing import Literal

from flywheel.learn import figures, slices
from flywheel.learn.figures import UNSURE, Status, number
from flywheel.learn.history import History, probability
from flywheel.learn.prior import Belief, believe
from flywheel.records import Comparison, Evaluation, Finding, Interval, Verdict
from flywheel.sections import Gate

Kind = Literal["binary", "number"]

SAID: dict[Status, str] = {"pass": "is ruled out", "fail": "is shown", UNSURE: "is not ruled out"}
ANEW = "the wheel starts anew from a generation promoted by hand: flywheel promote N --why REASON"


def decide(
    evaluation: Evaluation,
    policy: Gate,
    *,
    kind: Kind,
    servable: Finding | None,
    champion_generation: int,
    history: History,
    beside: tuple[Finding, ...] = (),
) -> Verdict:
    """Weigh one exam by the policy; `servable` says whether the stored model loads and scores as it did.

    `beside` is what was found by other means than the exam, such as the value from logged propensities: it may show
    harm, and where it cannot tell it does not stand in the way.

    `reject`: a number is missing or not finite, the model is not servable, or there is evidence of harm, be it
    overall, in calibration or in a slice. `keep`: too few rows or users, an exam that is used up, or too close to
    call. `promote`: everything passes; a slice that is too small to tell does not stand in the way. The reason is one
    sentence with the figures of the finding that decided. A `champion_generation` of 0 is the baseline.
    """
    metric = policy.metric or ("auc" if kind == "binary" else "rmse")
    hard = (_metrics(evaluation, metric, kind), _servable(servable))
    exam = (*_size(evaluation, policy), _fresh(evaluation, policy, history))
    told = figures.compared(
        evaluation.overall, policy.confidence, "the baseline's " if champion_generation == 0 else ""
    )
    evidence = (
        _margin(evaluation.overall, policy, told),
        *_ancestor(history, champion_generation, policy, evaluation.rows),
        _superiority(evaluation.overall, policy, history, champion_generation, told),
        *(_calibration(evaluation, policy) if kind == "binary" else ()),
    )
    parts = slices.judge(evaluation.slices, policy)
    findings = (*hard, *exam, *evidence, *beside, *parts.findings)
    refused = _first("fail", hard)
    if refused is not None:
        return Verdict("reject", refused.detail, findings)
    small = _first(UNSURE, (*hard, *exam))
    if small is not None:
        return Verdict("keep", f"not enough evidence: {small.detail}", findings)
    harm = _first("fail", (*evidence, *beside, *parts.findings))
    if harm is not None:
        return Verdict("reject", harm.detail, findings)
    unsure = _first(UNSURE, (*evidence, *parts.unsure))
    if unsure is not None:
        return Verdict("keep", f"not enough evidence: {unsure.detail}", findings)
    return Verdict("promote", told, findings)


def _first(status: Status, findings: tuple[Finding, ...]) -> Finding | None:
    return next((finding for finding in findings if finding.status == status), None)


def _metrics(evaluation: Evaluation, metric: str, kind: Kind) -> Finding:
    """Whether every number that the gate reads is there and finite."""
    overall, rows, name = evaluation.overall, evaluation.rows, figures.name(metric)
    if overall.metric != metric:
        detail = f"the exam was decided by {figures.name(overall.metric)}, the policy asks for {name}"
        return Finding("metrics", "fail", 1, 0, rows, detail)
    read: dict[str, tuple[float, ...]] = {f"{name} difference": (overall.difference.estimate,)}
    sides = (
        ("challenger", overall.challenger, evaluation.challenger),
        ("champion", overall.champion, evaluation.champion),
    )
    for model, compared, metrics in sides:
        read[f"{name} of the {model}"] = (compared, metrics.get(metric, nan))
        if kind == "binary":
            read[f"calibration error of the {model}"] = (metrics.get("calibration_error", nan),)
    wrong = [what for what, values in read.items() if not all(map(isfinite, values))]
    if wrong:
        detail = f"missing or not finite on {rows:,} exam rows: {', '.join(wrong)}"
        return Finding("metrics", "fail", len(wrong), 0, rows, detail)
    return Finding("metrics", "pass", 0, 0, rows, "every metric read is there and finite")


def _servable(servable: Finding | None) -> Finding:
    if servable is None:
        return Finding("servable", "fail", nan, nan, 0, "nobody has loaded the stored model and scored rows with it")
    if servable.status == "pass" and not isfinite(servable.value):
        detail = f"the check of the stored model found {servable.value}: {servable.detail}"
        return Finding(servable.name, "fail", servable.value, servable.threshold, servable.n, detail)
    return servable


def _size(evaluation: Evaluation, policy: Gate) -> tuple[Finding, ...]:
    """Whether the exam is large enough to decide anything; users count only where there are some."""
    sizes = [("rows", evaluation.rows, policy.min_rows)]
    sizes += [("users", evaluation.users, policy.min_users)] if evaluation.users > 0 else []
    return tuple(
        Finding(name, "pass" if n >= least else UNSURE, n, least, n, f"{n:,} exam {name}; it takes {least:,}")
        for name, n, least in sizes
    )


def _fresh(evaluation: Evaluation, policy: Gate, history: History) -> Finding:
    """Whether the exam still tells anything, after all that was decided by it."""
    uses, most = history.uses, policy.exam_uses
    status: Status = UNSURE if uses >= most else "pass"
    said = "1 decision by other settings was" if uses == 1 else f"{uses:,} decisions by other settings were"
    end = "it is used up: wait for newer windows" if uses >= most else "it is used up"
    detail = f"{said} made on these windows; an exam bears {most:,}, then {end}"
    return Finding("exam", status, uses, most, evaluation.rows, detail)


def _margin(overall: Comparison, policy: Gate, told: str) -> Finding:
    """Whether a loss beyond the margin is ruled out, and the difference that this exam could have shown."""
    interval, margin = overall.difference, policy.margin
    status = _against(interval, -margin)
    least = slices.detectable(interval)
    detail = (
        f"{told}: a loss beyond {number(margin)} {SAID[status]}; "
        f"with {slices.POWER:.0%} power this exam tells {number(least, figures.decimals(least))} from none"
    )
    return Finding("margin", status, interval.low, -margin, interval.rows, detail)


def _ancestor(history: History, champion: int, policy: Gate, rows: int) -> tuple[Finding, ...]:
    """Whether the challenger is no worse than the ancestor either; where that is the champion, `margin` has said so."""
    if history.ancestor == champion:
        return ()
    who = f"generation {history.ancestor}" if history.ancestor else "the baseline"
    if history.against is None:
        why = history.absent or "nobody has compared the challenger with it"
        detail = f"the ancestor, {who}, did not sit the exam: {why}; {ANEW}"
        return (Finding("ancestor", UNSURE, nan, -policy.margin, rows, detail),)
    interval = history.against.difference
    status = _against(interval, -policy.margin)
    told = figures.compared(history.against, policy.confidence, f"{who}'s ")
    detail = f"the ancestor: {told}: a loss beyond {number(policy.margin)} {SAID[status]}"
    return (Finding("ancestor", status, interval.low, -policy.margin, interval.rows, detail),)


def _superiority(overall: Comparison, policy: Gate, history: History, champion: int, told: str) -> Finding:
    """Whether the challenger is better with the probability that the policy asks for."""
    interval = overall.difference
    belief = believe(interval, champion, history.past) if _is_known(interval) else Belief(nan, nan, 0)
    asked = probability(policy.superiority, history.uses)
    status: Status = "pass" if belief.better >= asked else UNSURE
    if _is_known(interval) and interval.high < 0:
        status = "fail"
    shrunk = number(belief.mean, figures.decimals(interval.se), sign=True)
    prior = f"{shrunk} as {belief.past} past exams shrink it, " if belief.past else ""
    detail = f"{told}: {prior}better with probability {number(belief.better, 2)}; it takes {number(asked, 2)}"
    return Finding("superiority", status, belief.better, asked, interval.rows, detail)


def _calibration(evaluation: Evaluation, policy: Gate) -> tuple[Finding, ...]:
    ours = evaluation.challenger.get("calibration_error", nan)
    theirs = evaluation.champion.get("calibration_error", nan)
    limit = policy.max_calibration_error
    status: Status = "pass" if ours <= limit or ours <= theirs else "fail"
    detail = (
        f"calibration error {number(ours)} on {evaluation.rows:,} rows; "
        f"at most {number(limit)}, or the champion's {number(theirs)}"
    )
    return (Finding("calibration", status, ours, limit, evaluation.rows, detail),)


def _against(interval: Interval, bound: float) -> Status:
    if not _is_known(interval):
        return UNSURE
    if interval.low > bound:
        return "pass"
    return "fail" if interval.high < bound else UNSURE


def _is_known(interval: Interval) -> bool:
    return all(isfinite(value) for value in (interval.estimate, interval.low, interval.high, interval.se))
