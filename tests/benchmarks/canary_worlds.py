"""What becomes of canaries whose truth is known: promoted, refused, or timed out, and after how many users.

    python tests/benchmarks/canary_worlds.py

Each world has people of different tastes who come on some of the days; a share of them meets the canary, and every
night the rule of `flywheel.measure.canary` looks at all there is so far, as a workspace with daily windows does.
"""

import sys
from collections import Counter

import numpy as np

from flywheel.measure import canary
from flywheel.measure.canary import Seen

WORLDS = 300
DAYS = 28
SHARE, MARGIN, CONFIDENCE = 0.1, 0.05, 0.95
SLOTS = 6  # rows a visit
TASTE = 0.3, 12.0  # of people: the mean share of slots they like, and how alike they are
TRUTHS = {
    "equal": 1.0,
    "worse by 3 %": 0.97,
    "worse by 5 %, the margin": 0.95,
    "worse by 10 %": 0.9,
    "better by 5 %": 1.05,
}


def world(people: int, factor: float, seed: int) -> tuple[str, int, int]:
    """What a canary in one world comes to, the day on which it does, and the users that it served by then."""
    rng = np.random.default_rng(seed)
    mean, alike = TASTE
    taste, often = rng.beta(mean * alike, (1 - mean) * alike, people), rng.beta(1.0, 4.0, people)
    tried = rng.random(people) < SHARE
    rewards, rows = np.zeros(people), np.zeros(people)
    for day in range(1, DAYS + 1):
        here = rng.random(people) < often
        shown = np.where(here, SLOTS, 0)
        rewards += rng.binomial(shown, np.minimum(taste * np.where(tried, factor, 1.0), 1.0))
        rows += shown
        arms = [tried & (rows > 0), ~tried & (rows > 0)]
        seen = Seen(
            (rewards[arms[0]], rewards[arms[1]]),
            (rows[arms[0]], rows[arms[1]]),
            int(arms[0].sum()),
            int((rows > 0).sum()),
        )
        found = canary.judge(seen, share=SHARE, margin=MARGIN, confidence=CONFIDENCE)
        step = canary.step(found, timed_out=day == DAYS)
        if step != "wait":
            return ("timed out" if step == "refuse" and found.status != "fail" else step), day, seen.users
    raise AssertionError("the last look decides")


def main() -> None:
    """Print a line for each truth and size."""
    print(f"{WORLDS} worlds each; {SHARE:.0%} of users, margin {MARGIN:.0%}, a look a day, given up after {DAYS} days")
    print(f"{'people':>8} {'truth':26}{'promoted':>10}{'refused':>9}{'timed out':>11}{'days':>7}{'users':>8}")
    for people in (5_000, 20_000, 80_000) if "--quick" not in sys.argv else (5_000,):
        for name, factor in TRUTHS.items():
            ends = [world(people, factor, seed) for seed in range(WORLDS)]
            came = Counter(end for end, _, _ in ends)
            shares = [came[end] / WORLDS for end in ("promote", "refuse", "timed out")]
            days, users = (np.median([end[at] for end in ends]) for at in (1, 2))
            told = f"{shares[0]:>10.1%}{shares[1]:>9.1%}{shares[2]:>11.1%}{days:>7.0f}{users:>8,.0f}"
            print(f"{people:>8,} {name:26}{told}", flush=True)


if __name__ == "__main__":
    main()
