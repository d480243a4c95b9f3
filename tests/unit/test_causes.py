"""The parts of a difference: they sum, they are fair, and their intervals hold what they claim."""

from itertools import combinations

import numpy as np
import pytest

from flywheel.measure import causes, contrasts
from flywheel.measure.causes import EXAM, FRESHER, MORE, RECIPE
from flywheel.measure.contrasts import Exam, Result

ALL = (EXAM, FRESHER, MORE, RECIPE)
SUBSETS = [subset for size in range(1, 5) for subset in combinations(ALL, size)]


def values(names: tuple[str, ...], seed: int = 3) -> dict[frozenset[str], float]:
    rng = np.random.default_rng(seed)
    return {cell: float(rng.normal()) for cell in causes.cells(names)}


def total(weights: dict[frozenset[str], float], cells: dict[frozenset[str], float]) -> float:
    return sum(w * cells[cell] for cell, w in weights.items())


@pytest.mark.parametrize("names", SUBSETS)
def test_the_parts_sum_to_the_difference(names: tuple[str, ...]) -> None:
    cells = values(names)
    parts = sum(total(weights, cells) for weights in causes.parts(names).values())
    assert parts == pytest.approx(cells[frozenset(names)] - cells[frozenset()])


def test_a_cause_that_changes_nothing_has_no_part_and_what_adds_up_is_split_as_it_adds_up() -> None:
    worth = {EXAM: -0.3, FRESHER: 0.2, MORE: 0.5, RECIPE: 0.0}
    cells = {cell: sum(worth[cause] for cause in cell) for cell in causes.cells(ALL)}
    parts = {name: total(weights, cells) for name, weights in causes.parts(ALL).items()}
    assert parts == pytest.approx(worth)
    assert [total(weights, cells) for weights in causes.interactions(ALL).values()] == pytest.approx([0] * 5)


def test_fresher_data_never_comes_before_the_newer_exam() -> None:
    assert all(EXAM in cell for cell in causes.cells(ALL) if FRESHER in cell)
    assert not any({EXAM, FRESHER} == set(pair) for pair in causes.interactions(ALL))


def test_causes_that_are_free_share_an_interaction_evenly() -> None:
    cells = {cell: float({MORE, RECIPE} <= cell) for cell in causes.cells((MORE, RECIPE))}
    assert {name: total(w, cells) for name, w in causes.parts((MORE, RECIPE)).items()} == {MORE: 0.5, RECIPE: 0.5}
    assert total(causes.interactions((MORE, RECIPE))[MORE, RECIPE], cells) == 1


def test_a_line_over_the_logarithm_is_extrapolated_as_it_is() -> None:
    sizes = np.array([250.0, 500, 1000])
    seen = 0.3 - 0.02 * np.log(sizes)
    assert seen @ causes.extrapolated(sizes, 4000) == pytest.approx(0.3 - 0.02 * np.log(4000))
    assert causes.extrapolated([1000.0], 4000) == [1.0]


def exam_of(rng: np.random.Generator, users: int) -> tuple[Exam, np.ndarray]:
    rows = rng.integers(1, 12, users)
    codes = np.repeat(np.arange(users), rows)
    return Exam((rng.random(len(codes)) < 0.3).astype(float), codes), codes


def test_intervals_hold_users_of_two_exams_and_seeds_together() -> None:
    """Users weigh on both exams, seeds on each kind of model: the truth is 0.1 − 0.05."""
    rng = np.random.default_rng(5)
    inside, repeats, users, seeds = 0, 400, 60, 3
    for _ in range(repeats):
        exams, results = {}, {}
        of_user = rng.normal(0, 0.3, users)
        luck = {"a": rng.normal(0, 0.1, seeds), "b": rng.normal(0, 0.1, seeds)}
        for name, truth in (("old", 0.05), ("new", 0.1)):
            exam, codes = exam_of(rng, users)
            rows = of_user[codes] + rng.normal(0, 0.2, len(codes))
            rows = rows if name == "new" else rows - 2 * of_user[codes]  # what helps in one harms in the other
            exams[name] = exam
            model = "b" if name == "new" else "a"
            value = truth + rows.mean()
            results[model, name] = Result(value + luck[model], (rows - rows.mean()) / len(rows))
        found = contrasts.contrast({("b", "new"): 1.0, ("a", "old"): -1.0}, results, exams, metric="log_loss")
        inside += found.low <= 0.05 <= found.high
    assert 0.93 <= inside / repeats <= 0.98


def test_rows_of_one_user_are_one_cluster_in_every_exam_and_rows_of_nobody_are_alone() -> None:
    old, new = contrasts.exams(
        [
            (np.array([0.0, 1, 1]), np.array(["u1", "u2", None], dtype=object), None),
            (np.array([1.0, 0]), np.array([None, "u1"], dtype=object), None),
        ]
    )
    assert old.clusters[0] == new.clusters[1]
    assert len({*old.clusters.tolist(), *new.clusters.tolist()}) == 4


def test_a_loss_is_turned_so_that_more_is_better() -> None:
    exam = Exam(np.array([0.0, 1, 0, 1]), np.arange(4))
    good, bad = np.array([0.1, 0.9, 0.2, 0.8]), np.array([0.5, 0.5, 0.5, 0.5])
    assert contrasts.sit(exam, [good], "log_loss").quality > contrasts.sit(exam, [bad], "log_loss").quality
