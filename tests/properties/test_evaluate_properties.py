import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.learn import metrics
from flywheel.learn.evaluate import evaluate

few_values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])


@st.composite
def exams(draw):
    rows = draw(st.integers(2, 60))
    labels = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=rows, max_size=rows))
    scores = [draw(st.lists(few_values, min_size=rows, max_size=rows)) for _ in range(2)]
    users = draw(st.lists(st.sampled_from(["u", "v", "w", "x", None]), min_size=rows, max_size=rows))
    return np.array(labels), np.array(scores[0]), np.array(scores[1]), np.array(users, dtype=object)


def examined(labels, challenger, champion, users, metric="auc"):
    slices = {"user": users}
    return evaluate(
        labels, challenger, champion, kind="binary", metric=metric, users=users, requests=users, slices=slices
    )


@given(exams())
def test_auc_counts_pairs(exam):
    labels, scores, _, _ = exam
    above = scores[labels > 0][:, None] - scores[labels == 0][None, :]
    if above.size:
        expected = np.mean((above > 0) + 0.5 * (above == 0))
        assert np.isclose(metrics.auc(labels, scores), expected)
    else:
        assert np.isnan(metrics.auc(labels, scores))


@given(exams(), st.sampled_from(["auc", "log_loss", "average_precision", "ndcg"]))
@settings(deadline=None)
def test_swapping_the_models_only_turns_the_sign(exam, metric):
    labels, challenger, champion, users = exam
    ahead = examined(labels, challenger, champion, users, metric)
    behind = examined(labels, champion, challenger, users, metric)
    assert ahead.challenger.keys() == behind.champion.keys()
    one, other = ahead.overall.difference, behind.overall.difference
    turned = [-other.estimate, -other.high, -other.low, other.se]
    assert np.allclose([one.estimate, one.low, one.high, one.se], turned, equal_nan=True)


@given(exams(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_rows_does_not_matter(exam, random):
    order = list(range(len(exam[0])))
    random.shuffle(order)
    straight, shuffled = examined(*exam), examined(*(values[order] for values in exam))
    assert np.allclose(list(straight.challenger.values()), list(shuffled.challenger.values()), equal_nan=True)
    assert np.allclose(straight.overall.difference.se, shuffled.overall.difference.se, equal_nan=True)
    assert [(part.value, part.rows) for part in straight.slices] == [
        (part.value, part.rows) for part in shuffled.slices
    ]


@given(exams())
@settings(deadline=None)
def test_every_row_is_in_one_slice_of_each_column(exam):
    assert sum(part.rows for part in examined(*exam).slices) == len(exam[0])


@given(exams())
@settings(deadline=None)
def test_an_interval_holds_its_estimate_or_is_unknown(exam):
    interval = examined(*exam).overall.difference
    assert np.isnan(interval.low) or interval.low <= interval.estimate <= interval.high
