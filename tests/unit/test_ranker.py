"""The ranker by itself: arms, duplicates, odd requests, a workspace's own functions; and the folder it is read from."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from flywheel.config import parse
from flywheel.errors import DataError, IntegrityError
from flywheel.events import Candidate, Request
from flywheel.learn import custom, features
from flywheel.learn.features import Spec
from flywheel.learn.matrix import Cache, Recipe
from flywheel.schema import NOTHING, row_schema
from flywheel.sections import Serve
from flywheel.serve import snapshot as snapshots
from flywheel.serve.ranker import Canary, Ranker
from flywheel.serve.snapshot import Snapshot

CONFIG = parse(
    {
        "product": {"name": "p"},
        "contract": {
            **{role: role for role in ("label", "user", "item", "request", "event_id", "position", "propensity")},
            "timestamp": "ts",
            "label_time": "label_ts",
            "numeric": ["age"],
            "categorical": ["device"],
            "lists": {"genres": "|"},
        },
        "windows": {"every": "1d"},
        "features": {
            "counters": [
                {"key": ["item"], "half_lives": ["2d", "forever"]},
                {"key": ["item", "genres"], "half_lives": ["2d", "forever"], "backoff": "item"},
            ]
        },
        "serve": {},
    }
)
EXPLOIT = Serve(explore=0, holdback=0)
OWN = """
def double(rows): return rows["age"] * 2
def genres_known(rows): return rows["genres"].map(lambda names: -1 if names is None else len(names))
def hour(rows): return rows["ts"].dt.hour
def on_tv(rows): return (rows["device"] == "tv").astype(float)
"""
NOW = 1_767_225_600_000_000 + 3 * 3_600_000_000  # 3 o'clock
LABELS = {"good": 1.0, "fair": 0.5, "poor": 0.0}


def rows(items: dict[str, float], times: int = 20, **columns: object) -> pa.Table:
    lines = [{"event_id": "e", "ts": 0, "late": False, "label": y, "item": i, **columns} for i, y in items.items()]
    return pa.Table.from_pylist(lines * times, schema=row_schema(CONFIG))


def offline(folder, tables: list[pa.Table], own: str = "", first: int = 0) -> Cache:
    recipe = Recipe(Spec(CONFIG), custom.from_text(own))
    chain = {first + n: str(n) for n in range(len(tables))}
    return Cache(folder, recipe, chain, lambda window, columns: tables[window - first].select(columns))


def snapshot(folder, tables: list[pa.Table], own: str = "", first: int = 0) -> Snapshot:
    """The baseline on the state after these windows."""
    cache = offline(folder, tables, own, first)
    recipe = cache.recipe
    cache.build([])
    known = cache.known()
    return Snapshot(
        generation=0,
        recipe=recipe.fingerprint,
        config=CONFIG,
        state=known.window if known else NOTHING,
        counters=known.counters if known else {},
        vocabularies=known.vocabularies if known else {},
        names=recipe.names,
        types=recipe.types,
        sizes={},
        model=None,
        custom=own,
        golden=np.empty((0, len(recipe.names)), np.float32),
        golden_scores=np.empty(0),
    )


def popular(matrix):
    return matrix[:, 1].astype(np.float64)


def ranker(made: Snapshot, score=None, policy=EXPLOIT) -> Ranker:
    return Ranker(replace(made, generation=4 if score else 0), score, popular, policy)


def ask(*items, k=10, user="u", **context) -> Request:
    return Request(user, tuple(i if isinstance(i, Candidate) else Candidate(i) for i in items), context, k)


def shown(decision) -> list[str]:
    return [slot.item for slot in decision.shown]


@pytest.fixture
def known(tmp_path):
    return snapshot(tmp_path, [rows(LABELS)])


def test_the_best_known_come_first_and_the_decision_says_how_it_was_made(known):
    request = ask("poor", Candidate("good", {"genres": ["war"]}), "new", k=2, device="tv")
    decision = ranker(known).rank(request, decision_id="d1", now=NOW)
    assert shown(decision) == ["good", "new"]
    assert [(s.propensity, s.explored) for s in decision.shown] == [(1.0, False), (1.0, False)]
    assert decision.shown[0].attributes == {"genres": ["war"]}
    assert (decision.id, decision.ts, decision.user, decision.generation, decision.arm) == ("d1", NOW, "u", 0, "wheel")
    assert (decision.state, decision.recipe, decision.context) == (0, known.recipe, {"device": "tv"})
    assert decision.candidates == ("poor", "good", "new")


def test_before_there_is_any_data_equals_are_shown_by_lot(tmp_path):
    nothing = ranker(snapshot(tmp_path, []))
    firsts = Counter()
    for n in range(300):
        decision = nothing.rank(ask("a", "b", "c", k=1), decision_id=f"d{n}", now=NOW)
        assert decision.state == NOTHING
        assert decision.shown[0].propensity == pytest.approx(1 / 3)
        firsts[shown(decision)[0]] += 1
    assert min(firsts.values()) > 60


def test_a_few_lines_of_a_table_cost_no_more_than_a_few(known):
    """NumPy copies a whole array before it takes lines from one that is not in C's order."""
    for table in ranker(known)._lookup._tables:
        arrays = [table.keys, table.columns, table.means]
        arrays += [table.leaning.counts, table.leaning.sums] if table.leaning else []
        assert all(array.flags.c_contiguous for array in arrays)


