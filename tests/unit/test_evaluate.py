import numpy as np
import pytest
from scipy import stats

from flywheel.errors import ConfigError, DataError
from flywheel.learn.evaluate import clustered_error, evaluate, groups


def exam(seed=0, rows=2000, users=200):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-signal))).astype(float)
    better = 1 / (1 + np.exp(-(signal + rng.normal(0, 0.3, rows))))
    worse = 1 / (1 + np.exp(-(signal + rng.normal(0, 1.5, rows))))
    return labels, better, worse, rng.integers(0, users, rows).astype(str).astype(object)


def test_both_models_get_every_metric_on_the_same_rows():
    labels, better, worse, users = exam()
    found = evaluate(labels, better, worse, kind="binary", metric="auc", users=users, requests=users)
    assert set(found.challenger) == set(found.champion)
    assert set(found.challenger) == {
        "auc", "log_loss", "average_precision", "brier", "calibration_error", "ndcg",
    }  # fmt: skip
    assert (found.rows, found.users) == (2000, 200)
    assert found.overall.challenger == found.challenger["auc"]
    assert found.overall.champion == found.champion["auc"]


def test_numbers_get_the_metrics_of_numbers():
    labels, better, worse, _ = exam()
    found = evaluate(labels * 3, better * 3, worse * 3, kind="number", metric="rmse")
    assert set(found.challenger) == {"rmse", "mae", "r2"}
    assert found.users == 0


@pytest.mark.parametrize("metric", ["auc", "log_loss", "average_precision", "ndcg"])
def test_more_is_better_for_the_challenger_whatever_the_metric(metric):
    labels, better, worse, users = exam()
    ahead = evaluate(labels, better, worse, kind="binary", metric=metric, requests=users).overall.difference
    behind = evaluate(labels, worse, better, kind="binary", metric=metric, requests=users).overall.difference
    assert ahead.low > 0 > behind.high
    assert ahead.estimate == -behind.estimate


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_more_is_better_for_the_challenger_with_numbers_too(metric):
    labels, better, worse, _ = exam()
    assert evaluate(labels, better, worse, kind="number", metric=metric).overall.difference.low > 0


def test_models_that_score_alike_do_not_differ_and_that_is_certain():
    labels, better, _, users = exam()
    interval = evaluate(labels, better, better, kind="binary", metric="auc", users=users).overall.difference
    assert (interval.estimate, interval.low, interval.high, interval.se) == (0, 0, 0, 0)


