"""Relative error of off-policy values where the truth is exact: scikit-learn's digits as a bandit.

    python tests/benchmarks/offpolicy_digits.py [--runs 30] [--quick]

Each picture is a visit, each digit an item, and the reward is 1 for the right one (Dudík et al. 2011). Three tenths of
the pictures fit a logistic regression, which logs with a fifth of its choices even among all, and a random forest,
whose policy, with a tenth of its choices even, is to be valued on the others. The reward model is fitted on the log
itself, on the half that it does not explain. The truth is known, for what each digit earns is. A log of these 1,258
visits holds fewer than the 500 rows' worth below which nothing is printed; the second table shows them ten times each.
"""

import argparse
import sys

import numpy as np
from machine import ceiling, describe
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from flywheel.measure import offpolicy
from flywheel.measure.offpolicy import Log

DIGITS = 10
KINDS = ("ips", "snips", "dr")


def policy_of(model, pictures, best):
    """Its best with this probability, else any of the ten."""
    out = np.full((len(pictures), DIGITS), (1 - best) / DIGITS)
    out[np.arange(len(pictures)), model.predict(pictures)] += best
    return out


def run(seed, times):
    """Estimates, the truth and rows' worth of one log, each picture shown so many times."""
    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures / 16
    known, shown, of_known, of_shown = train_test_split(pictures, digits, test_size=0.7, random_state=seed)
    logger = policy_of(LogisticRegression(max_iter=1000).fit(known, of_known), shown, 0.8)
    forest = RandomForestClassifier(n_estimators=50, random_state=seed).fit(known, of_known)
    target = policy_of(forest, shown, 0.9)
    truth = target[np.arange(len(shown)), of_shown].mean()
    rng = np.random.default_rng(seed)
    line = np.repeat(np.arange(len(shown)), times)
    reached = np.cumsum(logger[line], axis=1)
    item = np.minimum((reached < rng.random((len(line), 1))).sum(axis=1), DIGITS - 1)
    reward = (item == of_shown[line]).astype(float)
    quality = explain(shown, line, item, reward)
    log = Log(
        reward=reward,
        logged=logger[line, item],
        target=target[line, item],
        predicted=quality[line, item],
        expected=(target * quality).sum(axis=1)[line],
        users=line,
        unsupported=np.zeros(len(line)),
    )
    found = {one.estimator: one.value for one in offpolicy.estimates(log)}
    return found, truth, offpolicy.effective_rows(log.weights)


def explain(shown, line, item, reward):
    """The reward expected of each digit for each picture, from the log of the other half of the pictures."""
    one_hot = np.eye(DIGITS)
    crossed = lambda picture, digit: (picture[:, :, None] * one_hot[digit][:, None, :]).reshape(len(picture), -1)  # noqa: E731
    quality = np.empty((len(shown), DIGITS))
    for fold in (0, 1):
        seen = line % 2 != fold
        model = LogisticRegression(max_iter=200, C=1.0).fit(
            np.hstack([crossed(shown[line[seen]], item[seen]), one_hot[item[seen]]]), reward[seen]
        )
        theirs = np.flatnonzero(np.arange(len(shown)) % 2 == fold)
        for digit in range(DIGITS):
            asked = np.full(len(theirs), digit)
            made = np.hstack([crossed(shown[theirs], asked), one_hot[asked]])
            quality[theirs, digit] = model.predict_proba(made)[:, 1]
    return quality


def table(runs, times):
    """The mean relative error of each estimator, and how often its interval holds the truth."""
    errors, inside, effective = {k: [] for k in KINDS}, {k: [] for k in KINDS}, []
    for seed in range(runs):
        found, truth, worth = run(seed, times)
        effective.append(worth)
        for kind, one in found.items():
            errors[kind].append(abs(one.value - truth) / truth)
            inside[kind].append(one.low <= truth <= one.high)
    print(f"\n{runs} runs, each picture {times}×: {np.median(effective):,.0f} rows' worth")
    for kind in KINDS:
        print(f"  {kind:6} relative error {np.mean(errors[kind]):.4f}, interval holds {np.mean(inside[kind]):.0%}")
    return {kind: float(np.mean(errors[kind])) for kind in KINDS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    print(describe("numpy", "scikit-learn"))
    once = table(5 if given.quick else given.runs, 1)
    if not given.quick:
        table(max(given.runs // 3, 1), 10)
    met = [
        ceiling("relative error of DR", once["dr"], 0.02, "{:.4f}"),
        ceiling("relative error of SNIPS", once["snips"], 0.03, "{:.4f}"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
