"""What another policy would have earned: known answers, refusals, and lists against the ranker's own probabilities."""

import math
from dataclasses import replace

import numpy as np
import pytest

from flywheel.errors import DataError
from flywheel.evidence import Estimate
from flywheel.measure import offpolicy, slots
from flywheel.measure.offpolicy import Log
from flywheel.measure.slots import Lists
from flywheel.sections import Gate, Serve
from flywheel.serve.exploration import explore

HOW = Serve(explore=0.3, top=4, temperature=0.5, floor=0.2)
GATE = Gate(margin=0.01)


def bandit(rows: int = 6000, *, harm: float = 0.0, seed: int = 1, best: float = 0.6) -> Log:
    """Two items, worth .5 and .2 (or .5 less harm to the target's favourite); the target shows the first in 9 of 10."""
    rng = np.random.default_rng(seed)
    worth = np.array([0.5 - harm, 0.2])
    logged, target = np.array([best, 1 - best]), np.array([0.9, 0.1])
    item = (rng.random(rows) >= best).astype(int)
    model = np.array([0.45, 0.25])
    return Log(
        reward=(rng.random(rows) < worth[item]).astype(float),
        logged=logged[item],
        target=target[item],
        predicted=model[item],
        expected=np.full(rows, target @ model),
        users=rng.integers(rows // 5, size=rows),
        unsupported=np.zeros(rows),
    )


def test_every_estimate_finds_what_the_policy_is_worth() -> None:
    found = offpolicy.value(bandit(), "it")
    truth, logged = 0.9 * 0.5 + 0.1 * 0.2, 0.6 * 0.5 + 0.4 * 0.2
    assert [one.estimator for one in found.values] == ["ips", "snips", "dr"]
    for one in found.values:
        assert one.value.low < truth < one.value.high
        assert one.value.value == pytest.approx(truth, abs=0.02)
    assert found.gain is not None
    assert found.gain.low < truth - logged < found.gain.high
    assert found.mean_weight.low < 1 < found.mean_weight.high
    assert "more" in found.says[0]


def test_the_policy_that_logged_gains_nothing_and_all_its_rows_count() -> None:
    log = bandit()
    found = offpolicy.value(replace(log, target=log.logged, expected=log.predicted), "itself")
    assert found.effective == pytest.approx(len(log.reward))
    assert found.gain is not None
    assert (found.gain.low, found.gain.value, found.gain.high) == pytest.approx((0, 0, 0), abs=1e-3)


def test_the_right_reward_model_takes_the_noise_of_weights_away() -> None:
    log = bandit(best=0.2)
    perfect = replace(log, reward=log.predicted)
    dr = offpolicy.estimates(perfect)[-1].value
    assert (dr.low, dr.high) == pytest.approx((log.expected[0], log.expected[0]))


def test_weights_are_shrunk_where_the_model_knows_better_and_left_alone_where_it_errs() -> None:
    rng = np.random.default_rng(3)
    log = bandit(3000)
    heavy = replace(log, logged=np.where(rng.random(3000) < 0.01, 0.002, 0.9), target=np.full(3000, 0.9))
    assert offpolicy.shrunk(heavy).max() < heavy.weights.max()
    wrong = replace(heavy, reward=np.where(heavy.logged < 0.01, 1.0, 0.0), predicted=np.zeros(3000))
    assert offpolicy.shrunk(wrong).max() > 0.9 * wrong.weights.max()


def test_a_mixture_is_bounded_by_whichever_generation_explored() -> None:
    mixed = offpolicy.mixture(np.array([[0.99, 0.01], [0.5, 0.5]]), np.array([0, 0, 0, 1]))
    assert mixed == pytest.approx([0.8675, 0.1325])


def test_refused_with_too_few_rows_worth() -> None:
    found = offpolicy.value(bandit(400), "it")
    assert found.values == ()
    assert found.gain is None
    assert "rows' worth, of 500" in found.refused
    assert found.says[0] == f"nobody can tell what it would have earned: {found.refused}"
    assert "slots like these would do, or more exploration" in found.says[1]


def test_refused_where_the_log_could_never_show_it() -> None:
    log = bandit()
    assert offpolicy.value(replace(log, unsupported=np.full(6000, 0.009)), "it").refused == ""
    found = offpolicy.value(replace(log, unsupported=np.full(6000, 0.02)), "it")
    assert found.refused.startswith("2.0% of its choices were never possible")
    assert found.values == ()


def test_refused_where_probabilities_are_not_those_of_the_log() -> None:
    log = bandit()
    found = offpolicy.value(replace(log, logged=log.logged / 2), "it")
    assert found.refused.startswith("the mean weight is 2.0")


def test_rows_of_one_user_are_no_evidence_on_others() -> None:
    with pytest.raises(DataError, match="rows of one user"):
        offpolicy.value(replace(bandit(), users=np.zeros(6000, dtype=np.int64)), "it")


def test_rows_of_one_user_are_not_independent() -> None:
    values = np.random.default_rng(0).normal(size=400)
    alone = offpolicy.interval(np.repeat(values, 10), np.repeat(np.arange(400), 10))
    pretended = offpolicy.interval(np.repeat(values, 10), np.arange(4000))
    assert alone.high - alone.value == pytest.approx(math.sqrt(10) * (pretended.high - pretended.value), rel=0.02)


def test_a_few_heavy_rows_make_the_error_itself_uncertain() -> None:
    even, heavy = np.tile([1.0, -1.0], 200), np.zeros(400)
    heavy[:2] = (20 * math.sqrt(0.5), -20 * math.sqrt(0.5))  # the same variance
    reach = [offpolicy.interval(part, np.arange(400)).high for part in (even, heavy)]
    assert reach[1] > 1.4 * reach[0]


def test_the_interval_of_a_skewed_mean_leaves_out_the_truth_as_often_above_as_below() -> None:
    rng, users = np.random.default_rng(4), np.arange(300)
    found = [offpolicy.interval(rng.lognormal(0, 1.2, 300), users) for _ in range(1000)]
    truth = math.exp(0.72)
    below, above = sum(one.high < truth for one in found), sum(one.low > truth for one in found)
    assert 20 <= below + above <= 80
    assert below <= 3 * above  # nearly all would be below, were the interval as long to both sides


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [(-0.3, -0.2, "fail"), (-0.3, 0.1, "not enough evidence"), (0.01, 0.1, "pass"), (-0.002, 0.1, "pass")],
)
def test_only_harm_that_is_shown_fails(low: float, high: float, status: str) -> None:
    found = replace(offpolicy.value(bandit(), "it"), gain=Estimate((low + high) / 2, low, high))
    said = offpolicy.finding(found, GATE)
    assert (said.name, said.status, said.value) == ("off-policy value", status, low)
    assert said.threshold == pytest.approx(-0.01 * found.logged.value)


