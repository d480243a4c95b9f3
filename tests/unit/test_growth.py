"""The loop gain of logs whose every figure is known, and what is said of it."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from flywheel.evidence import Estimate
from flywheel.measure import growth, levers
from flywheel.measure.growth import Slope
from flywheel.measure.levers import Facts

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
SLOPE = Slope(0.02, 0.002, 0.04, 0.002)
FACTS = Facts(50_000, 7.0, 0.1, 0.2, 600, champion=True, measured=True)


def log(
    stays: tuple[float, float] = (0.95, 0.85),
    quality: tuple[float, float] = (0.4, 0.3),
    users: int = 3000,
    turns: int = 8,
) -> pd.DataFrame:
    """Everybody is there in turn 0, and stays from turn to turn with a probability of their arm's."""
    rng = np.random.default_rng(4)
    wheel = rng.random(users) < 0.8
    there = np.ones(users, bool)
    frames = []
    for turn in range(turns):
        at = np.flatnonzero(there)
        watched = rng.binomial(10, np.where(wheel[at], *quality))
        frames.append(pd.DataFrame({"user": at, "turn": turn, "wheel": wheel[at], "rows": 10, "reward": watched}))
        there &= rng.random(users) < np.where(wheel, *stays)
    return pd.concat(frames, ignore_index=True)


def measured(seen: pd.DataFrame, slope: Slope | None = SLOPE) -> growth.Growth:
    found = growth.measure(seen, since=0, rows_before=0, slope=slope)
    assert found is not None
    return found


def near(found: Estimate | None, truth: float) -> None:
    assert found is not None
    assert found.low < truth < found.high
    assert found.low < found.value < found.high


def test_every_factor_is_what_its_definition_says() -> None:
    seen = log()
    found = measured(seen)
    one, far, log_quality = found.one_turn, found.so_far, float(np.log(0.4 / 0.3))
    near(found.quality, log_quality)
    newest = seen.loc[seen["turn"] == 7, "rows"].sum() / seen["rows"].sum()
    assert one.data_per_user.value == pytest.approx(newest)
    assert far.data_per_user.value == pytest.approx(1)
    near(one.quality_per_data, 0.02 / 0.04 * log_quality)
    kept = float(np.log(0.95 / 0.85))
    near(one.users_per_quality, kept / log_quality)
    still = float(np.log(sum(0.95**t for t in (5, 6, 7)) / sum(0.85**t for t in (5, 6, 7))))
    near(far.users_per_quality, still / log_quality)
    near(one.gain, newest * 0.02 / 0.04 * kept)
    near(far.gain, 0.02 / 0.04 * still)
    assert found.turns == 8


def test_the_product_is_that_of_the_factors() -> None:
    far = measured(log()).so_far
    assert far.quality_per_data
    assert far.users_per_quality
    assert far.gain
    product = far.data_per_user.value * far.quality_per_data.value * far.users_per_quality.value
    assert far.gain.value == pytest.approx(product)


def test_users_added_are_the_exposed_less_the_holdback_scaled() -> None:
    found = measured(log())
    per_user = sum(0.95**t - 0.85**t for t in (5, 6, 7)) / 3
    near(found.users_added, 0.8 * 3000 * per_user)


def test_verdicts_follow_the_people() -> None:
    assert growth.verdict(measured(log()).so_far.gain) == "amplifying"
    assert growth.verdict(measured(log((0.9, 0.9), users=20_000)).so_far.gain) == "decoration"
    assert growth.verdict(measured(log((0.85, 0.95))).so_far.gain) == "reversing"
    assert growth.verdict(measured(log((0.9, 0.88), users=200), Slope(0.2, 0.002, 0.04, 0.002)).so_far.gain) == (
        "not enough evidence"
    )
    assert growth.verdict(Estimate(1.5, 1.1, 2.0)) == "compounding"
    assert growth.verdict(None) == "not enough evidence"


def test_nothing_is_divided_by_what_may_be_nothing() -> None:
    alike = measured(log(quality=(0.3, 0.3)))
    assert alike.so_far.gain is alike.so_far.users_per_quality is None
    assert "reward" in alike.weak
    unmeasured = measured(log(), None)
    assert unmeasured.so_far.gain is None
    assert unmeasured.so_far.users_per_quality is not None
    level = measured(log(), Slope(0.02, 0.002, 0.004, 0.002))
    assert level.so_far.gain is None
    assert "champion" in level.weak


def test_too_small_an_arm_says_nothing() -> None:
    assert growth.measure(log(users=60), since=0, rows_before=0, slope=SLOPE) is None
    assert growth.measure(log(), since=7, rows_before=0, slope=SLOPE) is None
    assert growth.measure(log(quality=(0.4, 0.0)), since=0, rows_before=0, slope=SLOPE) is None  # no ratio to nothing


def test_a_curve_that_flattens_binds_and_one_that_nobody_minds_binds_elsewhere() -> None:
    assert growth.binding(measured(log())) == "quality per data"
    assert growth.binding(measured(log((0.9, 0.9), users=20_000))) == "users per quality"
    assert growth.binding(measured(log(), None)) == "evidence"


def test_what_is_said_holds_the_figures() -> None:
    found = measured(log())
    made = levers.told(found, FACTS, AS_OF, ())
    assert made.verdict == "amplifying"
    assert made.says[0].startswith("Amplifying: of 100 users more, ")
    assert "lists" in made.levers[-1]
    assert made.levers[0].startswith("explore more than 10% of slots")  # the cheapest first
    assert levers.LOWER_BOUND in made.says


def test_without_a_curve_the_command_is_named() -> None:
    made = levers.told(measured(log(), None), dataclasses.replace(FACTS, measured=False), AS_OF, ())
    assert made.verdict == "not enough evidence"
    assert "flywheel curve" in made.levers[0]
    assert made.gain is None


def test_a_holdback_that_is_too_small_is_told_how_large_it_would_have_to_be() -> None:
    found = measured(log((0.9, 0.88), users=200), Slope(0.2, 0.002, 0.04, 0.002))
    made = levers.told(found, FACTS, AS_OF, ())
    assert made.binding == "evidence"
    assert "a larger holdback" in made.levers[0]


def test_before_there_is_a_champion_nothing_can_bring_anybody_back() -> None:
    made = levers.told(None, dataclasses.replace(FACTS, champion=False), AS_OF, ())
    assert "No champion" in made.says[0]
    few = levers.told(None, dataclasses.replace(FACTS, holdback_users=12), AS_OF, ())
    assert "12 users" in few.says[0]


def test_the_slope_at_the_end_of_a_curve() -> None:
    rows = np.geomspace(1e3, 64e3, 13)
    quality = 0.8 - 0.5 * rows**-0.3
    found = growth.slope_at_end(rows, quality, np.full(13, 1e-4))
    assert found is not None
    true = [0.5 * 0.3 * n**-0.3 for n in (64e3, 16e3)]
    assert true[0] < found[0] < true[1]
    assert growth.slope_at_end(rows[:1], quality[:1], np.ones(1)) is None
