"""What may become champion: one exam in, one verdict with all its evidence out.

The gate fails closed. Only evidence that is there, finite and good enough promotes: a number that is missing or
not finite and a model that nobody could load are refused, an exam that is too small or too close to call keeps
the champion. Nobody is waved through: generation 1 must beat the baseline by the same rule.
"""

from math import floor, inf, isfinite, isnan, log10, nan
from typing import Literal

from scipy.special import ndtr, ndtri

from flywheel.records import Comparison, Evaluation, Finding, Interval, Slice, Verdict
from flywheel.sections import Gate

Kind = Literal["binary", "number"]
Status = Literal["pass", "fail", "not enough evidence"]

UNSURE: Status = "not enough evidence"
SAID: dict[Status, str] = {"pass": "is ruled out", "fail": "is shown", UNSURE: "is not ruled out"}
POWER = 0.8
NAMES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "ndcg": "NDCG",
    "rmse": "RMSE",
    "mae": "MAE",
}
LOWER_IS_BETTER = ("log_loss", "rmse", "mae")
MAY_BE_UNDEFINED = ("auc", "average_precision", "ndcg")  # on a slice of one class


def decide(
    evaluation: Evaluation,
    policy: Gate,
    *,
    kind: Kind,
    servable: Finding | None,
    champion_generation: int,
) -> Verdict:
    """Weigh one exam by the policy; `servable` says whether the stored model loads and scores as it did.

    `reject`: a number is missing or not finite, the model is not servable, or there is evidence of harm, be it
    overall, in calibration or in a slice. `keep`: too few rows or users, or too close to call. `promote`:
    everything passes; a slice that is too small to tell does not stand in the way. The reason is one sentence
    with the figures of the finding that decided. A `champion_generation` of 0 is the baseline.
    """
    metric = policy.metric or ("auc" if kind == "binary" else "rmse")
    hard = (_metrics(evaluation, metric, kind), _servable(servable))
    size = _size(evaluation, policy)
    evidence = (
        _margin(evaluation.overall, policy, champion_generation),
        _superiority(evaluation.overall, policy, champion_generation),
        *(_calibration(evaluation, policy) if kind == "binary" else ()),
    )
    slices = tuple(_slice(part, policy) for part in evaluation.slices)
    findings = (*hard, *size, *evidence, *slices)
    refused = _first("fail", hard)
    if refused is not None:
        return Verdict("reject", refused.detail, findings)
    small = _first(UNSURE, (*hard, *size))
    if small is not None:
        return Verdict("keep", f"not enough evidence: {small.detail}", findings)
    harm = _first("fail", (*evidence, *slices))
    if harm is not None:
        return Verdict("reject", harm.detail, findings)
    unsure = _first(UNSURE, evidence)
    if unsure is not None:
        return Verdict("keep", f"not enough evidence: {unsure.detail}", findings)
    return Verdict("promote", _sentence(evaluation.overall, policy, champion_generation), findings)


def _first(status: Status, findings: tuple[Finding, ...]) -> Finding | None:
    return next((finding for finding in findings if finding.status == status), None)


def _metrics(evaluation: Evaluation, metric: str, kind: Kind) -> Finding:
    """Whether every number that the gate reads is there and finite."""
    overall, rows = evaluation.overall, evaluation.rows
    if overall.metric != metric:
        detail = f"the exam was decided by {_name(overall.metric)}, the policy asks for {_name(metric)}"
        return Finding("metrics", "fail", 1, 0, rows, detail)
    read: dict[str, tuple[float, ...]] = {f"{_name(metric)} difference": (overall.difference.estimate,)}
    sides = (
        ("challenger", overall.challenger, evaluation.challenger),
        ("champion", overall.champion, evaluation.champion),
    )
    for model, compared, metrics in sides:
        read[f"{_name(metric)} of the {model}"] = (compared, metrics.get(metric, nan))
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


def _margin(overall: Comparison, policy: Gate, champion: int) -> Finding:
    """Whether a loss beyond the margin is ruled out, and the difference that this exam could have shown."""
    interval, margin = overall.difference, policy.margin
    status = _against(interval, -margin)
    detectable = float(ndtri(0.5 + policy.confidence / 2) + ndtri(POWER)) * interval.se
    detail = (
        f"{_sentence(overall, policy, champion)}: a loss beyond {_number(margin)} {SAID[status]}; "
        f"with {POWER:.0%} power this exam tells {_number(detectable, _decimals(detectable))} from none"
    )
    return Finding("margin", status, interval.low, -margin, interval.rows, detail)