def test_harm_is_found_and_a_refusal_is_not_enough_evidence() -> None:
    assert offpolicy.finding(offpolicy.value(bandit(20_000, harm=0.45), "it"), GATE).status == "fail"
    refused = offpolicy.finding(offpolicy.value(bandit(400), "it"), GATE)
    assert refused.status == "not enough evidence"
    assert math.isnan(refused.value)
    assert "too rarely" in refused.detail


def test_chances_are_the_rankers_own() -> None:
    rng = np.random.default_rng(5)
    for seed in range(60):
        many = int(rng.integers(2, 9))
        worth = rng.normal(size=many).round(int(rng.integers(0, 3)))  # with equals
        filled = explore(f"d{seed}", worth.tolist(), 5, HOW)
        shown = np.full((1, 5), -1)
        shown[0, : len(filled)] = [slot.candidate for slot in filled]
        padded, there = np.zeros((1, 10)), np.zeros((1, 10), dtype=bool)
        padded[0, :many], there[0, :many] = worth, True
        told = slots.followed(padded, there, shown, HOW)[0]
        assert told[: len(filled)] == pytest.approx([slot.propensity for slot in filled])
        assert np.isnan(told[len(filled) :]).all()


def test_looks_are_those_of_lists_that_the_ranker_draws() -> None:
    worth = np.array([2.0, 1.5, 1.4, 0.0, -1.0])
    look = np.array([[1.0, 0.5, 0.25]])
    told = slots.looked_at(np.tile(worth, (200, 1)), np.ones((200, 5), bool), np.repeat(look, 200, 0), HOW).mean(0)
    seen = np.zeros(5)
    for n in range(6000):
        for slot, through in zip(explore(f"x{n}", worth.tolist(), 3, HOW), look[0], strict=True):
            seen[slot.candidate] += through / 6000
    assert told == pytest.approx(seen, abs=0.015)
    assert told.sum() == pytest.approx(look.sum())


def test_without_exploration_another_order_of_the_same_items_can_be_told_and_other_items_cannot() -> None:
    n = 400
    worth, swapped, other = (np.tile(w, (n, 1)) for w in ([3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]))
    lists = Lists(
        worth=worth[None],
        target=swapped,
        quality=np.tile([0.6, 0.4, 0.2], (n, 1)),
        there=np.ones((n, 3), dtype=bool),
        shown=np.tile([0, 1], (n, 1)),
        reward=np.tile([0.6, 0.2], (n, 1)),  # half is seen of the second slot
        generations=np.zeros(n, dtype=np.int64),
        users=np.arange(n),
    )
    greedy = Serve(explore=0.0)
    assert slots.look_of(lists) == pytest.approx([1.0, 0.5])
    found = offpolicy.value(slots.log_of(lists, greedy), "the other order")
    assert found.unsupported == 0
    assert found.values[-1].value.value == pytest.approx((0.4 + 0.5 * 0.6) / 2)
    strange = offpolicy.value(slots.log_of(replace(lists, target=other), greedy), "other items")
    assert strange.unsupported == pytest.approx(1 / 1.5)
    assert "never possible" in strange.refused


def test_slots_whose_outcome_nobody_knows_are_no_rows() -> None:
    reward = np.array([[1.0, np.nan], [0.0, 1.0]])
    lists = Lists(
        worth=np.zeros((1, 2, 3)),
        target=np.zeros((2, 3)),
        quality=np.full((2, 3), 0.5),
        there=np.ones((2, 3), dtype=bool),
        shown=np.array([[0, 1], [2, 0]]),
        reward=reward,
        generations=np.zeros(2, dtype=np.int64),
        users=np.array([0, 1]),
    )
    log = slots.log_of(lists, HOW)
    assert log.reward.tolist() == [1.0, 0.0, 1.0]
    assert log.users.tolist() == [0, 1, 1]
    assert log.weights == pytest.approx(np.ones(3), rel=0.15)
