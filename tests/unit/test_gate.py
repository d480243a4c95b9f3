"""The gate as a truth table: one test for each direction and each side of each threshold."""

import math
from dataclasses import replace

import pytest

from flywheel.learn.gate import decide
from flywheel.learn.history import History
from flywheel.learn.prior import Met
from flywheel.records import Comparison, Evaluation, Finding, Interval, Slice
from flywheel.sections import Gate

LOADS = Finding("servable", "pass", 0.0, 1e-6, 100, "100 golden rows score as they did")
BROKEN = Finding("servable", "fail", 0.2, 1e-6, 100, "golden row 3 scores .41, it scored .61")
UNTRIED = Finding("servable", "not enough evidence", math.nan, 1e-6, 0, "there are no golden rows")
POLICY = Gate()


def comparison(gain=0.015, se=0.0015, *, metric="auc", champion=0.831, rows=34_001, users=900):
    sign = -1 if metric in ("log_loss", "rmse", "mae") else 1
    interval = Interval(gain, gain - 1.96 * se, gain + 1.96 * se, se, rows, users)
    return Comparison(metric, champion + sign * gain, champion, interval)


def exam(overall=None, *, rows=34_001, users=900, calibration=(0.01, 0.01), slices=()):
    overall = overall or comparison(rows=rows, users=users)
    sides = [
        {overall.metric: value, "calibration_error": error}
        for value, error in zip((overall.challenger, overall.champion), calibration, strict=True)
    ]
    return Evaluation(rows, users, *sides, overall, tuple(slices))


def part(gain, se=0.005, rows=1000, **figures):
    return Slice("user", "new", rows, 100, comparison(gain, se, rows=rows, **figures))


def verdict(evaluation, policy=POLICY, *, servable=LOADS, kind="binary", champion_generation=3, history=None):
    known = history or History(ancestor=champion_generation)
    return decide(
        evaluation, policy, kind=kind, servable=servable, champion_generation=champion_generation, history=known
    )


def finding(found, name):
    return next(finding for finding in found.findings if finding.name == name)


# all of it together


def test_a_clear_gain_is_promoted_and_the_reason_is_the_figures():
    found = verdict(exam())
    assert found.decision == "promote"
    assert found.reason == "AUC .846 against .831 (+.015, 95 % .012 to .018, 34,001 rows)"


def test_every_finding_has_its_number_threshold_n_and_sentence():
    found = verdict(exam(slices=[part(0.01)]))
    assert [finding.name for finding in found.findings] == [
        "metrics", "servable", "rows", "users", "exam", "margin", "superiority", "calibration", "slice user=new",
    ]  # fmt: skip
    assert all(finding.n > 0 and finding.detail and finding.status == "pass" for finding in found.findings)
    assert finding(found, "margin").value == pytest.approx(0.015 - 1.96 * 0.0015)
    assert finding(found, "margin").threshold == -0.002


def test_all_failures_are_collected_not_just_the_first():
    found = verdict(exam(comparison(-0.02), calibration=(0.2, 0.01), slices=[part(-0.1)]), servable=BROKEN)
    failed = [finding.name for finding in found.findings if finding.status == "fail"]
    assert failed == ["servable", "margin", "superiority", "calibration", "slice user=new"]


def test_the_margin_finding_says_what_difference_the_exam_could_have_shown():
    detail = finding(verdict(exam(comparison(se=0.001))), "margin").detail
    assert detail.endswith("a loss beyond .002 is ruled out; with 80% power this exam tells .003 from none")


# metrics that are missing or not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["challenger", "champion"])
@pytest.mark.parametrize("metric", ["auc", "calibration_error"])
def test_a_metric_that_is_not_finite_is_rejected_first(bad, side, metric):
    evaluation = exam()
    evaluation = replace(evaluation, **{side: getattr(evaluation, side) | {metric: bad}})
    found = verdict(evaluation, servable=BROKEN)
    assert found.decision == "reject"
    said = {"auc": "AUC", "calibration_error": "calibration error"}[metric]
    assert found.reason == f"missing or not finite on 34,001 exam rows: {said} of the {side}"


