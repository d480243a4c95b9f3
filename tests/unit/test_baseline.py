import numpy as np
import pytest

from flywheel.learn.baseline import mean_column, scores

NAMES = [
    "price",
    "user__count_forever", "user__mean_forever",
    "item__count_7d", "item__mean_7d", "item__count_28d", "item__mean_28d", "item__since_first", "item__since_last",
    "item_x_genres__mean_forever",
    "global__mean",
]  # fmt: skip


def matrix(**columns):
    values = np.full((3, len(NAMES)), np.nan, dtype=np.float32)
    for name, column in columns.items():
        values[:, NAMES.index(name)] = column
    return values


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, "item__mean_28d"),
        (["item__mean_28d", "item__mean_forever", "item__mean_52w"], "item__mean_forever"),
        (["item__mean_36h", "item__mean_1d"], "item__mean_36h"),
        (["item__mean_0.5s", "item__mean_0.25s"], "item__mean_0.5s"),
        (["user__mean_7d", "user__mean_28d", "genres__mean_forever"], "user__mean_28d"),
        (["global__mean", "item__count_7d", "item__since_last"], None),
        ([], None),
    ],
)
def test_the_item_comes_first_then_the_first_counter_each_at_its_longest(names, expected):
    assert mean_column(names) == expected


def test_scores_are_the_items_means_in_double_precision():
    found = scores(matrix(item__mean_28d=[0.1, 0.5, 0.9], global__mean=0.3), NAMES)
    assert found.dtype == np.float64
    assert found == pytest.approx([0.1, 0.5, 0.9], rel=1e-6)


def test_an_item_nobody_knows_is_worth_the_global_mean():
    found = scores(matrix(item__mean_28d=[np.nan, 0.5, np.inf], global__mean=[0.3, 0.3, 0.4]), NAMES)
    assert found == pytest.approx([0.3, 0.5, 0.4], rel=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("binary", 0.5), ("number", 0.0)])
def test_before_anything_is_known(kind, expected):
    assert scores(matrix(), NAMES, kind=kind).tolist() == [expected] * 3
    assert scores(np.empty((2, 0), dtype=np.float32), [], kind=kind).tolist() == [expected] * 2


def test_without_a_counter_the_global_mean_is_the_score():
    found = scores(np.array([[1.0, 0.2], [2.0, 0.4]]), ["price", "global__mean"])
    assert found.tolist() == [0.2, 0.4]


def test_probabilities_are_never_certain_and_numbers_are_left_alone():
    certain = matrix(item__mean_28d=[0, 1, -3])
    assert scores(certain, NAMES).tolist() == [1e-6, 1 - 1e-6, 1e-6]
    assert scores(certain, NAMES, kind="number").tolist() == [0, 1, -3]


def test_no_rows_are_no_scores():
    assert scores(np.empty((0, len(NAMES)), dtype=np.float32), NAMES).shape == (0,)