def _superiority(overall: Comparison, policy: Gate, champion: int) -> Finding:
    """Whether the challenger is better with the probability that the policy asks for."""
    interval = overall.difference
    probability = _probability_better(interval)
    status: Status = "pass" if probability >= policy.superiority else UNSURE
    if _is_known(interval) and interval.high < 0:
        status = "fail"
    detail = (
        f"{_sentence(overall, policy, champion)}: better with probability "
        f"{_number(probability, 2)}; it takes {_number(policy.superiority, 2)}"
    )
    return Finding("superiority", status, probability, policy.superiority, interval.rows, detail)


def _calibration(evaluation: Evaluation, policy: Gate) -> tuple[Finding, ...]:
    ours = evaluation.challenger.get("calibration_error", nan)
    theirs = evaluation.champion.get("calibration_error", nan)
    limit = policy.max_calibration_error
    status: Status = "pass" if ours <= limit or ours <= theirs else "fail"
    detail = (
        f"calibration error {_number(ours)} on {evaluation.rows:,} rows; "
        f"at most {_number(limit)}, or the champion's {_number(theirs)}"
    )
    return (Finding("calibration", status, ours, limit, evaluation.rows, detail),)


def _slice(part: Slice, policy: Gate) -> Finding:
    """Whether the challenger does harm where `column` is `value`; where nobody can tell, that is said."""
    comparison, margin = part.comparison, policy.slice_margin
    status, said = _slice_status(part, policy)
    known = isfinite(comparison.difference.estimate)
    figures = _sentence(comparison, policy) if known else f"{part.rows:,} rows"
    name = f"slice {part.column}={part.value}"
    return Finding(name, status, comparison.difference.low, -margin, part.rows, f"{name}: {figures}: {said}")


def _slice_status(part: Slice, policy: Gate) -> tuple[Status, str]:
    comparison, metric = part.comparison, _name(part.comparison.metric)
    both = (comparison.challenger, comparison.champion)
    if part.rows < policy.slice_min_rows:
        return UNSURE, f"fewer than the {policy.slice_min_rows:,} rows that decide"
    if comparison.metric in MAY_BE_UNDEFINED and all(isnan(value) for value in both):
        return UNSURE, f"{metric} is not defined here"
    if not all(isfinite(value) for value in (*both, comparison.difference.estimate)):
        return "fail", f"{metric} is not a finite number"
    status = _against(comparison.difference, -policy.slice_margin)
    return status, f"a loss beyond {_number(policy.slice_margin)} {SAID[status]}"


def _against(interval: Interval, bound: float) -> Status:
    if not _is_known(interval):
        return UNSURE
    if interval.low > bound:
        return "pass"
    return "fail" if interval.high < bound else UNSURE


def _is_known(interval: Interval) -> bool:
    return all(isfinite(value) for value in (interval.estimate, interval.low, interval.high, interval.se))


def _probability_better(interval: Interval) -> float:
    """P(Δ > 0) of a normal around the estimate; two models that score alike are not better than each other."""
    if not _is_known(interval):
        return nan
    if interval.se == 0:
        return float(interval.estimate > 0)
    return float(ndtr(interval.estimate / interval.se))


def _sentence(comparison: Comparison, policy: Gate, champion: int | None = None) -> str:
    """Both models, the difference and what it rests on, as in `AUC .846 against .831 (+.015, …)`."""
    interval = comparison.difference
    places = _decimals(interval.se)
    against = "the baseline's " if champion == 0 else ""
    gain = "gain " if comparison.metric in LOWER_IS_BETTER else ""
    return (
        f"{_name(comparison.metric)} {_number(comparison.challenger, places)} against "
        f"{against}{_number(comparison.champion, places)} "
        f"({gain}{_number(interval.estimate, places, sign=True)}, {100 * policy.confidence:g} % "
        f"{_number(interval.low, places)} to {_number(interval.high, places)}, {interval.rows:,} rows)"
    )


def _name(metric: str) -> str:
    return NAMES.get(metric, metric)


def _decimals(scale: float) -> int:
    """As many places as show a number of this size, from three to six."""
    return min(6, max(3, -floor(log10(scale)))) if 0 < scale < inf else 3


def _number(value: float, places: int | None = None, *, sign: bool = False) -> str:
    """A number as a person writes it: `.846`, `−.002`, `+.015`."""
    if not isfinite(value):
        return "not a number" if isnan(value) else "infinite"
    text = f"{abs(value):.{places}f}" if places is not None else f"{abs(value):.6f}".rstrip("0").rstrip(".")
    text = text.removeprefix("0") if text.startswith("0.") else text
    return ("−" if value < 0 else "+" if sign else "") + text