@pytest.mark.parametrize("side", ["challenger", "champion"])
@pytest.mark.parametrize("metric", ["auc", "calibration_error"])
def test_a_metric_that_is_missing_is_rejected(side, metric):
    evaluation = exam()
    without = {name: value for name, value in getattr(evaluation, side).items() if name != metric}
    assert verdict(replace(evaluation, **{side: without})).decision == "reject"


@pytest.mark.parametrize("field", ["challenger", "champion"])
def test_a_compared_value_that_is_not_finite_is_rejected(field):
    overall = replace(comparison(), **{field: math.nan})
    evaluation = replace(exam(), overall=overall)
    assert verdict(evaluation).decision == "reject"


def test_a_difference_that_is_not_finite_is_rejected():
    overall = replace(comparison(), difference=replace(comparison().difference, estimate=math.inf))
    assert verdict(exam(overall)).reason == "missing or not finite on 34,001 exam rows: AUC difference"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["low", "high", "se"])
def test_an_interval_that_is_not_known_keeps_the_champion(field, bad):
    overall = replace(comparison(), difference=replace(comparison().difference, **{field: bad}))
    found = verdict(exam(overall))
    assert found.decision == "keep"
    assert found.reason.startswith("not enough evidence: AUC .846 against .831")
    assert finding(found, "margin").status == "not enough evidence"
    assert finding(found, "superiority").status == "not enough evidence"


def test_an_exam_on_another_metric_than_the_policys_is_rejected():
    found = verdict(exam(comparison(metric="log_loss")))
    assert found.decision == "reject"
    assert found.reason == "the exam was decided by log loss, the policy asks for AUC"


def test_a_metric_that_the_policy_names_decides():
    policy = Gate(metric="log_loss")
    found = verdict(exam(comparison(metric="log_loss", champion=0.42)), policy)
    assert found.decision == "promote"
    assert found.reason == "log loss .405 against .420 (gain +.015, 95 % .012 to .018, 34,001 rows)"


# servability


def test_a_model_that_nobody_loaded_is_rejected():
    found = verdict(exam(), servable=None)
    assert found.decision == "reject"
    assert found.reason == "nobody has loaded the stored model and scored rows with it"


def test_a_model_that_serves_otherwise_than_it_scored_is_rejected():
    found = verdict(exam(), servable=BROKEN)
    assert (found.decision, found.reason) == ("reject", BROKEN.detail)


def test_a_model_that_could_not_be_tried_is_kept_out():
    found = verdict(exam(), servable=UNTRIED)
    assert (found.decision, found.reason) == ("keep", "not enough evidence: there are no golden rows")


def test_a_check_that_passes_on_an_infinite_number_is_rejected():
    assert verdict(exam(), servable=replace(LOADS, value=math.inf)).decision == "reject"


# size of the exam


def test_one_exam_row_too_few_keeps_the_champion():
    found = verdict(exam(rows=499))
    assert (found.decision, found.reason) == ("keep", "not enough evidence: 499 exam rows; it takes 500")


def test_just_enough_exam_rows_decide():
    assert verdict(exam(rows=500)).decision == "promote"


def test_one_exam_user_too_few_keeps_the_champion():
    found = verdict(exam(users=49))
    assert (found.decision, found.reason) == ("keep", "not enough evidence: 49 exam users; it takes 50")


def test_just_enough_exam_users_decide():
    assert verdict(exam(users=50)).decision == "promote"


def test_a_log_without_users_needs_none():
    found = verdict(exam(users=0))
    assert found.decision == "promote"
    assert "users" not in [finding.name for finding in found.findings]


def test_on_too_few_rows_not_even_harm_is_decided():
    overall = comparison(-0.1, rows=100)
    assert verdict(exam(overall, rows=100, calibration=(0.9, 0.1))).decision == "keep"


# margin and superiority


def test_evidence_of_a_loss_beyond_the_margin_is_rejected():
    found = verdict(exam(comparison(-0.019)))
    assert found.decision == "reject"
    assert found.reason.startswith("AUC .812 against .831 (−.019, 95 % −.022 to −.016, 34,001 rows): a loss")
    assert "a loss beyond .002 is shown" in found.reason


