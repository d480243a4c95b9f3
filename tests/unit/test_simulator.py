"""The simulated product: its log is what its truth says, and the same whoever makes it again."""

import hashlib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from flywheel.simulator.deliveries import spoil, spoil_rows, write_deliveries
from flywheel.simulator.log import (
    ATTRIBUTION,
    example,
    live,
    live_day,
    random_shelf,
    simulate,
    unanswered,
    visits,
    watch,
)
from flywheel.simulator.oracle import oracle
from flywheel.simulator.population import DEVICES, GENRES, title
from flywheel.simulator.post import LATEST, post
from flywheel.simulator.product import Answer, Arrival, due, shuffle
from flywheel.simulator.society import Habits, begin, closed_example, history
from flywheel.simulator.society import live_day as live_together
from flywheel.simulator.world import DAY, Settings, found

START = datetime(2026, 1, 5, tzinfo=UTC)
SECOND = 1_000_000  # microseconds
COLUMNS = "event_id ts request_id user_id item_id position device hour genres propensity watched watched_ts minutes"


@pytest.fixture(scope="module")
def run():
    return live(found(Settings(), start=START, seed=3), days=42, shelf=random_shelf)


@pytest.fixture(scope="module")
def events(run):
    return run[0]


@pytest.fixture(scope="module")
def world(run):
    return run[1]


def auc(label, score):
    ranks = np.argsort(np.argsort(score)) + 1.0
    ones = label.sum()
    return (ranks[label == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(label) - ones))


def seconds(column):
    return column.cast(pa.int64()).to_numpy() // 1_000_000


@pytest.fixture(scope="module")
def shipped():
    return simulate(**example())


def test_the_example_is_eight_weeks_and_small_enough_to_ship(tmp_path, shipped):
    assert 25_000 < len(shipped.events) < 80_000
    paths = write_deliveries(tmp_path, shipped.events)
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) < 3_000_000


def test_a_log_has_the_columns_a_product_would_write(events):
    assert events.column_names == COLUMNS.split()
    assert all(column.null_count == 0 for column in events.columns)
    assert len(pc.unique(events["event_id"])) == len(events)
    assert (np.diff(seconds(events["ts"])) >= 0).all()


def test_every_id_of_the_log_is_in_its_table():
    log = simulate(Settings(users=30, items=10), start=START, days=9, seed=1)
    items, users = log.items, log.users
    assert pc.all(pc.is_in(log.events["item_id"], items["item_id"])).as_py()
    assert pc.all(pc.is_in(log.events["user_id"], users["user_id"])).as_py()
    genres = dict(zip(items["item_id"].to_pylist(), items["genres"].to_pylist(), strict=True))
    pairs = zip(log.events["item_id"].to_pylist(), log.events["genres"].to_pylist(), strict=True)
    assert all(genres[item] == names for item, names in pairs)


def test_nobody_is_there_before_joining_and_nothing_is_shown_before_its_release(world, events):
    ts = seconds(events["ts"]) - int(START.timestamp())
    users = np.array([int(name[1:]) for name in events["user_id"].to_pylist()])
    items = np.array([int(name[1:]) for name in events["item_id"].to_pylist()])
    assert (world.users.joined[users] <= ts).all()
    assert (world.items.released[items] <= ts).all()
    assert (world.users.joined > 0).sum() > 300
    assert (world.items.released > 0).sum() > 20


def test_a_shelf_shows_each_item_once_in_slots_counted_from_one(events):
    items = events["item_id"].to_numpy(zero_copy_only=False).reshape(-1, 6)
    assert all(len(set(shelf)) == 6 for shelf in items)
    assert (events["position"].to_numpy().reshape(-1, 6) == np.arange(1, 7)).all()
    assert len(pc.unique(events["request_id"])) == len(items)


def test_the_random_shelf_shows_with_the_propensity_it_logs():
    world = found(Settings(users=4000, items=12, sessions_per_day=5), start=START, seed=1)
    sessions = visits(world)
    items, propensity = random_shelf(world, sessions, world.stream(0, "shelf"))
    assert (propensity == 6 / 12).all()
    expected = len(items) / 12
    for slot in items.T:
        counts = np.bincount(slot, minlength=12)
        assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected)