def test_what_was_hashed_is_what_was_scored(known):
    made = ranker(known)
    request = ask("poor", "good")
    matrices = []
    made._baseline = made._champion = lambda matrix: (matrices.append(matrix), popular(matrix))[1]
    decision = made.rank(request, decision_id="d", now=NOW)
    assert [s.features for s in decision.shown] == features.digest(matrices[0][[1, 0]]).tolist()


def test_of_equal_candidates_the_first_counts_and_a_long_k_shows_all(known):
    request = ask(Candidate("good", {"genres": ["a"]}), "poor", Candidate("good", {"genres": ["b"]}), k=99)
    decision = ranker(known).rank(request, decision_id="d", now=NOW)
    assert shown(decision) == ["good", "poor"]
    assert decision.shown[0].attributes == {"genres": ["a"]}
    assert decision.candidates == ("good", "poor")
    assert ranker(known).scores(request)[0] == ranker(known).scores(request)[2]


def test_nothing_to_show_is_an_empty_list(known):
    decision = ranker(known).rank(ask(genres=["war", "noir"]), decision_id="d", now=NOW)
    assert (decision.shown, decision.candidates) == ((), ())


def test_the_holdback_is_sticky_and_of_the_size_that_was_asked_for(known):
    policy = Serve(explore=0, holdback=0.2, salt="s")
    one, other = ranker(known, policy=policy), ranker(known, lambda m: 1 - popular(m), policy)
    users = [f"user{n}" for n in range(4000)]
    arms = list(map(one.arm, users))
    assert arms == list(map(other.arm, users))
    assert Counter(arms)["holdback"] / len(users) == pytest.approx(0.2, abs=0.02)
    salted = list(map(ranker(known, policy=Serve(holdback=0.2, salt="t")).arm, users))
    both = sum(a == b == "holdback" for a, b in zip(arms, salted, strict=True))
    assert both / len(users) == pytest.approx(0.04, abs=0.015), "another salt, another holdback"
    assert set(map(ranker(known).arm, users)) == {"wheel"}
    assert [one.arm(user) for user in ("anna", "ü", "")] == ["wheel", "holdback", "wheel"], "in every version"


def test_the_holdback_has_the_baseline_for_good_and_the_wheel_its_champion(known):
    made = ranker(known, lambda matrix: 1 - popular(matrix), Serve(explore=0, holdback=0.5))
    told = {}
    for user in (f"u{n}" for n in range(20)):
        decision = made.rank(ask("good", "poor", user=user), decision_id="d", now=NOW)
        told.setdefault((decision.arm, decision.generation), set()).add(tuple(shown(decision)))
    assert told == {("wheel", 4): {("poor", "good")}, ("holdback", 0): {("good", "poor")}}


def tried(known, *, generation=5, share=0.3, policy=None) -> Ranker:
    """Generation 4 serves, and another serves a share of people first, who likes the poor."""
    policy = policy or Serve(explore=0, holdback=0.2, salt="s")
    made = Ranker(replace(known, generation=generation), lambda matrix: 1 - popular(matrix), popular, policy)
    return Ranker(replace(known, generation=4), popular, popular, policy, Canary(made, share))