def test_evidence_of_a_loss_within_the_margin_is_rejected_too():
    found = verdict(exam(comparison(-0.001, se=0.0002)))
    assert finding(found, "margin").status == "pass"
    assert finding(found, "superiority").status == "fail"
    assert found.decision == "reject"


def test_a_loss_beyond_the_margin_that_is_not_ruled_out_keeps_the_champion():
    found = verdict(exam(comparison(0.004, se=0.004)))
    assert finding(found, "superiority").status == "pass"
    assert found.decision == "keep"
    assert "a loss beyond .002 is not ruled out" in found.reason


def test_just_within_the_margin_on_the_lower_side():
    assert finding(verdict(exam(comparison(0.0, se=0.00102))), "margin").status == "pass"
    assert finding(verdict(exam(comparison(0.0, se=0.00103))), "margin").status == "not enough evidence"


def test_just_below_the_probability_that_it_takes_keeps_the_champion():
    found = verdict(exam(comparison(0.00083, se=0.001)))
    assert finding(found, "margin").status == "pass"
    assert found.decision == "keep"
    assert found.reason.endswith("better with probability .80; it takes .80")


def test_just_above_the_probability_that_it_takes_promotes():
    assert verdict(exam(comparison(0.00085, se=0.001))).decision == "promote"


def test_a_tie_keeps_the_champion():
    found = verdict(exam(comparison(0.0, se=0.0)), Gate(superiority=0.5))
    assert found.decision == "keep"
    assert finding(found, "superiority").value == 0


def test_a_certain_gain_is_promoted():
    assert verdict(exam(comparison(0.01, se=0.0))).decision == "promote"


# calibration


def test_a_calibration_error_at_the_limit_passes():
    assert verdict(exam(calibration=(0.05, 0.01))).decision == "promote"


def test_a_calibration_error_above_the_limit_and_the_champions_is_rejected():
    found = verdict(exam(calibration=(0.0501, 0.031)))
    assert found.decision == "reject"
    assert found.reason == "calibration error .0501 on 34,001 rows; at most .05, or the champion's .031"


def test_a_calibration_error_no_worse_than_the_champions_passes():
    assert verdict(exam(calibration=(0.09, 0.09))).decision == "promote"


def test_numbers_have_no_calibration():
    overall = comparison(0.05, se=0.01, metric="rmse", champion=1.2)
    evaluation = replace(exam(overall), challenger={"rmse": 1.15}, champion={"rmse": 1.2})
    found = verdict(evaluation, kind="number")
    assert found.decision == "promote"
    assert found.reason == "RMSE 1.150 against 1.200 (gain +.050, 95 % .030 to .070, 34,001 rows)"
    assert "calibration" not in [finding.name for finding in found.findings]


# slices


def test_evidence_of_harm_to_a_slice_is_rejected():
    found = verdict(exam(slices=[part(0.01), part(-0.05)]))
    assert found.decision == "reject"
    assert found.reason.startswith("slice user=new: AUC .781 against .831 (−.050, 95 % −.060 to −.040, ")
    assert found.reason.endswith("1,000 rows): a loss beyond .02 is shown")


def test_a_slice_that_could_be_harmed_or_not_does_not_stand_in_the_way():
    found = verdict(exam(slices=[part(-0.025, se=0.01)]))
    assert finding(found, "slice user=new").status == "not enough evidence"
    assert found.decision == "promote"


def test_a_slice_without_harm_passes():
    assert finding(verdict(exam(slices=[part(-0.005)])), "slice user=new").status == "pass"


def test_a_slice_of_one_row_too_few_is_shown_and_decides_nothing():
    found = verdict(exam(slices=[part(-0.3, rows=299)]))
    assert found.decision == "promote"
    assert finding(found, "slice user=new").status == "not enough evidence"
    assert finding(found, "slice user=new").detail.endswith("fewer than the 300 rows that decide")


def test_a_slice_of_just_enough_rows_decides():
    assert verdict(exam(slices=[part(-0.3, rows=300)])).decision == "reject"


def test_a_slice_of_one_class_says_that_auc_is_not_defined_there():
    found = verdict(exam(slices=[part(math.nan, champion=math.nan)]))
    assert found.decision == "promote"
    assert finding(found, "slice user=new").status == "not enough evidence"
    assert finding(found, "slice user=new").detail == "slice user=new: 1,000 rows: AUC is not defined here"


