import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flywheel.config import parse
from flywheel.errors import ConfigError, DataError, IntegrityError
from flywheel.learn import custom, matrix, parted
from flywheel.learn.features import Spec
from flywheel.learn.matrix import Cache, Recipe
from flywheel.schema import NAME, NOTHING, TIME
from flywheel.segments import hash_names

SCHEMA = pa.schema(
    [
        ("ts", TIME),
        ("user", NAME),
        ("device", NAME),
        ("age", pa.float64()),
        ("label", pa.float64()),
        ("late", pa.bool_()),
    ]
)

LAG = 2


def config(**features):
    return parse(
        {
            "product": {"name": "p"},
            "source": {"url": "x.csv"},
            "contract": {"timestamp": "ts", "label": "y", "user": "u", "categorical": ["device"], "numeric": ["age"]},
            "windows": {"every": "1d", "attribution": "1d"},
            "features": {"counters": [{"key": ["user"]}, {"key": ["user", "device"], "backoff": "user"}], **features},
        }
    )


def rows(seed, n=30):
    rng = np.random.default_rng(seed)
    made = {
        "ts": [datetime(2024, 1, 1, tzinfo=UTC)] * n,
        "user": [f"u{i}" for i in rng.integers(0, 5, n)],
        "device": [f"d{i}" for i in rng.integers(0, 2 + seed, n)],
        "age": rng.normal(size=n),
        "label": rng.integers(0, 2, n).astype(float),
        "late": np.zeros(n, dtype=bool),
    }
    return pa.table(
        {
            k: pa.array(v, SCHEMA.field(k).type) if k not in ("user", "device") else pa.array(v).dictionary_encode()
            for k, v in made.items()
        }
    ).cast(SCHEMA)


@pytest.fixture
def tables():
    return {w: rows(w) for w in range(6)}


def cache(folder: Path, tables, *, own="", **features):
    recipe = Recipe(Spec(config(**features)), custom.from_text(own))
    chain = {w: f"data up to {w}" for w in tables}
    return Cache(folder, recipe, chain, partial(select, tables))


def select(tables, window, columns):
    table = tables[window]
    if missing := set(columns) - set(table.column_names):
        raise DataError(f"no column {missing}")
    return table.select(columns)


def built(folder, tables, advance=None, **options):
    made = cache(folder, tables, **options)
    made.build(list(tables), advance=advance)
    return {w: made.load(w).tobytes() for w in tables}


def test_a_window_more_gives_the_same_files_as_all_at_once(tmp_path, tables):
    for newest in range(1, 7):
        built(tmp_path / "one", {w: tables[w] for w in range(newest)})
    built(tmp_path / "all", tables)
    names = [sorted(p.name for p in (tmp_path / which / "features").glob("*")) for which in ("one", "all")]
    assert names[0] == names[1]
    assert len(names[0]) == 6


@pytest.mark.parametrize("damage", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:100], lambda b: b""])
def test_a_damaged_feature_file_is_made_again(tmp_path, tables, damage):
    whole = built(tmp_path, tables)
    for window in (0, 4, 5):
        path = cache(tmp_path, tables)._find(window)
        path.write_bytes(damage(path.read_bytes()))
        assert cache(tmp_path, tables).load(window).tobytes() == whole[window]
        assert cache(tmp_path, tables)._find(window).name == path.name


def test_damaged_counters_are_made_again(tmp_path, tables):
    whole = built(tmp_path / "whole", tables)
    before = {w: tables[w] for w in range(5)}
    built(tmp_path / "damaged", before)
    for path in (tmp_path / "damaged/state").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)
    assert built(tmp_path / "damaged", tables) == whole


def test_an_old_window_asked_for_again_is_made_from_the_dataset(tmp_path, tables):
    whole = built(tmp_path, tables)
    for path in (tmp_path / "features").glob("*"):
        path.unlink()
    for window in (1, 3):  # known by nothing, and by a state that is no longer kept
        assert cache(tmp_path, tables).load(window).tobytes() == whole[window]


