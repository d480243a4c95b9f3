"""What the monitor says of a champion, and what follows; how often wrong: tests/benchmarks/monitor_worlds.py."""

import numpy as np
import pandas as pd
import pytest

from flywheel.evidence import Estimate
from flywheel.measure import sequences, watch
from flywheel.records import Outcomes
from flywheel.watched import Signal

HELD, TRIED = 0.2, 0.1


def rows(champion: float, holdback: float, *, people: int = 1500, first: int = 0, seed: int = 3) -> pd.DataFrame:
    """Ten rows each of people in three arms, and how many of them are rewarded; the canary's are worthless."""
    rng = np.random.default_rng(seed)
    lot = np.random.default_rng(7).random(first + people)[first:]
    arm = np.where(lot < HELD, "holdback", np.where(lot < HELD + TRIED, "canary", "wheel"))
    frame = pd.DataFrame({"user": [f"u{first + n}" for n in range(people)], "arm": arm}, dtype=object)
    frame = frame.loc[np.repeat(np.arange(people), 10)].reset_index(drop=True)
    chance = frame["arm"].map({"holdback": holdback, "wheel": champion, "canary": 0.0})
    frame["label"] = (rng.random(len(frame)) < chance).astype(float)
    return frame.assign(own=frame["arm"] == "wheel", new=True)


def test_whoever_meets_a_canary_is_not_held_back_and_says_nothing_of_the_champion() -> None:
    now = rows(0.3, 0.3)
    assert watch.arms(now, HELD).status == "well"
    assert watch.against_holdback(now, 0.02).status == "well"
    assert watch.arms(now[now["arm"] != "canary"], HELD + TRIED).status == "off"


def test_where_nobody_is_drawn_by_lot_nothing_is_said_of_the_arms() -> None:
    assert watch.arms(rows(0.3, 0.3), 0.0).status == "not enough evidence"


def test_whoever_stays_away_is_no_fault_of_the_lot() -> None:
    """Those who were there before have left the wheel; new ones fall as they should."""
    old = rows(0.3, 0.3).assign(new=False)
    now = pd.concat([old[old["arm"] == "holdback"], rows(0.3, 0.3, first=1500)])
    assert watch.arms(now, HELD).status == "well"
    assert watch.arms(now.assign(new=True), HELD).status == "off"


def test_a_loss_within_the_margin_is_none() -> None:
    now = rows(0.24, 0.3)
    assert watch.against_holdback(now, 0.02).status == "harm"
    assert watch.against_holdback(now, 0.3).status == "well"


def test_a_comparison_that_may_take_back_has_half_of_the_error() -> None:
    now = rows(0.3, 0.3)
    parts = (now[now["own"]], now[now["arm"] == "holdback"])
    ours, theirs = (sequences.per_user(part["user"], part["label"]) for part in parts)
    half = sequences.difference((ours[0], theirs[0]), (ours[1], theirs[1]), best_at=watch.BEST_AT, alpha=0.025)
    assert watch.against_holdback(now, 0.02).estimate == Estimate(half.estimate, half.low, half.high)


def test_a_loss_against_the_holdback_is_harm_and_a_gain_is_none() -> None:
    harm, well = (watch.against_holdback(rows(ours, 0.3), 0.02) for ours in (0.1, 0.4))
    assert (harm.status, well.status) == ("harm", "well")
    assert harm.estimate is not None
    assert harm.estimate.high < 0


def test_few_people_say_nothing() -> None:
    few = rows(0.0, 0.9, people=30)
    assert watch.against_holdback(few, 0.02).status == "not enough evidence"
    assert watch.against_predecessor(few, rows(0.9, 0.9), 0.02).status == "not enough evidence"


@pytest.mark.parametrize(("now", "standing"), [(0.4, "well"), (0.2, "well"), (0.1, "harm")])
def test_a_season_is_not_the_champions_doing(now: float, standing: str) -> None:
    # its predecessor gave .4 against .3; half of everybody's reward is lost in the champion's time
    found = watch.against_predecessor(rows(now, 0.15), rows(0.4, 0.3, seed=4), 0.02)
    assert found.status == standing, found.says


def test_a_holdback_that_earns_nothing_divides_nothing() -> None:
    found = watch.against_predecessor(rows(0.3, 0.0), rows(0.3, 0.3), 0.02)
    assert found.status == "not enough evidence"
    assert "too near to 0" in found.says
    little = watch.against_predecessor(rows(0.3, 0.0005), rows(0.3, 0.3), 0.02)
    assert little.status == "not enough evidence", little.says


@pytest.mark.parametrize(("foretold", "status"), [(0.3, "well"), (0.2, "well"), (0.5, "off")])
def test_what_was_foretold_and_does_not_come_is_told_and_takes_nothing_back(foretold: float, status: str) -> None:
    now = rows(0.3, 0.3)
    found = watch.promise(now[now["own"]].assign(score=foretold), 0.05)
    assert found.status == status
    assert not policy(found).back


def test_windows_and_outcomes_that_do_not_come_are_told() -> None:
    assert [watch.freshness("w", behind).status for behind in (0, 1, 2)] == ["well", "well", "off"]
    reached, repeated = Outcomes(100, 97, late=3), Outcomes(100, 50, duplicate=50)
    assert watch.joined([reached, repeated], 0.02).status == "well"
    assert watch.joined([reached], 0.02).status == "off"
    assert watch.joined([Outcomes(1, 0, orphaned=1)], 0.02).status == "not enough evidence"


def policy(*signals: Signal, **given: int) -> watch.Action:
    return watch.policy(signals, **{"champion": 3, "previous": 2, "harmed": False, "rollback": True} | given)


def test_harm_takes_back_unless_what_is_before_is_no_better() -> None:
    harm = watch.against_holdback(rows(0.1, 0.3), 0.02)
    better = watch.against_predecessor(rows(0.2, 0.3), rows(0.1, 0.3, seed=4), 0.02)
    assert policy(harm).back
    assert policy(harm, previous=0).back
    for said, given in (
        ("rollback is off", {"rollback": False}),
        ("nothing before it", {"previous": 3}),
        ("did harm as well", {"harmed": True}),
    ):
        refused = policy(harm, **given)
        assert not refused.back
        assert said in refused.why
    assert "was worse still" in policy(harm, better).why
    assert policy(harm, better, previous=0).back, "the baseline is what the holdback gets, and that is better"
    assert policy(better) == (False, "")
