"""What holds of every simulated world, whatever its size and seed."""

from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.simulator.deliveries import spoil_rows
from flywheel.simulator.log import live, live_day, random_shelf, simulate
from flywheel.simulator.oracle import oracle
from flywheel.simulator.product import shuffle
from flywheel.simulator.society import Habits, begin
from flywheel.simulator.society import live_day as live_together
from flywheel.simulator.world import Settings, found

START = datetime(2026, 1, 5, tzinfo=UTC)
seeds = st.integers(0, 2**32)
worlds = st.builds(
    lambda shelf, more, **sizes: Settings(shelf=shelf, items=shelf + more, **sizes),
    shelf=st.integers(1, 8),
    more=st.integers(0, 30),
    users=st.integers(1, 40),
    joins_per_day=st.floats(0, 8),
    releases_per_day=st.floats(0, 4),
    sessions_per_day=st.floats(0, 2),
)


def as_bytes(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


@settings(max_examples=25, deadline=None)
@given(worlds, seeds, st.integers(1, 5))
def test_the_same_seed_makes_the_same_bytes(sizes, seed, days):
    one = simulate(sizes, start=START, days=days, seed=seed)
    two = simulate(sizes, start=START, days=days, seed=seed)
    assert [as_bytes(table) for table in one] == [as_bytes(table) for table in two]


@settings(max_examples=25, deadline=None)
@given(worlds, seeds)
def test_another_seed_makes_another_world(sizes, seed):
    one, two = (found(sizes, start=START, seed=s) for s in (seed, seed + 1))
    assert not np.array_equal(one.users.taste, two.users.taste)
    assert not np.array_equal(one.items.quality, two.items.quality)


@settings(max_examples=25, deadline=None)
@given(worlds, seeds, st.integers(1, 4), st.integers(1, 4))
def test_a_longer_run_begins_with_the_shorter_one_and_can_go_on_from_it(sizes, seed, days, more):
    world = found(sizes, start=START, seed=seed)
    whole, end = live(world, days=days + more, shelf=random_shelf)
    first, between = live(world, days=days, shelf=random_shelf)
    rest, last = live(between.tomorrow(), days=more, shelf=random_shelf)
    assert pa.concat_tables([first, rest]).equals(whole)
    for one, two in ((end.users, last.users), (end.items, last.items)):
        assert all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))


@settings(max_examples=25, deadline=None)
@given(worlds, seeds)
def test_a_day_does_not_change_the_world_it_is_lived_in(sizes, seed):
    world = found(sizes, start=START, seed=seed).tomorrow()
    assert live_day(world, random_shelf).equals(live_day(world, random_shelf))
    users, items = len(world.users.joined), len(world.items.released)
    later = world.tomorrow()
    assert (len(world.users.joined), len(world.items.released)) == (users, items)
    assert np.array_equal(later.users.taste[:users], world.users.taste)
    assert np.array_equal(later.items.quality[:items], world.items.quality)


@settings(max_examples=25, deadline=None)
@given(worlds, seeds, st.integers(1, 4))
def test_every_row_is_possible(sizes, seed, days):
    events, world = live(found(sizes, start=START, seed=seed), days=days, shelf=random_shelf)
    truth = world.truth_of(events)
    assert ((truth >= 0) & (truth <= 1)).all()
    assert len(events) % sizes.shelf == 0
    assert pc.count_distinct(events["event_id"]).as_py() == len(events)
    shown = list(zip(events["request_id"].to_pylist(), events["item_id"].to_pylist(), strict=True))
    assert len(set(shown)) == len(shown)
    for low, name, high in ((0, "hour", 23), (1, "position", sizes.shelf), (0, "watched", 1)):
        assert all(low <= value <= high for value in events[name].to_pylist())
    assert all(0 < value <= 1 for value in events["propensity"].to_pylist())
    assert pc.all(pc.greater(events["watched_ts"], events["ts"])).as_py() in (True, None)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(8, 700))
def test_spoiling_is_repeatable_and_counts_every_row(seed, rows):
    events = simulate(Settings(users=60, items=12, sessions_per_day=2), start=START, days=2, seed=4).events.slice(
        0, rows
    )
    bad, done = spoil_rows(events, seed)
    again, _ = spoil_rows(events, seed)
    assert as_bytes(bad) == as_bytes(again)
    assert len(bad) == len(events) + done["repeated"] + done["contradicted"]
    assert sum(done.values()) == len(events)


habits = st.builds(
    Habits,
    candidates=st.integers(8, 40),
    hope=st.floats(0, 3),
    memory=st.floats(0, 1),
    leave=st.floats(0, 1),
    patience=st.floats(0.1, 5),
    telling=st.floats(0, 1),
    lost=st.floats(0, 1),
    twice=st.floats(0, 1),
)


def lived(society, days, rank):
    found = []
    for _ in range(days):
        day, society = live_together(society, oracle(society) if rank is oracle else rank)
        found.append(day)
    return found, society


def same(one, two):
    parts = [one.satisfaction, one.left, *(getattr(one.world.users, f.name) for f in fields(one.world.users))]
    others = [two.satisfaction, two.left, *(getattr(two.world.users, f.name) for f in fields(two.world.users))]
    return all(np.array_equal(a, b) for a, b in zip(parts, others, strict=True))


@settings(max_examples=25, deadline=None)
@given(worlds, habits, seeds, st.integers(1, 3), st.integers(1, 3), st.sampled_from([shuffle(1), oracle]))
def test_a_society_lives_the_same_life_again_and_a_longer_one_begins_with_the_shorter(
    sizes, ways, seed, days, more, rank
):
    whole, end = lived(begin(sizes, ways, start=START, seed=seed), days + more, rank)
    first, between = lived(begin(sizes, ways, start=START, seed=seed), days, rank)
    rest, last = lived(between, more, rank)
    assert first + rest == whole
    assert same(end, last)


@settings(max_examples=25, deadline=None)
@given(worlds, habits, seeds, st.integers(1, 4))
def test_nobody_is_lost_and_every_outcome_has_its_list(sizes, ways, seed, days):
    found, society = lived(begin(sizes, ways, start=START, seed=seed), days, shuffle(1))
    joined = sum(day.figures.joined for day in found[1:])
    left = sum(day.figures.left for day in found)
    assert len(society.satisfaction) == len(society.world.users.joined)
    assert sizes.users + joined - left == found[-1].figures.active
    assert len(society.left) == left
    assert (society.satisfaction >= 0).all()
    for day in found:
        lists = {answer.decision: answer.items for answer in day.answers}
        assert len(lists) == len(day.asks) == day.figures.visits
        assert all(arrival.outcome.item in lists[arrival.outcome.decision_id] for arrival in day.arrivals)