def test_what_is_watched_is_what_the_truth_expects(world, events):
    """Residuals cancel in every bin of the truth and along it; their error is clustered by session (one mood)."""
    expected = world.truth_of(events)
    residual = events["watched"].to_numpy() - expected
    bins = np.digitize(expected, [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
    moments = [bins == number for number in range(7)] + [np.log(expected / (1 - expected))]
    for moment in moments:
        per_session = (residual * moment).reshape(-1, 6).sum(axis=1)
        assert abs(per_session.sum()) < 4 * np.sqrt((per_session**2).sum())


def test_the_top_slot_is_watched_most(events):
    watched = events["watched"].to_numpy().reshape(-1, 6).mean(axis=0)
    assert watched[0] > 1.7 * watched[3]
    assert watched[3] > watched[5]


def test_the_truth_ranks_far_better_than_popularity_does(world, events):
    watched, items = events["watched"].to_numpy(), events["item_id"].dictionary_encode().combine_chunks()
    codes = items.indices.to_numpy()
    popularity = np.bincount(codes, watched) / np.bincount(codes)
    oracle = auc(watched, world.truth_of(events))
    assert oracle > 0.78
    assert 0.53 < auc(watched, popularity[codes]) < oracle - 0.15


def test_what_is_known_of_a_users_genres_tells_what_they_watch_next(events):
    """The signal that counters need: first half counted, second half predicted."""
    half = len(events) // 2
    users = events["user_id"].to_pylist()
    genres = [names.split("|") for names in events["genres"].to_pylist()]
    watched = events["watched"].to_numpy()
    seen = {}
    for user, names, label in zip(users[:half], genres[:half], watched[:half], strict=True):
        for name in names:
            sum_, count = seen.get((user, name), (0, 0))
            seen[user, name] = (sum_ + label, count + 1)

    def score(user, names):
        means = [(seen.get((user, n), (0, 0))[0] + 2) / (seen.get((user, n), (0, 0))[1] + 10) for n in names]
        return sum(means) / len(means)

    scores = np.array([score(*pair) for pair in zip(users[half:], genres[half:], strict=True)])
    assert auc(watched[half:], scores) > 0.6


def test_outcomes_come_minutes_to_a_day_later_and_silence_at_its_end(events):
    wait = seconds(events["watched_ts"]) - seconds(events["ts"])
    watched = events["watched"].to_numpy() == 1
    limit = ATTRIBUTION.total_seconds()
    assert (wait[~watched] == limit).all()
    assert wait[watched].min() >= 60
    assert wait[watched].max() < limit
    assert 20 * 60 < np.median(wait[watched]) < 80 * 60
    assert np.quantile(wait[watched], 0.99) > 8 * 3600


def test_minutes_are_watched_only_of_what_is_watched(world, events):
    minutes, watched = events["minutes"].to_numpy(), events["watched"].to_numpy()
    assert ((minutes > 0) == (watched == 1)).all()
    items = np.array([int(name[1:]) for name in events["item_id"].to_pylist()])
    assert (minutes <= world.items.length[items]).all()


def test_unanswered_takes_back_exactly_what_silence_said(events):
    honest = unanswered(events)
    silent = pc.equal(events["watched"], 0)
    assert honest.schema == events.schema
    assert honest["watched"].null_count == honest["watched_ts"].null_count == pc.sum(silent).as_py() > 0
    assert honest.filter(pc.invert(silent)).equals(events.filter(pc.invert(silent)))


def test_whoever_chooses_by_the_truth_is_watched_more_and_as_expected():
    """Any policy plugs in, and its expected reward is known before anybody watches."""

    def oracle(world, sessions, rng):
        items = np.arange(len(world.items.released))[None, :]
        user, at, device = sessions.user[:, None], sessions.at[:, None], sessions.device[:, None]
        truth = world.truth(user, items, position=np.array([1]), device=device, at=at)
        best = np.argsort(-truth, axis=1)[:, : world.settings.shelf]
        return best, np.ones(best.shape)

    begin = found(Settings(users=300, sessions_per_day=1), start=START, seed=5)
    chosen, world = live(begin, days=4, shelf=oracle)
    shown, same = live(begin, days=4, shelf=random_shelf)
    expected = world.truth_of(chosen).mean()
    assert expected > 2 * same.truth_of(shown).mean()
    assert abs(pc.mean(chosen["watched"]).as_py() - expected) < 0.02
    for column in ("ts", "user_id", "device"):
        assert chosen[column].equals(shown[column])


def test_truth_broadcasts_over_users_items_and_slots(world):
    user, item = np.arange(5)[:, None, None], np.arange(7)[None, :, None]
    slot = np.arange(1, 7)[None, None, :]
    truth = world.truth(user, item, position=slot, device=np.int64(0), at=np.int64(40 * DAY))
    assert truth.shape == (5, 7, 6)
    assert ((truth > 0) & (truth < 1)).all()
    assert (np.diff(truth, axis=2) < 0).all()


def test_hours_are_local(world):
    midnight = np.zeros(1, np.int64)
    for country, hour in enumerate((1, 21, 9, 3)):
        who = np.flatnonzero(world.users.country == country)[:1]
        assert world.hour(who, midnight).tolist() == [hour]


def test_a_new_user_comes_at_the_moment_of_joining():
    world = found(Settings(users=1, joins_per_day=50, sessions_per_day=0), start=START, seed=1).tomorrow()
    sessions = visits(world)
    assert len(sessions.at) > 20
    assert (sessions.at == world.users.joined[sessions.user]).all()


def test_a_day_on_which_nobody_comes_is_an_empty_table(events):
    quiet = found(Settings(users=1, sessions_per_day=0), start=START, seed=1)
    table = live_day(quiet, random_shelf)
    assert len(table) == 0
    assert table.schema == events.schema


def test_no_two_days_are_alike():
    world = found(Settings(users=400, joins_per_day=0, releases_per_day=0), start=START, seed=1).tomorrow()
    one, two = live_day(world, random_shelf), live_day(world.tomorrow(), random_shelf)
    pairs = [set(zip(t["user_id"].to_pylist(), t["item_id"].to_pylist(), strict=True)) for t in (one, two)]
    assert len(pairs[0] & pairs[1]) < 0.1 * min(map(len, pairs))


def test_titles_are_made_up_and_differ():
    assert len({title(n) for n in range(50_000)}) == 50_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "needs a user"),
        ({"items": 5}, "as many items as a shelf holds"),
        ({"shelf": 0}, "as a shelf holds"),
        ({"joins_per_day": -1}, "cannot shrink"),
        ({"sessions_per_day": -0.1}, "cannot shrink"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


@pytest.mark.parametrize(
    "start", [datetime(2026, 1, 5, 3, tzinfo=UTC), START.replace(tzinfo=None), START + timedelta(microseconds=1)]
)
def test_a_start_that_is_no_utc_midnight_is_refused(start):
    with pytest.raises(ValueError, match="midnight in UTC"):
        found(Settings(), start=start, seed=1)


def test_a_run_of_no_days_is_refused():
    with pytest.raises(ValueError, match="at least a day"):
        simulate(Settings(), start=START, days=0, seed=1)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_deliveries_hold_every_row_once_each_in_its_span(tmp_path, events, form):
    first = write_deliveries(tmp_path / "a", events, form=form)
    second = write_deliveries(tmp_path / "b", events, form=form)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    tables = [pq.read_table(p) if form == "parquet" else csv.read_csv(p) for p in first]
    assert [p.stem for p in first] == [f"events-{START + timedelta(weeks=n):%Y-%m-%d}" for n in range(6)]
    ids = pa.concat_arrays([chunk for table in tables for chunk in table["event_id"].chunks])
    assert ids.equals(events["event_id"].combine_chunks())
    for number, table in enumerate(tables):
        week = (seconds(table["ts"].cast(pa.timestamp("us", tz="UTC"))) - int(START.timestamp())) // (7 * DAY)
        assert (week == number).all()


def test_a_spoiled_delivery_is_bad_in_exactly_the_ways_it_says(events):
    good = events.slice(0, 4000)
    bad, done = spoil_rows(good, seed=1)
    ts, users = bad["ts"].to_pylist(), bad["user_id"].to_pylist()
    assert done == {
        **dict.fromkeys(
            ["repeated", "contradicted", "naive", "far_off", "no_user", "no_label", "impossible_propensity"], 20
        ),
        "odd_device": 20,
        "untouched": 4000 - 8 * 20,
    }
    assert len(bad) == 4040
    assert sum(not text.endswith("Z") for text in ts) == done["naive"]
    assert sum(text > "2070" for text in ts) == done["far_off"]
    assert users.count(None) == done["no_user"]
    assert pc.sum(pc.is_nan(bad["watched"])).as_py() == done["no_label"]
    assert pc.sum(pc.greater(bad["propensity"], 1)).as_py() == done["impossible_propensity"]
    assert pc.sum(pc.invert(pc.is_in(bad["device"], pa.array(DEVICES)))).as_py() == done["odd_device"]


def test_second_copies_stand_at_the_end_and_the_rest_is_as_it_was(events):
    good = events.slice(0, 4000)
    bad, done = spoil_rows(good, seed=1)
    first = {row["event_id"]: row for row in bad.slice(0, 4000).to_pylist()}
    repeated = bad.slice(4000, done["repeated"]).to_pylist()
    against = bad.slice(4000 + done["repeated"]).to_pylist()
    assert all(row == first[row["event_id"]] for row in repeated)
    assert all(row == first[row["event_id"]] | {"watched": 1 - first[row["event_id"]]["watched"]} for row in against)
    untouched = 0
    twice = {row["event_id"] for row in repeated + against}
    for before in good.to_pylist():
        after = first[before["event_id"]]
        same = after == before | {"ts": before["ts"].strftime("%Y-%m-%dT%H:%M:%SZ")}
        untouched += same and before["event_id"] not in twice
    assert untouched == done["untouched"]


def test_spoil_renames_a_column_on_top(events):
    rows, _ = spoil_rows(events, seed=1)
    bad, done = spoil(events, seed=1)
    assert done["renamed_columns"] == 1
    assert bad.rename_columns({"device_type": "device"}).drop("watched").equals(rows.drop("watched"))


def test_too_small_a_delivery_cannot_be_spoiled(events):
    with pytest.raises(ValueError, match="7 rows cannot hold 8 kinds"):
        spoil_rows(events.slice(0, 7), seed=1)


def test_the_shipped_log_is_the_same_to_the_last_byte(shipped):
    """The repository's example data were made from it: a change here is a change of history."""
    digests = []
    for table in shipped:
        sink = pa.BufferOutputStream()
        csv.write_csv(table, sink)
        digests.append(hashlib.sha256(sink.getvalue()).hexdigest()[:12])
    assert digests == ["b4151fe4e63b", "6e3c2e2a6232", "32b548027564"]


TOGETHER = {"settings": Settings(users=300, joins_per_day=1, items=80, sessions_per_day=0.5), "start": START, "seed": 3}


def lived(rank, days, *, seed=3, habits=None, settings=None):
    """A society that lived so many days with a product: its days, and the next morning. `rank` may need the morning."""
    society = begin(
        **TOGETHER | {"seed": seed, "settings": settings or TOGETHER["settings"]}, habits=habits or Habits()
    )
    found = []
    for _ in range(days):
        day, society = live_together(society, oracle(society) if rank is oracle else rank)
        found.append(day)
    return found, society


@pytest.fixture(scope="module")
def shuffled():
    return lived(shuffle(1), 42)


@pytest.fixture(scope="module")
def known():
    return lived(oracle, 42)


def test_a_society_asks_as_a_product_is_asked(shuffled):
    days, society = shuffled
    world = society.world
    for number, day in enumerate(days):
        assert [ask.ts for ask in day.asks] == sorted(ask.ts for ask in day.asks)
        for ask in day.asks:
            since = ask.ts // SECOND - int(START.timestamp())
            user, items = int(ask.request.user[1:]), [int(c.item[1:]) for c in ask.request.candidates]
            assert since // DAY == number
            assert ask.request.context["device"] in DEVICES
            assert ask.request.context["hour"] == world.hour(np.array([user]), np.array([since]))[0]
            assert ask.request.k == 6
            assert len(set(items)) == 40
            assert (world.items.released[items] <= since).all()
            assert world.users.joined[user] <= since
            for candidate, row in zip(ask.request.candidates, world.items.genres[items], strict=True):
                assert candidate.attributes == {"genres": [GENRES[g] for g in np.flatnonzero(row)]}


def test_where_few_items_are_out_all_of_them_are_candidates():
    days, _ = lived(shuffle(1), 1, settings=Settings(users=30, items=7, sessions_per_day=1))
    assert all(len(ask.request.candidates) == 7 for ask in days[0].asks)


def test_candidates_are_drawn_evenly():
    days, _ = lived(shuffle(1), 1, settings=Settings(users=3000, items=80, sessions_per_day=1))
    counts = np.bincount([int(c.item[1:]) for ask in days[0].asks for c in ask.request.candidates], minlength=80)
    expected = len(days[0].asks) / 2
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected / 2)


def test_what_a_society_watches_is_what_the_truth_expects(known, shuffled):
    """For a good product as for a bad one; the error is clustered by visit (one mood)."""
    for days, _ in (known, shuffled):
        visits = sum(day.figures.visits for day in days)
        watched, expected = (sum(getattr(day.figures, name) for day in days) for name in ("watched", "expected"))
        assert abs(watched - expected) < 4 * 1.6 * np.sqrt(visits)  # a visit's count has a deviation of about 1.6


def test_the_truth_is_the_mean_of_many_days_with_the_same_lists():
    society = begin(**TOGETHER, habits=Habits())
    answers = shuffle(1)(society.asks)
    items = society.shown(answers)
    watched = [watch(replace(society.world, seed=seed), society.sessions, items)[0] for seed in range(400)]
    error = np.mean(watched, axis=0) - society.expected(items)
    assert np.abs(error).max() < 4.5 * 0.5 / np.sqrt(400)


def test_better_lists_keep_people_and_bring_others(known, shuffled):
    good, bad = (history([day.figures for day in days], 42)[0] for days, _ in (known, shuffled))
    assert good.reward > 1.5 * bad.reward
    assert good.left / good.visits < 0.7 * bad.left / bad.visits
    assert good.joined > 2 * bad.joined
    assert good.active > 1.5 * bad.active


def test_the_more_satisfied_people_are_the_fewer_leave_and_the_more_come():
    """Satisfaction alone decides: the very same visits, of people who remember nothing new."""
    habits = Habits(memory=0, leave=0.5, telling=0.5)
    society = begin(**TOGETHER | {"settings": Settings(users=3000, joins_per_day=1, sessions_per_day=1)}, habits=habits)
    left, joined = [], []
    for level in (0.0, 1.0, 2.0, 3.0, 4.0):
        one = replace(society, satisfaction=np.full(3000, level))
        day, tomorrow = live_together(one, shuffle(1))
        left.append(day.figures.left)
        joined.append(len(tomorrow.world.users.joined) - 3000)
        visitors = len(np.unique(society.sessions.user))
        assert day.figures.left == pytest.approx(visitors * 0.5 * np.exp(-level), rel=0.15, abs=10)
        assert joined[-1] == pytest.approx(1 + (visitors - left[-1]) * 0.5 * max(0, level - 2.0), rel=0.15, abs=4)
    assert left == sorted(left, reverse=True)
    assert joined == sorted(joined)
    assert left[-1] < left[0] / 4
    assert joined[-1] > joined[0] + 500


def test_visits_are_remembered_one_after_the_other():
    habits = Habits(memory=0.25, leave=0)
    society = begin(**TOGETHER | {"settings": Settings(users=20, items=40, sessions_per_day=3)}, habits=habits)
    day, tomorrow = live_together(society, shuffle(1))
    watched = watch(society.world, society.sessions, society.shown(day.answers))[0].sum(axis=1)
    expected = np.full(20, habits.hope)
    for user, gave in zip(society.sessions.user.tolist(), watched.tolist(), strict=True):
        expected[user] = 0.75 * expected[user] + 0.25 * gave
    assert len(day.asks) > 40
    assert tomorrow.satisfaction[:20] == pytest.approx(expected)
    assert (tomorrow.satisfaction[20:] == habits.hope).all()


def test_whoever_left_never_comes_again(shuffled):
    days, _ = lived(shuffle(1), 20, habits=Habits(leave=0.5))
    society, gone = begin(**TOGETHER, habits=Habits(leave=0.5)), set()
    for day in days:
        assert not gone & {int(ask.request.user[1:]) for ask in day.asks}
        assert gone == set(society.left.tolist())
        active = len(society.satisfaction) - len(society.left)
        _, society = live_together(society, shuffle(1))
        gone = set(society.left.tolist())
        assert day.figures.active == active - day.figures.left
    assert len(gone) > 100
    assert sum(day.figures.left for day in days) == len(gone)


def test_only_what_was_shown_can_change_a_world():
    """The same lists under other ids and propensities: the same world, and outcomes that differ in ids alone."""

    def renamed(asks):
        return [Answer(f"x{n}", answer.items, (0.5,) * 6) for n, answer in enumerate(shuffle(1)(asks))]

    one, two = lived(shuffle(1), 5), lived(renamed, 5)
    assert [day.figures for day in one[0]] == [day.figures for day in two[0]]
    assert [day.asks for day in one[0]] == [day.asks for day in two[0]]
    assert [(a.at, a.outcome.event_id, a.outcome.item) for day in one[0] for a in day.arrivals] == [
        (a.at, a.outcome.event_id, a.outcome.item) for day in two[0] for a in day.arrivals
    ]
    assert np.array_equal(one[1].satisfaction, two[1].satisfaction)


def test_another_list_changes_only_what_comes_of_it():
    society = begin(**TOGETHER, habits=Habits())
    answers = shuffle(1)(society.asks)

    around = [answers[0]._replace(items=answers[0].items[::-1]), *answers[1:]]
    (one, after), (two, otherwise) = (live_together(society, lambda _, a=a: a) for a in (answers, around))
    first = answers[0].decision
    assert [a for a in one.arrivals if a.outcome.decision_id != first] == [
        a for a in two.arrivals if a.outcome.decision_id != first
    ]
    user = society.sessions.user[0]
    differs = np.flatnonzero(after.satisfaction[:300] != otherwise.satisfaction[:300])
    assert set(differs.tolist()) <= {int(user)}


def test_outcomes_arrive_within_a_day_in_order_of_time_and_say_what_was_watched(shuffled):
    days, _ = shuffled
    for day in days:
        asked = {answer.decision: (ask.ts, answer.items) for ask, answer in zip(day.asks, day.answers, strict=True)}
        assert [a.at for a in day.arrivals] == sorted(a.at for a in day.arrivals)
        for at, outcome in day.arrivals:
            ts, items = asked[outcome.decision_id]
            assert outcome.item in items
            assert outcome.value == 1.0
            assert ts < outcome.ts <= at < ts + DAY * SECOND
    events = [a.outcome for day in days for a in day.arrivals]
    distinct = {outcome.event_id: outcome for outcome in events}
    assert all(outcome == distinct[outcome.event_id] for outcome in events)
    watched = sum(day.figures.watched for day in days)
    for count in (watched - len(distinct), len(events) - len(distinct)):
        assert 0.004 * watched < count < 0.02 * watched


def test_what_is_sent_twice_arrives_in_time_however_late_it_is():
    society = begin(**TOGETHER, habits=Habits())
    answers = shuffle(1)(society.asks)
    watched, delays = np.ones((len(answers), 6), np.int64), np.full((len(answers), 6), LATEST)
    arrivals = post(society.world, society.sessions.at, answers, watched=watched, delays=delays, lost=0, twice=1)
    asked = {answer.decision: ask.ts for ask, answer in zip(society.asks, answers, strict=True)}
    assert len(arrivals) == 12 * len(answers)
    assert all(at == asked[outcome.decision_id] + LATEST * SECOND for at, outcome in arrivals)


def test_an_outcome_may_arrive_before_one_of_an_earlier_list(shuffled):
    days, _ = shuffled
    asked = {answer.decision: ask.ts for day in days for ask, answer in zip(day.asks, day.answers, strict=True)}
    order = [asked[arrival.outcome.decision_id] for arrival in days[0].arrivals]
    assert order != sorted(order)


def test_a_product_that_loses_nothing_hears_of_all_that_was_watched():
    days, _ = lived(shuffle(1), 3, habits=Habits(lost=0, twice=0))
    assert [len(day.arrivals) for day in days] == [day.figures.watched for day in days]


def test_a_shuffle_is_even_and_its_propensities_are_exact():
    society = begin(**TOGETHER | {"settings": Settings(users=4000, items=8, sessions_per_day=2)}, habits=Habits())
    answers = shuffle(1)(society.asks)
    assert shuffle(1)(society.asks) == answers != shuffle(2)(society.asks)
    assert {answer.propensity for answer in answers} == {tuple(1 / (8 - slot) for slot in range(6))}
    assert len({answer.decision for answer in answers}) == len(answers)
    offered = [[candidate.item for candidate in ask.request.candidates] for ask in society.asks]
    places = np.array([[ids.index(item) for item in a.items] for ids, a in zip(offered, answers, strict=True)])
    expected = len(places) / 8
    for slot in places.T:
        assert np.abs(np.bincount(slot, minlength=8) - expected).max() < 4.5 * np.sqrt(expected)


@pytest.mark.parametrize("change", [lambda items: items[:-1], lambda items: (*items[:-1], items[0]), lambda _: ("i9",)])
def test_an_answer_that_is_no_list_of_candidates_is_refused(change):
    society = begin(**TOGETHER, habits=Habits())
    answers = shuffle(1)(society.asks)
    wrong = [answers[0]._replace(items=change(answers[0].items)), *answers[1:]]
    with pytest.raises(ValueError, match=f"{wrong[0].decision} shows .* asked for 6 of"):
        live_together(society, lambda _: wrong)


def test_what_is_due_is_parted_from_what_is_on_its_way(shuffled):
    arrivals = shuffled[0][0].arrivals
    until = arrivals[len(arrivals) // 2].at
    now, later = due(arrivals[::-1], until)
    assert now + later == arrivals
    assert all(isinstance(a, Arrival) and a.at < until for a in now)
    assert all(a.at >= until for a in later)


def test_a_history_adds_up(known):
    days = [day.figures for day in known[0]]
    weeks = history(days)
    assert [week.start for week in weeks] == [START + timedelta(weeks=n) for n in range(6)]
    assert [week.active for week in weeks] == [day.active for day in days[6::7]]
    for field in fields(weeks[0]):
        if field.name not in ("start", "active"):
            total = sum(getattr(week, field.name) for week in weeks)
            assert total == pytest.approx(sum(getattr(day, field.name) for day in days))
    week = weeks[0]
    assert week.watch_rate == week.watched / week.rows
    assert week.reward == week.expected / week.rows
    assert [span.visits for span in history(days[:8])] == [sum(d.visits for d in days[:7]), days[7].visits]


def test_a_day_on_which_nobody_asks_is_a_day():
    days, society = lived(shuffle(1), 2, settings=Settings(users=1, joins_per_day=0, sessions_per_day=0))
    assert [day.figures.rows for day in days] == [0, 0]
    assert np.isnan(days[0].figures.watch_rate)
    assert np.isnan(days[0].figures.reward)
    assert society.world.day == 2


def test_the_closed_example_is_small_enough_for_a_demo():
    society = begin(**closed_example())
    assert 300 < 7 * len(society.asks) < 2000


def test_candidates_that_fill_no_shelf_are_refused():
    with pytest.raises(ValueError, match="5 candidates do not fill a shelf of 6"):
        begin(**TOGETHER, habits=Habits(candidates=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "some candidates"),
        ({"patience": 0}, "some patience"),
        ({"memory": 1.1}, "are shares"),
        ({"leave": -0.1}, "are shares"),
        ({"hope": -1}, "not negative"),
        ({"telling": -1}, "not negative"),
    ],
)
def test_habits_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Habits(**change)
