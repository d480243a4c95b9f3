"""Promise 5: whatever is missing or not finite, and wherever, the gate does not promote."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flywheel.learn.gate import decide
from flywheel.learn.history import History
from flywheel.records import Comparison, Evaluation, Finding, Interval, Slice
from flywheel.sections import Gate

LOADS = Finding("servable", "pass", 0.0, 1e-6, 100, "100 golden rows score as they did")
not_finite = st.sampled_from([math.nan, math.inf, -math.inf])
small = st.floats(-0.2, 0.2)


@st.composite
def comparisons(draw, metric="auc", gain=small):
    estimate, se = draw(gain), draw(st.floats(0, 0.1))
    champion = draw(st.floats(0.4, 0.7))
    rows, users = draw(st.integers(0, 100_000)), draw(st.integers(0, 5_000))
    interval = Interval(estimate, estimate - 2 * se, estimate + 2 * se, se, rows, users)
    return Comparison(metric, champion + estimate, champion, interval)


@st.composite
def evaluations(draw, metric="auc"):
    overall = draw(comparisons(metric))
    errors = st.floats(0, 0.1)
    sides = [{metric: value, "calibration_error": draw(errors)} for value in (overall.challenger, overall.champion)]
    slices = tuple(
        Slice("device", str(n), found.difference.rows, found.difference.users, found)
        for n, found in enumerate(draw(st.lists(comparisons(metric), max_size=3)))
    )
    return Evaluation(overall.difference.rows, overall.difference.users, *sides, overall, slices)


@st.composite
def winners(draw):
    """Exams that promote."""
    gain = draw(st.floats(0.05, 0.2))
    interval = Interval(gain, gain - 0.01, gain + 0.01, 0.005, draw(st.integers(500, 10**6)), 100)
    overall = Comparison("auc", 0.6 + gain, 0.6, interval)
    sides = [{"auc": value, "calibration_error": 0.01} for value in (0.6 + gain, 0.6)]
    part = Slice("device", "tv", 1000, 100, overall)
    return Evaluation(interval.rows, 100, *sides, overall, (part,))


def decided(evaluation, servable=LOADS, policy=None, generation=1, history=None):
    known = history or History(ancestor=generation)
    return decide(
        evaluation, policy or Gate(), kind="binary", servable=servable, champion_generation=generation, history=known
    )


def spoil_overall(evaluation, field, value):
    return replace(evaluation, overall=replace(evaluation.overall, **{field: value}))


def spoil_interval(evaluation, field, value):
    difference = replace(evaluation.overall.difference, **{field: value})
    return replace(evaluation, overall=replace(evaluation.overall, difference=difference))


def spoil_metric(evaluation, side, metric, value):
    return replace(evaluation, **{side: getattr(evaluation, side) | {metric: value}})


def lose_metric(evaluation, side, metric):
    left = {name: value for name, value in getattr(evaluation, side).items() if name != metric}
    return replace(evaluation, **{side: left})


def spoil_slice(evaluation, field, value):
    (part,) = evaluation.slices
    spoilt = replace(part, comparison=replace(part.comparison, **{field: value}))
    return replace(evaluation, slices=(spoilt,))


@st.composite
def spoilt(draw):
    """An exam that would promote, with one number in it missing or not finite, or too few rows or users."""
    evaluation, value = draw(winners()), draw(not_finite)
    side = draw(st.sampled_from(["challenger", "champion"]))
    metric = draw(st.sampled_from(["auc", "calibration_error"]))
    field = draw(st.sampled_from(["estimate", "low", "high", "se"]))
    return draw(
        st.sampled_from(
            [
                spoil_overall(evaluation, side, value),
                spoil_interval(evaluation, field, value),
                spoil_metric(evaluation, side, metric, value),
                lose_metric(evaluation, side, metric),
                spoil_slice(evaluation, side, value),
                replace(evaluation, rows=draw(st.integers(0, 499))),
                replace(evaluation, users=draw(st.integers(1, 49))),
            ]
        )
    )


@given(winners(), spoilt(), st.integers(0, 3))
def test_promise_5_the_gate_fails_closed(winner, evaluation, generation):
    assert decided(winner, generation=generation).decision == "promote"
    assert decided(evaluation, generation=generation).decision != "promote"
    assert decided(winner, servable=None, generation=generation).decision == "reject"
    unseen = History(generation + 1)  # an ancestor that is not the champion, and nobody compared with
    assert decided(winner, generation=generation, history=unseen).decision == "keep"
    assert decided(winner, generation=generation, history=History(generation, uses=20)).decision == "keep"


@given(evaluations())
def test_whatever_promotes_has_earned_it(evaluation):
    verdict = decided(evaluation)
    policy, difference = Gate(), evaluation.overall.difference
    if verdict.decision == "promote":
        assert difference.low > -policy.margin
        assert difference.estimate > 0
        assert evaluation.rows >= policy.min_rows
        assert evaluation.users == 0 or evaluation.users >= policy.min_users
        assert all(finding.status != "fail" for finding in verdict.findings)


@given(evaluations(), st.floats(0.001, 0.2))
def test_a_larger_gain_never_turns_a_promotion_down(evaluation, more):
    def shifted(found):
        interval = found.difference
        moved = replace(interval, estimate=interval.estimate + more, low=interval.low + more, high=interval.high + more)
        return replace(found, challenger=found.challenger + more, difference=moved)

    better = replace(
        spoil_metric(evaluation, "challenger", "auc", evaluation.challenger["auc"] + more),
        overall=shifted(evaluation.overall),
        slices=tuple(replace(part, comparison=shifted(part.comparison)) for part in evaluation.slices),
    )
    order = {"reject": 0, "keep": 1, "promote": 2}
    assert order[decided(better).decision] >= order[decided(evaluation).decision]


@given(evaluations(), st.integers(0, 3))
def test_every_verdict_says_why_in_one_line(evaluation, generation):
    verdict = decided(evaluation, generation=generation)
    assert verdict.reason
    assert "\n" not in verdict.reason
    assert verdict == decided(evaluation, generation=generation)
