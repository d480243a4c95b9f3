import numpy as np
import pytest

from flywheel.learn import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")

PROBABILITY_METRICS = (metrics.auc, metrics.log_loss, metrics.average_precision, metrics.brier)
NUMBER_METRICS = (metrics.rmse, metrics.mae, metrics.r2)


def binary(seed, rows=500, ties=False):
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.3).astype(float)
    scores = np.clip(rng.normal(0.35 + 0.2 * labels, 0.2), 0.01, 0.99)
    return labels, np.round(scores, 1).clip(0.1, 0.9) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_binary_metrics_agree_with_scikit_learn(seed, ties):
    labels, scores = binary(seed, ties=ties)
    assert metrics.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))
    assert metrics.log_loss(labels, scores) == pytest.approx(sklearn_metrics.log_loss(labels, scores))
    assert metrics.brier(labels, scores) == pytest.approx(sklearn_metrics.brier_score_loss(labels, scores))
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert metrics.average_precision(labels, scores) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_number_metrics_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels, scores = rng.normal(5, 2, 200), rng.normal(5, 2, 200)
    expected = sklearn_metrics.root_mean_squared_error(labels, scores)
    assert metrics.rmse(labels, scores) == pytest.approx(expected)
    assert metrics.mae(labels, scores) == pytest.approx(sklearn_metrics.mean_absolute_error(labels, scores))
    assert metrics.r2(labels, scores) == pytest.approx(sklearn_metrics.r2_score(labels, scores))


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_ndcg_agrees_with_scikit_learn_request_by_request(k, ties):
    rng = np.random.default_rng(k)
    gains, scores = rng.integers(0, 4, (40, 6)).astype(float), rng.random((40, 6))
    gains[:, 0] += 1
    scores = np.round(scores, 1) if ties else scores
    shuffled = rng.permutation(240)
    requests = np.repeat(np.arange(40), 6)[shuffled]
    ours = metrics.ndcg(gains.ravel()[shuffled], scores.ravel()[shuffled], requests, k)
    assert ours == pytest.approx(sklearn_metrics.ndcg_score(gains, scores, k=k))


def test_ndcg_leaves_out_requests_without_a_gain_and_rows_without_a_request():
    labels, scores = np.array([1.0, 0, 0, 0, 1]), np.array([0.2, 0.9, 0.5, 0.6, 0.1])
    requests = np.array([0, 0, 1, 1, -1])
    assert metrics.ndcg(labels, scores, requests) == pytest.approx(1 / np.log2(3))
    assert metrics.ranked_rows(labels, requests).tolist() == [True, True, False, False, False]


def test_ndcg_is_not_defined_without_gains_or_with_negative_labels():
    requests = np.zeros(3, dtype=int)
    assert np.isnan(metrics.ndcg(np.zeros(3), np.arange(3.0), requests))
    assert np.isnan(metrics.ndcg(np.array([1.0, -1, 0]), np.arange(3.0), requests))
    assert np.isnan(metrics.ndcg(np.ones(3), np.arange(3.0), requests - 1))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_makes_auc_and_average_precision_not_a_number(label):
    labels, scores = np.full(40, label), np.linspace(0.1, 0.9, 40)
    assert np.isnan(metrics.auc(labels, scores))
    assert np.isnan(metrics.average_precision(labels, scores))
    assert np.isfinite(metrics.log_loss(labels, scores))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_makes_every_metric_not_a_number(bad):
    labels, scores = binary(1)
    scores[7] = bad
    for metric in (*PROBABILITY_METRICS, *NUMBER_METRICS):
        assert np.isnan(metric(labels, scores)), metric.__name__
    assert np.isnan(metrics.ndcg(labels, scores, np.zeros(len(labels), dtype=int)))
    assert np.isnan(metrics.calibration(labels, scores).error)


