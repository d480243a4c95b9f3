"""How much to explore: the textbook's rule, what more exploration does, and when none would do."""

from dataclasses import replace

import numpy as np
import pytest

from flywheel.measure import planning
from flywheel.measure.planning import Traffic
from flywheel.measure.slots import Lists
from flywheel.sections import Serve

EVEN = Serve(explore=0.1, floor=1.0)  # draws are even among all
TRAFFIC = Traffic(rows=20_000, exam_rows=20_000, sigma=0.4)


def lists(error: float = 0.5, slots: int = 1, n: int = 300, seed: int = 2) -> Lists:
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=(n, 10))
    return Lists(
        worth=worth[None],
        target=worth + error * rng.normal(size=worth.shape),
        quality=1 / (1 + np.exp(-worth)),
        there=np.ones(worth.shape, dtype=bool),
        shown=np.argsort(-worth, axis=1)[:, :slots],
        reward=np.full((n, slots), 0.5),
        generations=np.zeros(n, dtype=np.int64),
        users=np.arange(n),
    )


def test_the_rule_for_even_exploration() -> None:
    assert planning.even_share(0.3, 10, 0.1) == pytest.approx(0.032, abs=1e-3)
    assert planning.even_share(0, 10, 0.1) == pytest.approx(0.91)


def test_one_slot_of_even_exploration_is_the_rule_but_for_the_challengers_own() -> None:
    """The challenger explores as well: t is (1 − ε + ε/K) on its best and ε/K elsewhere."""
    found = planning.plan(lists(), EVEN, TRAFFIC, 0.01)
    drawn, best, d = 0.01, 0.91, found.disagreement
    squares = (1 - d) * (best + 9 * drawn) + d * (best**2 / drawn + drawn**2 / best + 8 * drawn)
    [one] = [one for one in found.table if one.share == 0.1]
    assert one.effective == pytest.approx(1 / squares, rel=1e-6)
    assert found.candidates == 10


def test_more_exploration_shows_more_and_costs_more() -> None:
    table = planning.plan(lists(slots=4), Serve(), TRAFFIC, 0.01).table
    shown, cost = ([getattr(one, name) for one in table] for name in ("detectable", "cost"))
    assert shown[:6] == sorted(shown[:6], reverse=True)
    assert cost == sorted(cost)
    assert cost[0] > 0


def test_the_share_advised_shows_the_gain() -> None:
    part, how = lists(slots=4), Serve(explore=0.02)
    found = planning.plan(part, how, TRAFFIC, 0.03)
    assert found.share is not None
    assert 0.02 < found.share < 1
    assert planning.explored(part, how, TRAFFIC, found.share).detectable == pytest.approx(0.03, rel=0.1)
    assert found.turns == 1
    assert found.says[0].startswith(f"explore {found.share:.1%}, and a gain of 0.03 a slot shows by the next turn")


def test_enough_is_enough() -> None:
    found = planning.plan(lists(slots=4), Serve(explore=0.4), replace(TRAFFIC, exam_rows=10**6), 0.05)
    assert found.says[0].startswith("today's 40.0% shows")
    assert found.share is not None
    assert found.share < 0.4


def test_no_share_is_enough_for_so_little_traffic() -> None:
    few = Traffic(rows=1000, exam_rows=1000, sigma=0.4)
    found = planning.plan(lists(slots=4), Serve(), few, 0.001)
    assert found.share is None
    assert found.turns > 10
    assert "no exploration shows a gain of 0.001 a slot" in found.says[0]
    assert f"takes {found.turns:,} exams" in found.says[0]


def test_nothing_is_advised_that_off_policy_values_would_refuse() -> None:
    alike = lists(error=0.01)
    found = planning.plan(alike, Serve(), Traffic(rows=400, exam_rows=400, sigma=1e-9), 0.01)
    assert found.share is None
    assert found.turns == 2


def test_who_explores_nothing_is_told_so() -> None:
    found = planning.plan(lists(slots=4), Serve(explore=0.0), TRAFFIC, 0.05)
    assert "today nothing is explored, so nothing shows" in found.says[0]
    assert 0.0 not in [one.share for one in found.table]


def test_what_is_left_unexplained_counts_users_not_rows() -> None:
    part = lists(slots=1)
    reward = np.random.default_rng(0).normal(size=(300, 1))
    alone = replace(part, reward=reward, quality=np.full(part.quality.shape, 1e-9))
    together = replace(alone, users=np.arange(300) // 3)
    shared = replace(together, reward=np.repeat(reward[:100], 3, axis=0))
    assert planning.unexplained(alone) == pytest.approx(1, rel=0.15)
    assert planning.unexplained(shared) == pytest.approx(3**0.5, rel=0.2)


def test_a_challenger_like_the_champion_is_told_from_it_at_once() -> None:
    alike = planning.explored(lists(error=0, slots=4), Serve(), TRAFFIC, 0.1)
    assert alike.detectable == pytest.approx(0, abs=1e-9)
    assert alike.effective == pytest.approx(1)
