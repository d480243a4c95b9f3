"""Off-policy values on a real log against what the other policy really earned: Open Bandit small, men and women.

    python tests/benchmarks/offpolicy_bandit.py

Two policies ran side by side, uniform and Thompson sampling (bts), and each was logged with its probabilities, so
what one would have earned is estimated from the other's log and compared with its own. Thompson sampling does not
look at whom it answers: as a target it is the share of slots it gave each item. Rows are of segments, not of users.
For women, uniform cannot be told from the log of bts: two rows hold nearly all of the weight, and no number may come.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from machine import describe

from flywheel.measure import offpolicy
from flywheel.measure.offpolicy import Log

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "open-bandit-small"
WEIGHT = 200.0  # rows of the mean with which an item's own clicks begin


def log_of(rows, target):
    """A log of one policy, and what the other would have done: `target` by item and position."""
    probability = np.array([target.get(key, 0.0) for key in zip(rows["item_id"], rows["position"], strict=True)])
    users = pd.factorize(rows["user_id"])[0].astype(np.int64)
    predicted, expected = np.empty(len(rows)), np.empty(len(rows))
    for fold in (0, 1):  # of users: a model may not have seen what it explains
        theirs = users % 2 == fold
        mean = rows["label"][~theirs].mean()
        seen = rows[~theirs].groupby("item_id")["label"].agg(["sum", "size"])
        model = ((seen["sum"] + WEIGHT * mean) / (seen["size"] + WEIGHT)).to_dict()
        predicted[theirs] = [model.get(item, mean) for item in rows["item_id"][theirs]]
        at = {p: sum(t * model.get(i, mean) for (i, q), t in target.items() if q == p) for p in (1, 2, 3)}
        expected[theirs] = [at[p] for p in rows["position"][theirs]]
    return Log(
        reward=rows["label"].to_numpy(dtype=float),
        logged=rows["propensity"].to_numpy(),
        target=probability,
        predicted=predicted,
        expected=expected,
        users=users,
        unsupported=np.zeros(len(rows)),
    )


def shares(rows):
    """The share of each position's rows that an item had."""
    given = rows.groupby(["item_id", "position"]).size()
    return (given / rows.groupby("position").size().reindex(given.index, level="position")).to_dict()


def compare(events, campaign, logging, other):
    """What the other policy would have earned, from the log of one; and what it did earn."""
    rows = events[(events["campaign"] == campaign) & (events["policy"] == logging)]
    theirs = events[(events["campaign"] == campaign) & (events["policy"] == other)]
    items = sorted(set(events[events["campaign"] == campaign]["item_id"]))
    even = {(item, position): 1 / len(items) for item in items for position in (1, 2, 3)}
    found = offpolicy.value(log_of(rows, even if other == "random" else shares(theirs)), other)
    truth = theirs["label"].mean()
    print(
        f"\n{campaign}: {other} from the log of {logging}; {found.effective:,.0f} rows' worth of {found.rows:,}, "
        f"mean weight {found.mean_weight.value:.2f}, largest {found.largest_weight:.1%}"
    )
    if found.refused:
        print(f"  refused: {found.refused}")
    for one in found.values:
        inside = one.value.low <= truth <= one.value.high
        told = f"{one.value.value:.4f} ({one.value.low:.4f} to {one.value.high:.4f})"
        print(f"  {one.estimator:6}{told}; its own log {truth:.4f} is {'inside' if inside else 'OUTSIDE'}")
    return found, all(one.value.low <= truth <= one.value.high for one in found.values)


def main():
    if not FOLDER.exists():
        print(f"skipped: the log is not at {FOLDER.parent.name}/{FOLDER.name} beside the project")
        return 0
    print(describe("numpy", "pandas"))
    events = pd.read_csv(FOLDER / "events.csv.gz")
    met = []
    for logging, other in (("bts", "random"), ("random", "bts")):
        found, inside = compare(events, "men", logging, other)
        met.append(bool(found.values) and inside)
        print(f"{'met    ' if met[-1] else 'NOT MET'} men: {other} agrees with its own log")
    found, _ = compare(events, "women", "bts", "random")
    met.append(bool(found.refused))
    print(f"{'met    ' if met[-1] else 'NOT MET'} women: random is refused")
    compare(events, "women", "random", "bts")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
