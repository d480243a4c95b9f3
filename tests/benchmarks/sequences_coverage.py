"""How often a confidence sequence holds the truth at every look, on the rewards of users who keep coming back.

    python tests/benchmarks/sequences_coverage.py [runs | --quick]

Users join at random, differ in taste and (by a log-normal or a Pareto law, up to 300) in how much they are shown, and
go on giving rewards for as long as the run lasts, so that one look's sums hold the last one's. Both arms are alike but
for the truth of their difference, 0, and one holds a twentieth of all users, or half. A run counts only if no look of
any week excludes the truth. The ordinary 95 % interval, looked at as often, is printed beside it.
"""

import sys

import numpy as np
from machine import bar, describe

from flywheel.measure import sequences

WEEKS, BEST_AT = 52, 300
USERS = 6000  # that join in all, a third of them before the first week
TRUTH = 0.3


def activity(rng, shape):
    drawn = rng.lognormal(0.5, 1.0, USERS) if shape == "log-normal" else 0.8 * (1 + rng.pareto(1.6, USERS))
    return np.minimum(drawn, 300)


def lived(rng, shape):
    """Rows and rewards of each user in each week, both (weeks, users)."""
    taste = rng.beta(2, 2 * (1 - TRUTH) / TRUTH, USERS)
    joined = np.where(rng.random(USERS) < 1 / 3, 0, rng.integers(0, WEEKS, USERS))
    rate = activity(rng, shape) * (np.arange(WEEKS)[:, None] >= joined)
    rows = rng.poisson(rate)
    return rows, rng.binomial(rows, taste)


def run(rng, shape, share):
    """Whether all looks held: the mean, the difference, it by ordinary intervals, the arms; and the last margin."""
    rows, rewards = (np.cumsum(weekly, axis=0) for weekly in lived(rng, shape))
    held = rng.random(USERS) < share
    inside = np.ones(4, bool)
    for week in range(WEEKS):
        there = rows[week] > 0
        arms = [there & ~held, there & held]
        n = [rows[week][arm].astype(float) for arm in arms]
        r = [rewards[week][arm].astype(float) for arm in arms]
        alone = sequences.mean(r[1], n[1], best_at=BEST_AT)
        both = sequences.difference((r[0], r[1]), (n[0], n[1]), best_at=BEST_AT)
        inside &= [
            alone.low <= TRUTH <= alone.high,
            both.low <= 0 <= both.high,
            abs(both.estimate) <= 1.96 * both.se,
            not sequences.sample_ratio(len(n[1]), int(there.sum()), share).off(0.05),
        ]
    return [*inside, (both.high - both.low) / 2]


def main(runs):
    rng = np.random.default_rng(30)
    print(describe("numpy"))
    print(f"{runs:,} runs a cell of {WEEKS} looks, so a share of 95 % is known to ±{2 * (0.0475 / runs) ** 0.5:.1%}")
    for shape in ("log-normal", "Pareto"):
        for share in (0.05, 0.5):
            found = np.array([run(rng, shape, share) for _ in range(runs)], float).mean(axis=0)
            print(f"\n{shape}, {share:.0%} in the smaller arm; the last difference is known to ±{found[4]:.4f}")
            bar("of runs hold the mean at every look", found[0], 0.95, form="{:.1%}")
            bar("of runs hold the difference at every look", found[1], 0.95, form="{:.1%}")
            bar("of runs find the arms as they should be at every look", found[3], 0.95, form="{:.1%}")
            print(f"        {found[2]:.1%} by the ordinary interval", flush=True)


if __name__ == "__main__":
    main(200 if "--quick" in sys.argv else int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