def test_other_data_or_another_recipe_makes_other_files(tmp_path, tables):
    built(tmp_path, tables)
    assert cache(tmp_path, tables)._find(3)
    assert cache(tmp_path, tables, smoothing=3.0)._find(3) is None
    assert cache(tmp_path, tables, own="def a(rows): return rows['age']")._find(3) is None
    other = cache(tmp_path, tables)
    other.chain[3] = "corrected"
    assert other._find(3) is None


def test_own_columns_stand_last(tmp_path, tables):
    made = cache(tmp_path, tables, own="def double(rows): return rows['age'] * 2")
    made.build([3])
    assert made.recipe.names[-1] == "double"
    np.testing.assert_allclose(made.load(3)[:, -1], 2 * tables[3]["age"].to_numpy(), rtol=1e-6)


def test_own_columns_do_not_see_what_is_known_only_afterwards(tmp_path, tables):
    with pytest.raises(DataError, match=r"(?s)the feature peek failed.*label"):
        cache(tmp_path, tables, own="def peek(rows): return rows['label']").build([3])


def test_a_column_made_twice_is_refused(tmp_path):
    (tmp_path / "features.py").write_text("def age(rows): return rows['age']")
    with pytest.raises(DataError, match="the column age is made twice"):
        matrix.recipe(config(), tmp_path)


def test_a_vocabulary_is_what_was_known_then(tmp_path, tables):
    made = cache(tmp_path, tables)
    made.build(list(tables))
    known = [len(set().union(*(t["device"].to_pylist() for w, t in tables.items() if w <= upto))) for upto in tables]
    assert [made.vocabulary(upto)["device"] for upto in tables] == known
    for window in tables:
        codes = made.load(window)[:, made.recipe.names.index("device")]
        before = known[window - LAG] if window >= LAG else 0
        assert set(codes[~np.isnan(codes)]) <= set(range(before)), "a name has no number before its state does"
    assert before in codes + 1


def test_names_past_the_limit_are_missing(tmp_path, tables):
    made = cache(tmp_path, tables, max_categories=3)
    made.build(list(tables))
    column = made.load(5)[:, made.recipe.names.index("device")]
    assert set(column[~np.isnan(column)]) == {0, 1, 2}
    assert np.isnan(column).any()


def test_late_rows_teach_and_unlabelled_ones_do_not_and_both_have_features(tmp_path, tables):
    def with_first_labels(labels, late):
        first = pa.table(
            {
                "ts": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 3, TIME),
                "user": pa.array(["new"] * 3).dictionary_encode(),
                "device": pa.array(["d0"] * 3).dictionary_encode(),
                "age": [1.0] * 3,
                "label": pa.array(labels, pa.float64()),
                "late": late,
            }
        ).cast(SCHEMA)
        return {w: first if w in (0, 5) else tables[w] for w in tables}

    def count(labels, late, name):
        changed = with_first_labels(labels, late)
        made = cache(tmp_path / name, changed)
        made.build(list(changed))
        assert made.load(0).shape[0] == 3
        return made.load(5)[0, made.recipe.names.index("user__count_forever")]

    assert count([1.0, 0.0, 1.0], [False] * 3, "all") == 3
    assert count([1.0, None, 1.0], [False] * 3, "one unlabelled") == 2
    assert count([1.0, None, 1.0], [True] * 3, "late") == 2


def served(tables, states):
    """The tables as if their rows had been served from these states, in turn; None is a row that was imported."""
    return {
        w: table.append_column(
            "state", pa.array([states(w)[n % len(states(w))] for n in range(len(table))], pa.int32())
        )
        for w, table in tables.items()
    }


def at_their_end(tables):
    """The tables with every row at the last instant of its window, when every state that may serve it is closed."""
    grid = config().windows.grid
    return {
        w: t.set_column(0, "ts", pa.array([grid.end(w) - timedelta(microseconds=1)] * len(t), TIME))
        for w, t in tables.items()
    }