def test_a_slice_where_only_one_model_has_a_number_is_rejected():
    sick = replace(part(0.01), comparison=replace(comparison(0.01), challenger=math.nan))
    assert verdict(exam(slices=[sick])).decision == "reject"


def test_a_slice_where_a_loss_that_is_always_defined_is_not_a_number_is_rejected():
    slices = [part(math.nan, champion=math.nan, metric="log_loss")]
    evaluation = exam(comparison(metric="log_loss"), slices=slices)
    assert verdict(evaluation, Gate(metric="log_loss")).decision == "reject"


def test_a_slice_of_one_user_has_no_interval_and_decides_nothing():
    known = comparison(-0.1)
    lone = replace(known, difference=replace(known.difference, low=math.nan, high=math.nan, se=math.nan))
    found = verdict(exam(slices=[replace(part(0.0), comparison=lone)]))
    assert found.decision == "promote"
    assert finding(found, "slice user=new").status == "not enough evidence"


def named(value, gain, se=0.005, rows=1000, **figures):
    return replace(part(gain, se, rows, **figures), column="country", value=value)


def test_a_slice_that_could_have_passed_and_did_not_keeps_the_champion():
    found = verdict(exam(slices=[part(-0.012, se=0.005)]))
    assert found.decision == "keep"
    assert found.reason.startswith("not enough evidence: slice user=new: AUC .819 against .831 (−.012, ")
    assert found.reason.endswith("a loss beyond .02 is not ruled out")


def test_a_slice_too_noisy_to_tell_never_passes_and_says_how_many_rows_it_takes():
    found = verdict(exam(slices=[part(0.03, se=0.008)]))
    assert finding(found, "slice user=new").status == "not enough evidence"
    assert finding(found, "slice user=new").detail.endswith(
        "it takes about 1,300 such rows to tell a loss of .02 from none"
    )
    assert found.decision == "promote"


def test_just_within_the_power_that_a_slice_needs():
    assert finding(verdict(exam(slices=[part(0.0, se=0.00713)])), "slice user=new").status == "pass"
    assert finding(verdict(exam(slices=[part(0.0, se=0.00715)])), "slice user=new").status == "not enough evidence"


def test_without_a_slice_margin_no_number_of_rows_is_enough():
    found = verdict(exam(slices=[part(0.03)]), Gate(slice_margin=0))
    assert finding(found, "slice user=new").detail.endswith("no number of rows is enough to tell a loss of 0 from none")


def test_one_of_many_slices_that_looks_harmed_by_chance_rejects_nothing():
    harmed = named("gb", -0.0305)  # alone its interval ends just below the margin
    assert verdict(exam(slices=[harmed])).decision == "reject"
    others = [named(str(n), 0.001 * n) for n in range(12)]
    found = verdict(exam(slices=[harmed, *others]))
    assert found.decision == "keep"
    assert finding(found, "slice country=gb").status == "not enough evidence"


def test_harm_that_is_shown_among_many_slices_rejects_also_in_a_noisy_one():
    others = [named(str(n), 0.001 * n) for n in range(12)]
    found = verdict(exam(slices=[*others, named("gb", -0.2, se=0.03)]))
    assert found.decision == "reject"
    assert found.reason.startswith("slice country=gb")


def test_two_harmed_slices_are_both_found():
    found = verdict(exam(slices=[named("gb", -0.06), named("fr", -0.05), named("nl", 0.0)]))
    assert [f.status for f in found.findings if f.name.startswith("slice")] == ["fail", "fail", "pass"]


def test_few_users_make_harm_harder_to_show():
    """With two degrees of freedom the same multiple of the standard error is no proof among ten slices."""
    wide = replace(part(-0.05).comparison.difference, low=-0.05 - 4.3 * 0.005, high=-0.05 + 4.3 * 0.005)
    few = replace(named("gb", -0.05), comparison=replace(comparison(-0.05), difference=wide))
    others = [named(str(n), 0.001 * n) for n in range(9)]
    assert finding(verdict(exam(slices=[few])), "slice country=gb").status == "fail"
    assert finding(verdict(exam(slices=[few, *others])), "slice country=gb").status == "not enough evidence"
    many = [named("gb", -0.05), *others]
    assert finding(verdict(exam(slices=many)), "slice country=gb").status == "fail"


