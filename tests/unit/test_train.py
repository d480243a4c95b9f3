import numpy as np
import pytest
import xgboost as xgb

from flywheel.errors import DataError
from flywheel.learn import train
from flywheel.learn.train import Batch, Columns, fit, predict
from flywheel.sections import Train

POLICY = Train(rounds=20, early_stopping=5, min_rows=50, min_per_class=5)
COLUMNS = Columns(("a", "b", "genre"), ("q", "q", "c"), {"genre": 3})


def batch(window, rows=100, seed=0, labels=None):
    rng = np.random.default_rng([seed, window])
    matrix = rng.normal(size=(rows, 3)).astype(np.float32)
    matrix[:, 2] = rng.integers(0, 3, rows)
    if labels is None:
        labels = (matrix[:, 0] + (matrix[:, 2] == 1) + rng.normal(size=rows) > 0).astype(np.float32)
    return Batch(str(window), np.asarray(labels, dtype=np.float32), lambda: matrix)


def fitted(batches, kind="binary", policy=POLICY, columns=COLUMNS):
    return fit(batches, columns, kind=kind, policy=policy)


def test_same_rows_and_seed_make_the_same_bytes_and_another_seed_others():
    batches = [batch(w) for w in range(4)]
    one, two = fitted(batches), fitted(batches)
    assert (one.model, one.matrix_hash, one.rounds) == (two.model, two.matrix_hash, two.rounds)
    assert fitted(batches, policy=POLICY.model_copy(update={"seed": 1})).model != one.model


def test_a_scorer_says_what_predict_says_of_any_number_of_rows():
    trained = fitted([batch(w) for w in range(4)])
    score = train.scorer(trained.model, COLUMNS)
    matrix = batch(9).load()
    matrix[3, 2] = 7  # a name that the model never saw
    for rows in (0, 1, 50):
        assert score(matrix[:rows]).dtype == np.float64
        np.testing.assert_array_equal(score(matrix[:rows]), predict(trained.model, COLUMNS, matrix[:rows]))


def test_a_scorer_says_what_the_library_says_and_refuses_other_columns():
    trained = fitted([batch(w) for w in range(4)])
    booster = xgb.Booster(model_file=bytearray(trained.model))
    score, matrix = train.scorer(trained.model, COLUMNS), batch(9).load()
    matrix[:5, 0] = np.nan
    first = score(matrix[:50])
    np.testing.assert_array_equal(first, booster.inplace_predict(matrix[:50]))
    np.testing.assert_array_equal(score(np.asfortranarray(matrix[::-1])), booster.inplace_predict(matrix)[::-1])
    np.testing.assert_array_equal(first, booster.inplace_predict(matrix[:50]))  # a copy of its own
    with pytest.raises(xgb.core.XGBoostError, match="n_features"):
        score(np.hstack([matrix, matrix]))


def test_the_hash_tells_any_cell_or_label_apart_and_not_how_windows_are_put_together(monkeypatch):
    batches = [batch(w) for w in range(4)]
    one = fitted(batches)
    assert one.rows == 400
    changed = batches[2].load().copy()
    changed[7, 1] += 1
    assert (
        fitted([*batches[:2], Batch("2", batches[2].labels, lambda: changed), batches[3]]).matrix_hash
        != one.matrix_hash
    )
    flipped = batches[2].labels.copy()
    flipped[7] = 1 - flipped[7]
    assert fitted([*batches[:2], Batch("2", flipped, batches[2].load), batches[3]]).matrix_hash != one.matrix_hash
    monkeypatch.setattr(train, "CHUNK_ROWS", 1)
    assert fitted(batches).matrix_hash == one.matrix_hash


def test_small_windows_are_handed_over_together_and_each_row_once(monkeypatch):
    batches = [batch(w, rows=10 + w) for w in range(9)]
    monkeypatch.setattr(train, "CHUNK_ROWS", 25)
    chunks = train._chunks(batches, 25)
    assert [[b.window for b in chunk] for chunk in chunks] == [["0", "1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]]
    whole = train._Stream(batches, COLUMNS).quantile({"nthread": 1})
    np.testing.assert_array_equal(whole.get_label(), np.concatenate([b.labels for b in batches]))


def test_pages_on_disk_make_the_same_model_and_are_read(monkeypatch, tmp_path):
    batches, policy = [batch(w, rows=400) for w in range(6)], POLICY.model_copy(update={"early_stopping": 5})
    in_memory = fitted(batches, policy=policy)
    monkeypatch.setattr(train, "PAGE_ROWS", 500)
    held: list[int] = []
    on_disk = fit(
        batches,
        COLUMNS,
        kind="binary",
        policy=policy,
        pages=tmp_path,
        progress=lambda *_: held.append(sum(path.stat().st_size for path in tmp_path.iterdir())),
    )
    assert on_disk == in_memory
    assert min(held) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_tail_is_the_newest_rows_and_what_is_before_it_is_the_head():
    batches = [batch(w, rows=10, labels=np.arange(10 * w, 10 * w + 10)) for w in range(4)]
    head, tail = train._split(batches, 0.4)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in head]), np.arange(24))
    np.testing.assert_array_equal(np.concatenate([b.labels for b in tail]), np.arange(24, 40))
    for part in (*head, *tail):
        assert len(part.load()) == len(part.labels)
    np.testing.assert_array_equal(tail[0].load(), batches[2].load()[4:])