def test_a_canary_has_a_sticky_share_of_the_wheel_and_none_of_the_holdback(known):
    users = [f"user{n}" for n in range(4000)]
    arms = list(map(tried(known).arm, users))
    without = list(map(ranker(known, policy=Serve(explore=0, holdback=0.2, salt="s")).arm, users))
    assert arms == list(map(tried(known).arm, users))
    assert [arm == "holdback" for arm in arms] == [arm == "holdback" for arm in without]
    counts = Counter(arms)
    assert counts["canary"] / (counts["canary"] + counts["wheel"]) == pytest.approx(0.3, abs=0.02)
    wider = list(map(tried(known, share=0.5).arm, users))
    assert all(b == "canary" for a, b in zip(arms, wider, strict=True) if a == "canary"), "who tried it goes on"
    next = list(map(tried(known, generation=6).arm, users))
    both = sum(a == b == "canary" for a, b in zip(arms, next, strict=True))
    assert both / len(users) == pytest.approx(0.8 * 0.3 * 0.3, abs=0.02), "not the same people every time"


def test_each_arm_is_answered_by_its_own_with_the_chances_it_had(known):
    policy = Serve(explore=0.2, holdback=0.2, salt="s")
    made, told = tried(known, policy=policy), {}
    for n in range(60):
        request = ask("good", "poor", user=f"u{n}")
        decision = made.rank(request, decision_id=f"d{n}", now=NOW)
        told.setdefault((decision.arm, decision.generation), Counter())[decision.shown[0].item] += 1
        alone = made.canary.ranker if decision.arm == "canary" else ranker(known, popular, policy)
        slots = alone._decide(request, decision.arm, decision_id=f"d{n}", now=NOW).shown
        assert decision.shown == slots
    firsts = {arm: counts.most_common(1)[0][0] for arm, counts in told.items()}
    assert firsts == {("wheel", 4): "good", ("canary", 5): "poor", ("holdback", 0): "good"}


def test_while_there_is_no_champion_both_arms_have_generation_0(known):
    made = ranker(known, policy=Serve(explore=0, holdback=0.5))
    decisions = [made.rank(ask("good", user=f"u{n}"), decision_id="d", now=NOW) for n in range(20)]
    assert {(d.arm, d.generation) for d in decisions} == {("wheel", 0), ("holdback", 0)}


@pytest.mark.parametrize("odd", [None, 3.5, "text", ["a", "b"], [], float("inf")])
def test_a_value_of_another_kind_is_as_good_as_none(known, odd):
    made = ranker(known)
    empty = made._lookup.matrix(ask("good"), ask("good").candidates, None, None)
    for name, kind in (("age", float), ("device", str), ("genres", list)):
        if not isinstance(odd, kind):
            for request in (ask("good", **{name: odd}), ask(Candidate("good", {name: odd}))):
                np.testing.assert_array_equal(made._lookup.matrix(request, request.candidates, None, None), empty)


def test_what_nobody_asked_for_is_passed_over(known):
    decision = ranker(known).rank(ask("good", colour="red"), decision_id="d", now=NOW)
    assert decision.context == {"colour": "red"}


def test_own_functions_see_what_they_see_offline(tmp_path):
    lines = [
        {"item": "good", "device": "tv", "age": 3.0, "genres": ["war", "noir"]},
        {"item": "poor", "device": "tv", "age": 3.0, "genres": None},
        {"item": "poor", "device": None, "age": None, "genres": []},
    ]
    window = CONFIG.windows.grid.index(datetime.fromtimestamp(NOW / 1e6, UTC))
    fixed = {"event_id": "e", "user": "u", "request": "d", "late": False, "ts": NOW, "state": window - 1, "label": 1.0}
    collected = [line | {"genres": line["genres"] or None} | fixed for line in lines]  # an empty list is none
    table = pa.Table.from_pylist(collected, schema=row_schema(CONFIG))
    made = snapshot(tmp_path, [rows(LABELS)], OWN, first=window - 1)
    expected = offline(tmp_path / "offline", [rows(LABELS), table], OWN, first=window - 1).load(window)
    candidates = tuple(Candidate(line.pop("item"), line) for line in lines)
    matrix = ranker(made)._lookup.matrix(ask(*candidates), candidates, "d", NOW)
    np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_array_equal(matrix[:, -4:], [[6, 2, 3, 1], [6, -1, 3, 1], [np.nan, -1, 3, 0]])
    shared = ask("good", Candidate("poor", {"age": "old", "device": 3.0}), device="tv", age=3, genres="war")
    matrix = ranker(made)._lookup.matrix(shared, shared.candidates, "d", NOW)
    np.testing.assert_array_equal(matrix[:, -4:], [[6, -1, 3, 1], [np.nan, -1, 3, 0]])


