"""Looks that may be taken as often as one likes; what they cover is shown by tests/benchmarks/sequences_coverage.py."""

import math

import numpy as np
import pytest

from flywheel.measure.sequences import FEWEST, difference, mean, per_user, sample_ratio, widening


def test_the_margin_is_the_papers() -> None:
    n, rho2, alpha = 400, 0.02, 0.05
    papers = math.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    from scipy.special import lambertw

    best_at = (-lambertw(-(alpha**2) / math.e, -1).real - 1) / rho2
    assert widening(n, best_at, alpha) / math.sqrt(n) == pytest.approx(papers)


def test_the_margin_is_tightest_where_it_was_asked_for() -> None:
    # of all choices, the one that is tuned for n has the narrowest interval at n
    at = {best: widening(1000, best) for best in (100, 500, 800, 1000, 1200, 2000, 10_000)}
    assert min(at, key=at.__getitem__) == 1000
    assert widening(1000, 1000) > 1.96


def test_rows_of_one_user_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(1)
    taste = rng.random(200)
    once = mean(taste, np.ones(200), best_at=200)
    often = mean(50 * taste, np.full(200, 50.0), best_at=200)
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_rows_are_summed_by_user() -> None:
    rng = np.random.default_rng(4)
    users, labels = rng.integers(0, 90, 2000), rng.random(2000)
    rewards, rows = per_user([f"user {n}" for n in users], labels)
    assert (len(rewards), rows.sum()) == (90, 2000)
    look = mean(rewards, rows, best_at=90)
    assert look.estimate == pytest.approx(labels.mean())
    assert [len(part) for part in per_user([], [])] == [0, 0]


def test_a_difference_is_of_both_arms() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(900) + 0.2, rng.random(100)
    look = difference((a, b), (np.ones(900), np.ones(100)), best_at=100)
    assert look.estimate == pytest.approx(a.mean() - b.mean())
    assert look.se == pytest.approx(math.hypot(a.std(ddof=1) / 30, b.std(ddof=1) / 10))
    assert look.users == 100
    assert look.low > 0


def test_too_few_users_say_nothing() -> None:
    few = np.ones(FEWEST - 1)
    look = mean(few, few, best_at=1000)
    assert (look.low, look.high) == (-math.inf, math.inf)
    assert math.isnan(mean(np.empty(0), np.empty(0), best_at=100).estimate)


def test_the_arms_hold_what_they_should() -> None:
    rng = np.random.default_rng(3)
    held = np.cumsum(rng.random(20_000) < 0.05)
    assert not any(sample_ratio(int(held[n - 1]), n, 0.05).off() for n in range(50, 20_001, 50))
    leaky = np.cumsum(rng.random(20_000) < 0.04)  # a fifth of the holdback is lost on the way
    assert sample_ratio(int(leaky[-1]), 20_000, 0.05).off()
    assert sample_ratio(0, 0, 0.05).e_value == 1