def test_a_slice_that_surely_loses_is_rejected():
    assert verdict(exam(slices=[part(-0.03, se=0.0)])).decision == "reject"
    assert verdict(exam(slices=[part(0.03, se=0.0)])).decision == "promote"


def test_small_slices_are_pooled_into_one_finding_that_never_passes():
    small = [named(str(n), gain, se=0.03, rows=rows) for n, (gain, rows) in enumerate([(0.02, 200), (-0.1, 100)])]
    found = verdict(exam(slices=small))
    pooled = finding(found, "small slices")
    assert pooled.status == "not enough evidence"
    assert (pooled.n, pooled.threshold) == (200, -0.02)
    assert pooled.value == pytest.approx((2 * 0.02 - 0.1) / 3 - 1.96 * 0.03)
    assert "2 slices too small to be judged alone, of at most 200 rows: together −.020" in pooled.detail
    assert "the lowest after shrinkage country=1 −.090: a loss beyond .02 is not shown" in pooled.detail
    assert found.decision == "promote"


def test_one_small_slice_is_no_pool():
    found = verdict(exam(slices=[part(0.0, se=0.03)]))
    assert "small slices" not in [f.name for f in found.findings]


def test_harm_to_all_small_slices_together_is_rejected():
    found = verdict(exam(slices=[named(str(n), -0.2, se=0.03, rows=200) for n in range(5)]))
    assert found.decision == "reject"
    assert found.reason.startswith("5 slices too small to be judged alone")
    assert found.reason.endswith("a loss beyond .02 is shown")


# the ancestor


def test_a_challenger_worse_than_the_ancestor_is_rejected():
    found = verdict(exam(), history=History(1, comparison(-0.01)))
    assert found.decision == "reject"
    assert found.reason == (
        "the ancestor: AUC .821 against generation 1's .831 (−.010, 95 % −.013 to −.007, 34,001 rows): "
        "a loss beyond .002 is shown"
    )


def test_a_challenger_that_may_be_worse_than_the_ancestor_keeps_the_champion():
    found = verdict(exam(), history=History(0, comparison(0.0)))
    assert found.decision == "keep"
    assert found.reason.startswith("not enough evidence: the ancestor: AUC .831 against the baseline's .831")
    assert found.reason.endswith("a loss beyond .002 is not ruled out")


def test_a_challenger_no_worse_than_the_ancestor_is_promoted():
    found = verdict(exam(), history=History(1, comparison(0.003)))
    assert (found.decision, finding(found, "ancestor").status) == ("promote", "pass")


def test_where_the_champion_is_the_ancestor_one_comparison_serves():
    found = verdict(exam(), history=History(3))
    assert "ancestor" not in [f.name for f in found.findings]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_difference_to_the_ancestor_that_is_not_known_keeps_the_champion(bad):
    against = replace(comparison(0.01), difference=replace(comparison(0.01).difference, se=bad))
    assert verdict(exam(), history=History(1, against)).decision == "keep"


def test_an_ancestor_that_could_not_sit_keeps_the_champion_and_says_why_and_what_to_do():
    found = verdict(exam(), history=History(1, None, "its model.ubj is gone"))
    assert found.decision == "keep"
    assert found.reason == (
        "not enough evidence: the ancestor, generation 1, did not sit the exam: its model.ubj is gone; "
        "the wheel starts anew from a generation promoted by hand: flywheel promote N --why REASON"
    )
    assert "nobody has compared the challenger with it" in verdict(exam(), history=History(0)).reason


# what past exams teach


def met(*gains, se=0.0025):
    """Exams of generations 4, 5, … against generation 3."""
    return tuple(Met(4 + n, 3, comparison(gain, se).difference) for n, gain in enumerate(gains))


