"""How often the 95 % intervals of off-policy values hold the truth, on logs whose truth is known.

    python tests/benchmarks/offpolicy_coverage.py [--repeats 2000] [--quick]

A user has a taste that no model sees and a log-normal number of visits; each visit has a context, and ten items. Two
generations logged, each with its own favourites and softmax exploration among its best five; the policy to be valued
has favourites of its own. The reward model knows contexts and items, not users, and is off. Coverage is that of what
is printed: a refused log has no interval. The truth is that of four million visits.
"""

import argparse
import sys

import numpy as np
from machine import bar, ceiling, describe
from scipy.special import expit, logit

from flywheel.measure import offpolicy
from flywheel.measure.offpolicy import Log
from flywheel.measure.slots import chances
from flywheel.sections import Serve

ITEMS = 10
CONTEXTS = 40
CELLS = {  # users, visits of each, share explored, mean reward
    "few users": (200, 50, 0.3, 0.2),
    "few rows' worth": (1000, 30, 0.2, 0.2),
    "rare rewards": (1500, 30, 0.2, 0.05),
    "little exploration": (1500, 40, 0.1, 0.2),
    "many rows' worth": (1500, 25, 0.4, 0.2),
    "rarer rewards, many rows' worth": (4000, 20, 0.3, 0.03),
}
KINDS = ("ips", "snips", "dr", "gain")


class Products:
    """What items are worth by context, in truth and to four who judge: two loggers, the policy, the reward model."""

    def __init__(self, seed, mean):
        rng = np.random.default_rng(seed)
        self.truth = logit(mean) + rng.normal(0, 0.7, (CONTEXTS, ITEMS))
        self.loggers = [self.truth + rng.normal(0, s, self.truth.shape) for s in (0.9, 0.6)]
        self.target = self.truth + rng.normal(0, 0.4, self.truth.shape)
        self.model = expit(self.truth + rng.normal(0, 0.4, self.truth.shape))
        self.mean = mean


def policy_of(worth, how):
    order = np.argsort(-worth, axis=1)
    ranked = np.take_along_axis(worth, order, axis=1)
    out = np.empty_like(worth)
    np.put_along_axis(out, order, chances(ranked, np.ones(worth.shape, bool), how), axis=1)
    return out


def live(rng, products, users, visits, how):
    """A log and the arrays that an estimate is made from."""
    loggers = np.stack([policy_of(worth, how) for worth in products.loggers])
    target = policy_of(products.target, how)
    many = np.clip(rng.lognormal(np.log(visits) - 0.32, 0.8, users), 1, 20 * visits).astype(int)
    user = np.repeat(np.arange(users), many)
    taste = rng.normal(0, 0.6, (users, ITEMS)) + rng.normal(0, 0.4, (users, 1))
    context = rng.integers(CONTEXTS, size=len(user))
    generation = (rng.random(len(user)) < 0.3).astype(np.int64)
    reached = np.cumsum(loggers[generation, context], axis=1)
    item = np.minimum((reached < rng.random((len(user), 1))).sum(axis=1), ITEMS - 1)
    reward = (rng.random(len(user)) < expit(products.truth[context, item] + taste[user, item])).astype(float)
    return Log(
        reward=reward,
        logged=offpolicy.mixture(loggers[:, context, item], generation),
        target=target[context, item],
        predicted=products.model[context, item],
        expected=(target * products.model).sum(axis=1)[context],
        users=user,
        unsupported=np.zeros(len(user)),
    )


def truth_of(products, how):
    """What the policy is worth: exactly, but for the mean over tastes, by quadrature; and what the log is."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = (0.6**2 + 0.4**2) ** 0.5
    liked = (expit(products.truth[..., None] + spread * nodes) * weights).sum(axis=-1) / weights.sum()
    target = (policy_of(products.target, how) * liked).sum(axis=1).mean()
    logged = [(policy_of(worth, how) * liked).sum(axis=1).mean() for worth in products.loggers]
    return target, target - (0.7 * logged[0] + 0.3 * logged[1])


def cell(number, repeats):
    """How often each interval holds the truth, and how far off each estimate is, in one kind of log."""
    name = list(CELLS)[number]
    users, visits, explore, mean = CELLS[name]
    how = Serve(explore=explore, top=5, temperature=0.7, floor=0.1)
    products = Products(number, mean)
    value, gain = truth_of(products, how)
    inside, off, effective = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}, []
    for repeat in range(repeats):
        found = offpolicy.value(live(np.random.default_rng([number, repeat]), products, users, visits, how), "it")
        if found.refused:
            continue
        effective.append(found.effective)
        printed = [(one.estimator, one.value, value) for one in found.values] + [("gain", found.gain, gain)]
        for kind, one, truth in printed:
            inside[kind].append(one.low <= truth <= one.high)
            off[kind].append(one.value - truth)
    covered = {kind: float(np.mean(held)) for kind, held in inside.items()}
    cells = "".join(f"{covered[kind]:9.1%} ±{np.sqrt(np.mean(np.square(off[kind]))):.4f}" for kind in KINDS)
    print(f"{name:34}{np.median(effective):8,.0f}{1 - len(effective) / repeats:8.0%}{cells}", flush=True)
    return covered


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    repeats = 100 if given.quick else given.repeats
    print(describe("numpy", "scipy"))
    print(
        f"{repeats:,} logs a line, so a share of 95 % is known to ±{2 * (0.0475 / repeats) ** 0.5:.1%}; then the error"
    )
    print(f"{'':34}{'worth':>8}{'refused':>8}" + "".join(f"{kind:>17}" for kind in KINDS))
    covered = [cell(number, repeats) for number in range(len(CELLS))]
    mean = {kind: float(np.mean([one[kind] for one in covered])) for kind in KINDS}
    print()
    met = [bar(f"of intervals of {kind} hold the truth", mean[kind], 0.93, "{:.1%}") for kind in KINDS]
    met += [ceiling(f"of intervals of {kind} hold the truth", mean[kind], 0.97, "{:.1%}") for kind in KINDS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
