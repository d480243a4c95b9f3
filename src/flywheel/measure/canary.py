"""Whether a challenger that serves a share of people first is no worse for them than the champion is for the others.

Reward a row of the canary's users is compared with that of the wheel's, over the same time, by a confidence sequence
(`measure/sequences.py`): one may look whenever a window closes. What counts as no worse is a share of what the
champion earns, for reward has a scale of its own that no margin of the exam's metric speaks of. The loss allowed is
taken off the champion's rewards before the two are compared, so that the error of both is in the interval.

Before that it is asked whether people fell into the arms as they should have: a canary that some servers could not
load serves fewer of them, and whoever is left is not like the others.
"""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel.measure import sequences
from flywheel.records import Finding

NAME = "canary"
BEST_AT = 500  # users of the canary at which the interval is the tightest of its kind
Status = Literal["pass", "fail", "not enough evidence"]
UNSURE: Status = "not enough evidence"
SAID: dict[Status, str] = {"pass": "is ruled out", "fail": "is shown", UNSURE: "is not ruled out"}
Floats = npt.NDArray[np.float64]
Step = Literal["promote", "refuse", "wait"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the canary's users and the champion's gave since the canary serves: the canary's first.

    `rewards` and `rows` are sums of each user whose answers are known, as `sequences.per_user` makes them; `users` how
    many the canary served, `of` how many either did.
    """

    rewards: tuple[Floats, Floats]
    rows: tuple[Floats, Floats]
    users: int
    of: int


def seen(users: npt.NDArray[np.object_], labels: Floats, canary: npt.NDArray[np.bool_]) -> Seen:
    """What rows come to. Whom both served, as the canary began or was away for a while, are the canary's.

    Args:
        users: to whom, shape (rows,); of any one kind that can be sorted.
        labels: how each row was received; NaN where nobody knows.
        canary: whether the canary served it; else the champion did.
    """
    ours, known = np.unique(users[canary]), ~np.isnan(labels)
    arms = [known & canary, known & ~canary & ~np.isin(users, ours)]
    (one, rows), (other, other_rows) = (sequences.per_user(users[arm], labels[arm]) for arm in arms)
    return Seen((one, other), (rows, other_rows), len(ours), len(np.unique(users)))


def judge(found: Seen, *, share: float, margin: float, confidence: float) -> Finding:
    """What a canary has shown: `pass` where a loss beyond the margin is excluded, `fail` where it is shown.

    Args:
        found: what users gave, over the same time.
        share: of the wheel's users, which the canary was to serve.
        margin: the share of the champion's reward that may be lost.
        confidence: that no look of all is wrong.
    """
    served = f"{found.users:,} of {found.of:,} users"
    if min(map(len, found.rows)) < sequences.FEWEST:
        detail = f"the canary served {served}; it takes {sequences.FEWEST} whose answers are known, in either arm"
        return Finding(NAME, UNSURE, nan, nan, found.users, detail)
    if sequences.sample_ratio(found.users, found.of, share).off():
        detail = f"the canary served {served}, where {share:.1%} was its share: the two are no fair comparison"
        return Finding(NAME, UNSURE, nan, nan, found.users, detail)
    ours, theirs = found.rewards
    reward = float(theirs.sum() / found.rows[1].sum())
    allowed = 1 - margin if reward >= 0 else 1 + margin
    plain, look = (
        sequences.difference((ours, part * theirs), found.rows, best_at=BEST_AT, alpha=1 - confidence)
        for part in (1, allowed)
    )
    status: Status = "pass" if look.low > 0 else "fail" if look.high < 0 else UNSURE
    detail = (
        f"{reward + plain.estimate:.4g} a row against the champion's {reward:.4g} ({plain.estimate:+.3g}, whenever one "
        f"looks {plain.low:+.3g} to {plain.high:+.3g}), the canary served {served}: "
        f"a loss beyond {margin:.0%} {SAID[status]}"
    )
    return Finding(NAME, status, plain.low, -margin * abs(reward), found.users, detail)


def step(found: Finding, *, timed_out: bool) -> Step:
    """What comes of a canary by what it has shown; evidence that is still missing at the end refuses."""
    if found.status == "pass":
        return "promote"
    return "refuse" if found.status == "fail" or timed_out else "wait"