def test_without_clusters_the_auc_interval_is_delongs():
    labels, better, worse, _ = exam()
    found = evaluate(labels, better, worse, kind="binary", metric="auc").overall.difference
    positive, negative = labels > 0, labels == 0

    def placements(scores):
        above = scores[positive][:, None] > scores[negative][None, :]
        return above.mean(axis=1), above.mean(axis=0)

    (p_better, n_better), (p_worse, n_worse) = placements(better), placements(worse)
    variance = np.var(p_better - p_worse, ddof=1) / positive.sum()
    variance += np.var(n_better - n_worse, ddof=1) / negative.sum()
    assert found.se == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_without_clusters_the_loss_interval_is_the_paired_t_interval():
    labels, better, worse, _ = exam()
    found = evaluate(labels, better, worse, kind="number", metric="mae").overall.difference
    gain = np.abs(labels - worse) - np.abs(labels - better)
    low, high = stats.ttest_1samp(gain, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_equal_clusters_are_a_t_test_on_their_means():
    labels, better, worse, _ = exam(rows=600)
    users = np.repeat(np.arange(30), 20)
    found = evaluate(labels, better, worse, kind="number", metric="mae", users=users).overall.difference
    means = (np.abs(labels - worse) - np.abs(labels - better)).reshape(30, 20).mean(axis=1)
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_a_row_said_twice_by_the_same_user_is_no_more_evidence():
    labels, better, worse, _ = exam()
    once = np.arange(2000)
    twice = np.concatenate([once, once])
    single = evaluate(labels, better, worse, kind="binary", metric="auc", users=once).overall.difference
    double = evaluate(
        labels[twice], better[twice], worse[twice], kind="binary", metric="auc", users=twice
    ).overall.difference
    assert double.se == pytest.approx(single.se, rel=1e-6)


def test_a_user_with_most_of_the_rows_costs_degrees_of_freedom():
    influence = np.random.default_rng(0).normal(size=1000)
    even = np.arange(1000) // 20
    uneven = np.where(np.arange(1000) < 600, 0, even)
    sample = [np.ones(1000, dtype=bool)]
    assert clustered_error(influence, sample, even)[1] == pytest.approx(49)
    assert clustered_error(influence, sample, uneven)[1] < 3


def test_codes_of_clusters_may_have_gaps():
    influence = np.random.default_rng(0).normal(size=100)
    users, sample = np.arange(100) // 5, [np.ones(100, dtype=bool)]
    assert clustered_error(influence, sample, users * 1000) == clustered_error(influence, sample, users)


def test_one_user_alone_shows_no_spread():
    labels, better, worse, _ = exam()
    found = evaluate(labels, better, worse, kind="binary", metric="auc", users=np.zeros(2000, dtype=int))
    assert np.isfinite(found.overall.difference.estimate)
    assert np.isnan([found.overall.difference.se, found.overall.difference.low]).all()


def test_a_row_without_a_user_is_its_own_cluster_and_no_user():
    labels, better, worse, users = exam()
    unknown = np.full(2000, None, dtype=object)
    anonymous = evaluate(labels, better, worse, kind="binary", metric="auc", users=unknown)
    by_row = evaluate(labels, better, worse, kind="binary", metric="auc")
    assert anonymous.overall.difference == by_row.overall.difference
    users[:500] = None
    assert evaluate(labels, better, worse, kind="binary", metric="auc", users=users).users == 200


def test_without_users_rows_of_one_request_are_one_cluster():
    labels, better, worse, users = exam()
    by_request = evaluate(labels, better, worse, kind="binary", metric="auc", requests=users)
    by_user = evaluate(labels, better, worse, kind="binary", metric="auc", users=users)
    assert by_request.overall.difference.se == by_user.overall.difference.se


@pytest.mark.parametrize("metric", ["auc", "ndcg"])
def test_a_slice_is_the_exam_on_its_rows(metric):
    labels, better, worse, users = exam()
    requests = np.arange(2000) // 4
    requests_or_none = np.where(requests % 7 == 0, np.nan, requests)
    half = np.array(["new", "known"])[np.arange(2000) % 2].astype(object)
    found = evaluate(
        labels, better, worse, kind="binary", metric=metric, users=users, requests=requests_or_none,
        slices={"user": half},
    )  # fmt: skip
    new = half == "new"
    alone = evaluate(
        labels[new], better[new], worse[new], kind="binary", metric=metric, users=users[new],
        requests=requests_or_none[new],
    )  # fmt: skip
    assert [(part.column, part.value, part.rows) for part in found.slices] == [
        ("user", "known", 1000), ("user", "new", 1000),
    ]  # fmt: skip
    ours, theirs = found.slices[1].comparison, alone.overall
    assert (ours.challenger, ours.champion) == (theirs.challenger, theirs.champion)
    assert ours.difference.low == pytest.approx(theirs.difference.low)
    assert found.slices[1].users == alone.users


def test_slices_too_small_or_of_one_class_appear_without_a_number():
    labels, better, worse, _ = exam()
    country = np.full(2000, "fr", dtype=object)
    country[:29] = "nl"
    country[29:100] = None
    labels[29:100] = 1
    found = evaluate(labels, better, worse, kind="binary", metric="auc", slices={"country": country})
    by_value = {part.value: part for part in found.slices}
    assert {value: part.rows for value, part in by_value.items()} == {"fr": 1900, "nl": 29, "—": 71}
    for value in ("nl", "—"):
        assert np.isnan(by_value[value].comparison.challenger)
        assert np.isnan(by_value[value].comparison.difference.estimate)
    assert np.isfinite(by_value["fr"].comparison.difference.estimate)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_a_score_that_is_not_finite_makes_that_models_metrics_not_a_number(bad, side):
    labels, better, worse, users = exam()
    scores = {"challenger": better, "champion": worse}
    scores[side][11] = bad
    found = evaluate(labels, **scores, kind="binary", metric="auc", users=users)
    other = {"challenger": found.champion, "champion": found.challenger}[side]
    assert np.isnan(list(getattr(found, side).values())).all()
    assert np.isfinite(list(other.values())).all()
    assert np.isnan(found.overall.difference.estimate)
    assert np.isnan(found.overall.difference.low)


def test_an_exam_without_rows_is_not_a_number():
    none = np.empty(0)
    found = evaluate(none, none, none, kind="binary", metric="auc", users=none, slices={"user": none})
    assert (found.rows, found.users, found.slices) == (0, 0, ())
    assert np.isnan(found.overall.challenger)
    assert np.isnan(found.overall.difference.se)


@pytest.mark.parametrize("name", ["challenger", "champion", "users", "requests", "slice device"])
def test_arrays_of_different_length_are_refused(name):
    labels, better, worse, users = exam()
    parts = {"challenger": better, "champion": worse, "users": users, "requests": users, "slice device": users}
    parts[name] = parts[name][:-1]
    device = parts.pop("slice device")
    with pytest.raises(DataError, match=f"2,?000 labels but 1,999 values of {name}"):
        evaluate(labels, **parts, kind="binary", metric="auc", slices={"device": device})


@pytest.mark.parametrize(
    ("kind", "metric", "bad"), [("binary", "auc", np.nan), ("binary", "auc", 0.5), ("number", "mae", np.inf)]
)
def test_a_label_of_the_wrong_kind_is_refused_with_its_row(kind, metric, bad):
    labels, better, worse, _ = exam()
    labels[[41, 77]] = bad
    with pytest.raises(DataError, match=r"2 of 2,000 exam labels cannot be used\n.*first at exam row 42"):
        evaluate(labels, better, worse, kind=kind, metric=metric)


def test_a_metric_of_the_other_kind_is_refused():
    labels, better, worse, _ = exam()
    with pytest.raises(ConfigError, match="rmse does not fit the label"):
        evaluate(labels, better, worse, kind="binary", metric="rmse")


def test_ndcg_without_requests_is_refused():
    labels, better, worse, _ = exam()
    with pytest.raises(ConfigError, match="ndcg needs requests"):
        evaluate(labels, better, worse, kind="binary", metric="ndcg")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["b", "a", "b"]), {"a": [1], "b": [0, 2]}),
        (np.array([3, 1, 3]), {"1": [1], "3": [0, 2]}),
        (np.array([True, False, True]), {"False": [1], "True": [0, 2]}),
        (np.array([1.5, np.nan, 1.5]), {"1.5": [0, 2], "—": [1]}),
        (np.array([None, None], dtype=object), {"—": [0, 1]}),
        (np.array([], dtype=object), {}),
    ],
)
def test_groups_take_any_array_of_names_or_codes(values, expected):
    assert {value: rows.tolist() for value, rows in groups(values)} == expected
