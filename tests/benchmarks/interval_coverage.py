"""How often the 95 % interval of the paired difference holds the truth, on users of very unequal activity.

    python tests/benchmarks/interval_coverage.py [repeats]

Users differ in taste, in how well each model knows them and in how many rows they have (log-normal or Pareto, up
to 300). Both models see the same signal with errors that users share, so rows of one user are far from
independent and the two models' scores are correlated. The truth is the difference on two million rows.
"""

import sys

import numpy as np
from scipy.special import expit

from flywheel.learn.evaluate import evaluate

METRICS = {"binary": ("auc", "log_loss", "average_precision", "ndcg"), "number": ("rmse", "mae")}
USERS = (50, 200, 1000, 2000)
TRUTH_ROWS = 2_000_000


def activity(rng, users, shape):
    drawn = rng.lognormal(1.5, 1.0, users) if shape == "log-normal" else 2 * (1 + rng.pareto(1.6, users))
    return np.clip(drawn, 2, 300).astype(int)


def world(rng, users, shape, kind):
    rows = activity(rng, users, shape)
    user = np.repeat(np.arange(users), rows)
    n = len(user)
    first = np.concatenate([[0], np.cumsum(rows)[:-1]])
    request = user * 100_000 + (np.arange(n) - np.repeat(first, rows)) // 8
    taste, known_well, known_badly = (rng.normal(0, s, users)[user] for s in (0.8, 0.4, 0.6))
    signal = rng.normal(0, 1, n) + taste
    noise = rng.normal(0, 0.5, n)
    better = signal + known_well + noise + rng.normal(0, 0.5, n)
    worse = signal + known_badly + noise + rng.normal(0, 0.6, n)
    if kind == "binary":
        labels = (rng.random(n) < expit(signal - 1)).astype(float)
        return labels, expit(0.8 * better - 1), expit(0.8 * worse - 1), user, request
    return signal + rng.standard_t(5, n), better, worse, user, request


def exam(rng, users, shape, kind, metric):
    labels, better, worse, user, request = world(rng, users, shape, kind)
    found = evaluate(labels, better, worse, kind=kind, metric=metric, users=user, requests=request)
    return found.overall.difference


def coverage(rng, kind, metric, shape, users, truth, repeats):
    inside = width = 0.0
    for _ in range(repeats):
        interval = exam(rng, users, shape, kind, metric)
        inside += interval.low <= truth <= interval.high
        width += interval.high - interval.low
    return inside / repeats, width / repeats


def main(repeats):
    rng = np.random.default_rng(20)
    print(f"{repeats:,} exams a cell, so a share of 95 % is known to ±{2 * (0.0475 / repeats) ** 0.5:.1%}")
    for shape in ("log-normal", "Pareto"):
        per_user = activity(rng, 200_000, shape)
        print(
            f"\n{shape} rows per user: median {np.median(per_user):.0f}, mean {per_user.mean():.1f}, "
            f"busiest 1 % have {np.sort(per_user)[-2000:].sum() / per_user.sum():.0%} of the rows"
        )
        print(f"{'metric':20}{'truth':>10}" + "".join(f"{n:>10,} users" for n in USERS))
        for kind, metrics in METRICS.items():
            for metric in metrics:
                truth = exam(rng, int(TRUTH_ROWS / per_user.mean()), shape, kind, metric).estimate
                cells = [coverage(rng, kind, metric, shape, n, truth, repeats)[0] for n in USERS]
                print(f"{metric:20}{truth:>+10.4f}" + "".join(f"{c:>16.1%}" for c in cells), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