def test_rows_are_looked_up_as_of_the_state_they_were_served_from(tmp_path, tables):
    tables = at_their_end(tables)
    as_of = {age: built(tmp_path / str(age), served(tables, lambda w, a=age: [w - LAG - a])) for age in range(3)}
    mixed = cache(tmp_path / "mixed", served(tables, lambda w: [w - LAG - 2, None, w - LAG - 1]))
    mixed.build(list(tables))
    for w in tables:
        matrix = mixed.load(w)
        for place, age in enumerate((2, 0, 1)):
            whole = np.frombuffer(as_of[age][w], np.float32).reshape(matrix.shape)
            np.testing.assert_array_equal(matrix[place::3], whole[place::3])
    assert as_of[0][5] != as_of[1][5] != as_of[2][5]


def test_a_file_written_before_anybody_was_served_is_looked_up_as_ever(tmp_path, tables):
    assert built(tmp_path / "old", tables) == built(tmp_path / "new", served(at_their_end(tables), lambda w: [None]))


def test_whoever_serves_from_nothing_knows_nothing(tmp_path, tables):
    known = built(tmp_path, served(at_their_end(tables), lambda w: [NOTHING]))
    matrix = np.frombuffer(known[5], np.float32).reshape(len(tables[5]), -1)
    names = cache(tmp_path, tables).recipe.names
    assert not matrix[:, names.index("user__count_forever")].any()
    assert (matrix[:, names.index("user__mean_forever")] == 0.5).all()
    assert np.isnan(matrix[:, names.index("device")]).all()


def test_one_window_at_a_time_from_old_states_gives_the_same_as_all_at_once(tmp_path, tables):
    many = at_their_end({w: rows(w % 6) for w in range(16)})
    many = served(many, lambda w: [w - LAG - 1, max(w - LAG - 9, 0), max(w - LAG - 13, 0)])
    whole = built(tmp_path / "all", many)
    for newest in range(1, 17):
        built(tmp_path / "one", {w: many[w] for w in range(newest)})
    assert {w: cache(tmp_path / "one", many).load(w).tobytes() for w in many} == whole


def test_a_state_older_than_all_that_is_kept_is_found_block_by_block_too(tmp_path, tables, monkeypatch):
    many = served(at_their_end({w: rows(w % 6) for w in range(16)}), lambda w: [max(w - LAG - 12, 0), w - LAG])
    whole = built(tmp_path / "all", many)
    monkeypatch.setattr(matrix, "BLOCK_ROWS", 60)
    assert built(tmp_path / "blocks", many) == whole