def test_own_functions_cannot_know_the_slot_before_it_is_filled(tmp_path):
    own = "def peek(rows): return rows['position']"
    made = ranker(snapshot(tmp_path, [], own))
    with pytest.raises(DataError, match=r"(?s)the feature peek failed.*position"):
        made.rank(ask("a"), decision_id="d", now=NOW)
    with pytest.raises(DataError, match=r"(?s)the feature peek failed.*position"):
        offline(tmp_path, [rows(LABELS)], own).build([0])


def test_a_model_with_other_columns_is_refused(known):
    with pytest.raises(IntegrityError, match=r"(?s)other columns than are made.*in one list only: device, devise"):
        ranker(replace(known, names=(*known.names[:-1], "devise")))


def test_a_snapshot_is_read_back_as_it_was_written(tmp_path, known):
    made = replace(
        known,
        generation=3,
        model=b"ubj",
        custom=OWN,
        sizes={"device": 2},
        golden=np.array([[np.nan, 1]], np.float32),
        golden_scores=np.array([0.25]),
    )
    snapshots.write(tmp_path / "s/3", made)
    back = snapshots.read(tmp_path / "s/3")
    for name in (
        "generation",
        "recipe",
        "config",
        "state",
        "vocabularies",
        "names",
        "types",
        "sizes",
        "model",
        "custom",
    ):
        assert getattr(back, name) == getattr(made, name), name
    for name in ("golden", "golden_scores"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    assert list(back.counters) == list(made.counters)
    for table, (keys, entries) in made.counters.items():
        assert back.counters[table][0].tobytes() == keys.tobytes()
        assert back.counters[table][1].tobytes() == entries.tobytes()
    assert isinstance(back.counters["counter1"][0], np.memmap)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["3"]


def test_the_baseline_s_snapshot_has_no_model(tmp_path, known):
    snapshots.write(tmp_path / "s", known)
    assert snapshots.read(tmp_path / "s").model is None
    assert not (tmp_path / "s/model.ubj").exists()


def test_any_file_of_a_snapshot_that_is_not_what_was_written_is_named(tmp_path, known):
    snapshots.write(tmp_path / "whole", replace(known, model=b"ubj" * 100))
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(names) == 4 + 2 * 3
    for name in names:
        path = tmp_path / "whole" / name
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (flipped, content[:middle], b"", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(IntegrityError, match=f"{name} of the snapshot is not what was written"):
                snapshots.read(tmp_path / "whole")
        path.write_bytes(content)
    assert snapshots.read(tmp_path / "whole").state == 0


def test_a_snapshot_that_says_something_else_now_is_not_read(tmp_path, known):
    snapshots.write(tmp_path / "s", known)
    path = tmp_path / "s/snapshot.json"
    path.write_text(path.read_text().replace('"state": 0', '"state": 1'))
    with pytest.raises(IntegrityError, match=r"snapshot\.json of the snapshot is not what was written"):
        snapshots.read(tmp_path / "s")


def test_a_snapshot_of_another_format_is_not_read(tmp_path, known):
    snapshots.write(tmp_path / "s", known)
    path = tmp_path / "s/snapshot.json"
    told = json.loads(path.read_text()) | {"format": 99}
    told.pop("sha256")
    path.write_text(json.dumps(told | {"sha256": snapshots._digest(told)}))
    with pytest.raises(IntegrityError, match="format 99"):
        snapshots.read(tmp_path / "s")


def test_a_snapshot_that_cannot_be_written_leaves_nothing(tmp_path, known):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(OSError, match="not empty"):
        snapshots.write(tmp_path / "taken", known)
    assert [path.name for path in tmp_path.iterdir() if "taken" in path.name] == ["taken"]