def test_no_rows_make_every_metric_not_a_number():
    none = np.empty(0)
    for metric in (*PROBABILITY_METRICS, *NUMBER_METRICS):
        assert np.isnan(metric(none, none)), metric.__name__
    assert np.isnan(metrics.ndcg(none, none, none.astype(int)))
    assert np.isnan(metrics.calibration(none, none).error)


@pytest.mark.parametrize("outside", [-0.01, 1.01])
def test_a_probability_outside_0_to_1_is_no_probability(outside):
    labels, scores = binary(2)
    scores[3] = outside
    assert np.isnan(metrics.log_loss(labels, scores))
    assert np.isnan(metrics.brier(labels, scores))
    assert np.isnan(metrics.calibration(labels, scores).error)
    assert np.isfinite(metrics.auc(labels, scores))


def test_log_loss_of_a_certain_and_wrong_model_is_finite():
    assert metrics.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-7))


def test_r2_of_labels_that_do_not_vary_is_not_a_number():
    assert np.isnan(metrics.r2(np.ones(5), np.arange(5.0)))


def test_calibration_bins_hold_equal_mass_and_find_a_known_error():
    rng = np.random.default_rng(0)
    truth = rng.random(60_000)
    labels = (rng.random(60_000) < truth).astype(float)
    honest = metrics.calibration(labels, truth)
    assert honest.rows.tolist() == [4000] * 15
    assert honest.error < 0.01
    shifted = metrics.calibration(labels, np.clip(truth * 0.5 + 0.4, 0, 1))
    by_hand = np.sum(shifted.rows * np.abs(shifted.predicted - shifted.observed)) / 60_000
    assert shifted.error == pytest.approx(by_hand)
    assert shifted.error == pytest.approx(0.17, abs=0.01)


def test_calibration_keeps_equal_scores_together():
    labels = np.concatenate([np.zeros(3000), np.ones(3000)])
    constant = metrics.calibration(labels, np.full(6000, 0.5))
    assert constant.rows.tolist() == [6000]
    assert constant.error == 0


def test_calibration_of_an_honest_model_passes_on_the_smallest_exam():
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(200):
        truth = rng.random(500)
        errors.append(metrics.calibration((rng.random(500) < truth).astype(float), truth).error)
    assert np.mean(errors) < 0.03
    assert np.quantile(errors, 0.95) < 0.05


def _jackknife(value, rows):
    """Each row's influence, by leaving it out."""
    whole = value(np.arange(rows))
    without = [value(np.delete(np.arange(rows), row)) for row in range(rows)]
    return (rows - 1) / rows * (whole - np.array(without))


@pytest.mark.parametrize("name", sorted(metrics.MEASURES))
@pytest.mark.parametrize("ties", [False, True])
def test_influences_are_those_of_leaving_a_row_out(name, ties):
    labels, scores = binary(3, rows=1200, ties=ties)
    value, influence = metrics.measure(name, labels, scores)
    left_out = _jackknife(lambda rows: metrics.measure(name, labels[rows], scores[rows])[0], 1200)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(influence - left_out) < 0.03 * np.linalg.norm(left_out)
    assert value == metrics.measure(name, labels, scores)[0]


def test_influences_of_ndcg_are_those_of_its_requests():
    rng = np.random.default_rng(8)
    labels, scores = rng.integers(0, 2, 120).astype(float), rng.random(120)
    requests = np.append(np.repeat(np.arange(17), 7), -1)
    value, influence = metrics.measure("ndcg", labels, scores, requests, 3)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert influence[-1] == 0
    first = requests == 0
    alone = metrics.ndcg(labels[first], scores[first], requests[first], 3)
    assert influence[first].sum() == pytest.approx((alone - value) / 17)


def test_a_perfect_prediction_has_no_influence_and_no_error():
    value, influence = metrics.measure("rmse", np.arange(5.0), np.arange(5.0))
    assert value == 0
    assert influence.tolist() == [0] * 5