def test_the_number_of_trees_is_chosen_on_the_tail():
    """Where the newest rows contradict the older ones, every further tree makes their order worse."""
    policy = POLICY.model_copy(update={"tail": 0.25, "early_stopping": 20})
    batches = [batch(w, rows=400) for w in range(4)]
    against = Batch("3", 1 - batches[3].labels, batches[3].load)
    assert fitted([*batches[:3], against], policy=policy).rounds < 3 < fitted(batches, policy=policy).rounds


def test_a_tail_of_one_class_still_says_when_to_stop():
    ones = Batch("4", np.ones(100, np.float32), batch(4).load)
    trained = fitted([*(batch(w) for w in range(4)), ones], policy=POLICY.model_copy(update={"tail": 0.1}))
    assert 0 < trained.rounds <= 20


def test_it_learns_and_without_early_stopping_fits_every_tree():
    batches = [batch(w) for w in range(4)]
    trained = fitted(batches, policy=POLICY.model_copy(update={"early_stopping": 0}))
    assert trained.rounds == 20
    assert xgb.Booster(model_file=bytearray(trained.model)).num_boosted_rounds() == 20
    other = batch(9, rows=2000)
    scores = predict(trained.model, COLUMNS, other.load())
    assert scores[other.labels == 1].mean() > scores[other.labels == 0].mean() + 0.1
    assert next(iter(trained.importance)) == "a"


def test_a_name_unseen_in_training_is_a_missing_one():
    trained = fitted([batch(w) for w in range(4)])
    rows = batch(9).load().copy()
    rows[:, 2] = [3, 7] * 50
    missing = rows.copy()
    missing[:, 2] = np.nan
    np.testing.assert_array_equal(predict(trained.model, COLUMNS, rows), predict(trained.model, COLUMNS, missing))
    assert np.isnan(COLUMNS.freeze(rows)[:, 2]).all()
    assert rows[0, 2] == 3, "the caller's matrix is left as it was"


def test_no_rows_no_scores():
    trained = fitted([batch(w) for w in range(4)])
    assert predict(trained.model, COLUMNS, np.empty((0, 3), np.float32)).shape == (0,)


def test_xgboosts_own_parameters_reach_it():
    policy = POLICY.model_copy(update={"params": {"max_depth": 1, "max_bin": 16}})
    trained = fitted([batch(w) for w in range(4)], policy=policy)
    trees = xgb.Booster(model_file=bytearray(trained.model)).get_dump()
    assert all(tree.count("leaf=") <= 2 for tree in trees)


def test_a_number_is_learned_by_its_own_objective():
    batches = [batch(w, labels=batch(w).load()[:, 0] * 3) for w in range(4)]
    trained = fitted(batches, kind="number")
    other = batch(9)
    assert np.corrcoef(predict(trained.model, COLUMNS, other.load()), other.load()[:, 0])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("labels", "kind", "says"),
    [
        ([0, 1] * 20, "binary", "40 training rows are too few.*min_rows is 50"),
        ([], "binary", "0 training rows are too few"),
        ([1] * 100, "binary", "of 100 training rows 100 have label 1.*min_per_class is 5"),
        ([0] * 96 + [1] * 4, "binary", "of 100 training rows 4 have label 1"),
        ([0, np.nan, np.inf] * 40, "binary", "80 labels are not finite"),
        ([2.5] * 100, "number", r"all 100 training rows have the label 2\.5"),
        ([1.0, -np.inf] * 50, "number", "50 labels are not finite"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels, kind, says):
    with pytest.raises(DataError, match=f"(?s){says}"):
        fitted([batch(0, rows=len(labels), labels=labels)], kind=kind)


def test_no_windows_are_refused():
    with pytest.raises(DataError, match="0 training rows are too few"):
        fitted([])


def test_an_infinite_feature_is_refused_by_name_and_window():
    bad = batch(2).load().copy()
    bad[50, 1] = -np.inf
    batches = [batch(0), batch(1), Batch("2024-03-04", batch(2).labels, lambda: bad), batch(3)]
    with pytest.raises(DataError, match=r"(?s)the feature b is infinite.*window 2024-03-04"):
        fitted(batches)