def test_a_turn_a_week_serves_from_states_that_are_still_kept(tmp_path, tables, monkeypatch):
    """Seven days' windows are closed at once, and half their rows were served from the state of the week before."""
    many = served(at_their_end({w: rows(w % 6) for w in range(29)}), lambda w: [w // 7 * 7 - LAG - 6])
    built(tmp_path, {w: many[w] for w in range(22)})
    monkeypatch.setattr(Cache, "forget", None)
    built(tmp_path, many)


def test_what_is_known_is_the_newest_state(tmp_path, tables):
    made = cache(tmp_path, tables)
    assert made.known() is None
    made.build([5])
    known = made.known()
    assert known.window == 5
    keys, entries = known.counters["counter1"]
    assert sorted(keys.tolist()) == keys.tolist() == sorted(hash_names([f"u{n}" for n in range(5)]).tolist())
    assert entries["acc"][:, 0].sum() == sum(len(t) for t in tables.values())
    assert sorted(known.vocabularies["device"].values()) == list(range(made.vocabulary(5)["device"]))


def test_what_is_known_is_not_told_from_files_that_are_gone(tmp_path, tables):
    made = cache(tmp_path, tables)
    made.build([5])
    for path in (tmp_path / "state").rglob("counter2*.npy"):
        path.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        made.known()


def test_where_people_are_served_own_columns_are_not_offered_what_comes_of_it():
    without = config()
    assert {"position", "propensity"} & set(Spec(without).offered) == set()
    contract = without.model_dump()["contract"] | {"position": "p", "propensity": "pp", "item": "i", "request": "r"}
    logged = {**without.model_dump(), "contract": contract | {"event_id": "e", "label_time": "lt"}}
    assert {"position", "propensity"} <= set(Spec(parse(logged)).offered)
    assert Spec(parse(logged | {"serve": {}})).offered == ("ts", "user", "item", "request", "age", "device")


def test_what_was_known_as_of_a_window_is_what_was_newest_then(tmp_path, tables):
    whole = cache(tmp_path / "whole", tables)
    with pytest.raises(LookupError, match="no window is folded yet"):
        whole.known(3)
    whole.build([])
    for at in range(6):
        then = cache(tmp_path / str(at), {w: t for w, t in tables.items() if w <= at})
        then.build([])
        past, newest = whole.known(at), then.known()
        assert past.window == newest.window == at
        assert past.vocabularies == newest.vocabularies
        for name, (keys, entries) in newest.counters.items():
            assert past.counters[name][0].tolist() == keys.tolist()
            for field in entries.dtype.names:
                assert past.counters[name][1][field].tolist() == entries[field].tolist()
    assert whole.known(-1) is None
    with pytest.raises(LookupError, match="not kept apart"):
        whole.known(6)


def test_a_state_is_known_for_as_long_as_it_is_kept_apart_however_it_was_built(tmp_path):
    many = {w: rows(w) for w in range(14)}
    made = cache(tmp_path, many)
    made.build([])
    oldest = 13 - LAG - matrix.TURN_WINDOWS
    assert made.known(oldest).window == oldest
    with pytest.raises(LookupError, match="not kept apart"):
        made.known(oldest - 1)


def in_steps(times=None):
    """Every step as another process does it: what it is told has been written down and read again."""
    times = {} if times is None else times

    def spread(work, items):
        told = [pickle.loads(pickle.dumps((work, item))) for item in items]
        for work, item in told:
            times[work.func.__name__] = times.get(work.func.__name__, 0) + 1
            yield pickle.loads(pickle.dumps(work(item)))

    return partial(parted.advance, spread)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.npy")}


OWN = "def young(rows): return (rows['age'] < 0).astype(float)\n"


@pytest.mark.parametrize("block_rows", [60, 10_000_000])
def test_in_steps_come_the_same_files_as_in_one_process(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(matrix, "BLOCK_ROWS", block_rows)
    many = served(at_their_end({w: rows(w % 6) for w in range(16)}), lambda w: [w - LAG - 1, None, max(w - LAG - 9, 0)])
    whole = built(tmp_path / "one", many, own=OWN)
    assert built(tmp_path / "steps", many, in_steps(), own=OWN) == whole
    assert files(tmp_path / "steps") == files(tmp_path / "one")
    assert not (tmp_path / "steps" / "parted").exists()


def test_in_steps_a_turn_a_window_touches_that_window(tmp_path):
    many = {w: rows(w % 6) for w in range(12)}
    whole = built(tmp_path / "one", many)
    times = {}
    for newest in range(1, 13):
        built(tmp_path / "steps", {w: many[w] for w in range(newest)}, in_steps(times))
    assert {w: cache(tmp_path / "steps", many).load(w).tobytes() for w in many} == whole
    assert times == {"_tally": 12, "_fold": 12, "_look": 12}


def test_in_steps_damaged_counters_are_made_again(tmp_path, tables):
    made = cache(tmp_path, tables)
    made.build([4], advance=in_steps())
    for path in (tmp_path / "state").rglob("counter2*.npy"):
        path.write_bytes(b"x" * path.stat().st_size)
    for path in (tmp_path / "features").iterdir():
        path.unlink()
    made.build([4, 5], advance=in_steps())
    assert made.load(5).tobytes() == built(tmp_path / "other", tables)[5]
    assert made.known() is not None


def test_a_worker_of_another_version_is_refused(tmp_path, tables):
    part = replace(parted.Part.of(cache(tmp_path, tables)), recipe="another")
    with pytest.raises(ConfigError, match="another version of Flywheel"):
        part.open({})