def test_past_exams_shrink_a_lucky_looking_difference():
    past = met(-0.002, 0.001, -0.001, 0.0, -0.002, 0.001)
    alone = verdict(exam(comparison(0.0033, se=0.0025)))
    shrunk = verdict(exam(comparison(0.0033, se=0.0025)), history=History(3, past=past))
    assert (alone.decision, shrunk.decision) == ("promote", "keep")
    told = finding(shrunk, "superiority")
    assert told.value < 0.8 < finding(alone, "superiority").value
    assert "as 6 past exams shrink it, better with probability" in told.detail
    assert "shrink" not in finding(alone, "superiority").detail


def test_a_wheel_that_has_kept_improving_is_believed_sooner():
    rising = History(3, past=met(0.001, 0.002, 0.003, 0.004, 0.005, se=0.001))
    falling = History(3, past=met(-0.001, -0.002, -0.003, -0.004, -0.005, se=0.001))
    probabilities = [
        finding(verdict(exam(comparison(0.002, se=0.0025)), history=history), "superiority").value
        for history in (rising, falling)
    ]
    assert probabilities[0] > 0.9 > 0.5 > probabilities[1]


def test_past_exams_that_are_few_or_against_the_baseline_or_unknown_teach_nothing():
    flat = finding(verdict(exam(comparison(se=0.02))), "superiority")
    unknown = Met(9, 3, comparison(0.0, se=math.nan).difference)
    for past in (
        met(-0.1, -0.1),
        (*met(-0.1, -0.1), unknown),
        tuple(replace(one, against=0) for one in met(*[-0.1] * 9)),
    ):
        assert finding(verdict(exam(comparison(se=0.02)), history=History(3, past=past)), "superiority") == flat
    baseline = verdict(exam(comparison(se=0.02)), champion_generation=0, history=History(0, past=met(*[-0.1] * 9)))
    assert finding(baseline, "superiority").value == flat.value


# the exam's shelf life


def test_an_exam_that_other_settings_used_asks_for_more():
    certain = exam(comparison(0.001, se=0.001))
    assert verdict(certain).decision == "promote"
    found = verdict(certain, history=History(3, uses=1))
    assert found.decision == "keep"
    assert found.reason.endswith("better with probability .84; it takes .90")
    assert finding(found, "exam").detail == (
        "1 decision by other settings was made on these windows; an exam bears 20, then it is used up"
    )


def test_an_exam_that_is_used_up_keeps_the_champion():
    assert finding(verdict(exam(), history=History(3, uses=19)), "exam").status == "pass"
    found = verdict(exam(), history=History(3, uses=20))
    assert (found.decision, found.reason) == (
        "keep",
        "not enough evidence: 20 decisions by other settings were made on these windows; "
        "an exam bears 20, then it is used up: wait for newer windows",
    )


# the baseline is a champion like any other


def test_against_the_baseline_the_same_rule_holds_and_it_is_called_so():
    found = verdict(exam(), champion_generation=0)
    assert found.decision == "promote"
    assert found.reason == "AUC .846 against the baseline's .831 (+.015, 95 % .012 to .018, 34,001 rows)"


def test_the_first_generation_is_not_waved_through():
    assert verdict(exam(comparison(0.0)), champion_generation=0).decision == "keep"
    assert verdict(exam(comparison(-0.02)), champion_generation=0).decision == "reject"
    assert verdict(exam(rows=10), champion_generation=0).decision == "keep"


# figures as a person writes them


@pytest.mark.parametrize(
    ("gain", "se", "figures"),
    [
        (0.00042, 0.00004, "(+.00042, 95 % .00034 to .00050,"),
        (0.2, 0.05, "(+.200, 95 % .102 to .298,"),
        (0.01, 0.0, "(+.010, 95 % .010 to .010,"),
    ],
)
def test_differences_get_as_many_places_as_they_need(gain, se, figures):
    assert figures in verdict(exam(comparison(gain, se))).reason


def test_an_unknown_metric_goes_by_its_own_name():
    assert "decided by hits" in verdict(exam(comparison(metric="hits"))).reason


def test_infinite_bounds_are_said_to_be():
    overall = replace(comparison(), difference=replace(comparison().difference, high=math.inf))
    assert "95 % .012 to infinite" in verdict(exam(overall)).reason
