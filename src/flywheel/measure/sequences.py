"""Intervals that may be looked at as often as one likes, and a check that arms hold as many users as they should.

An ordinary 95 % interval that is looked at every turn excludes the truth sooner or later. These are sequences: the
truth is within all of their intervals at once with a probability of 95 %, however often and for whatever reason one
looks or stops. They are the asymptotic confidence sequences of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
(2021; Annals of Statistics 2024, "Time-uniform central limit theory and asymptotic confidence sequences"): after n
users the margin is

    se · √( (1 + 1/x) · (log(1 + x) + 2 log(1/α)) ),    x = n · ρ²,

where ρ² is chosen so that the margin is the tightest of its kind at n = `best_at` users. The unit is the user: what
one user gives is summed before anything else is done, for the rows of one user are no independent evidence. Before
about 50 users in the smaller arm nothing asymptotic holds, and the interval is unbounded.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, lambertw

FEWEST = 50  # users of an arm, below which the mean of their rewards is not near enough to normal

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sequence:
    """One look at a confidence sequence: the estimate, its bounds, and what it rests on. Bounds may be infinite."""

    estimate: float
    low: float
    high: float
    se: float
    users: int


@dataclass(frozen=True)
class Ratio:
    """Whether users fall into arms as they should: an e-value, which speaks against it where it is large."""

    expected: float
    found: float
    e_value: float

    def off(self, alpha: float = 0.001) -> bool:
        """Whether the arms are not filled as they should be; true by chance at any look with probability alpha."""
        return self.e_value >= 1 / alpha


def widening(users: float, best_at: float, alpha: float = 0.05) -> float:
    """How many standard errors the margin takes after so many users, with the tightest margin at `best_at`.

    >>> [round(widening(n, best_at=1000), 2) for n in (100, 1000, 100_000)]
    [3.82, 3.04, 3.57]
    """
    least = float(-lambertw(-(alpha**2) / math.e, -1).real) - 1  # x at which the margin is tightest
    x = users / best_at * least
    return math.sqrt((1 + 1 / x) * (math.log1p(x) - 2 * math.log(alpha)))


def per_user(users: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The sum of rewards and the number of rows of each user, shapes (users,): what the sequences are fed with.

    Args:
        users: whose each row is, shape (rows,); of any one kind that can be sorted.
        labels: the reward of each row, shape (rows,).

    >>> per_user(["ann", "bob", "ann"], [1, 0, 1])
    (array([2., 0.]), array([2., 1.]))
    """
    known, whose = np.unique(users, return_inverse=True)
    rewards, rows = np.zeros(len(known)), np.zeros(len(known))
    np.add.at(rewards, whose, np.asarray(labels, np.float64))
    np.add.at(rows, whose, 1)
    return rewards, rows


def mean(rewards: Floats, rows: Floats, *, best_at: float, alpha: float = 0.05) -> Sequence:
    """The reward per row of these users: a look at its confidence sequence.

    Args:
        rewards: the sum of each user's rewards so far, shape (users,).
        rows: the number of each user's rows so far, positive; ones where `rewards` are means and users count alike.
        best_at: the number of users at which the margin is to be tightest.
        alpha: the probability that any look of all excludes the truth.

    >>> look = mean(np.tile([0.0, 1.0], 200), np.ones(400), best_at=400)
    >>> look.estimate, round(look.low, 3), look.users
    (0.5, 0.424, 400)
    """
    estimate, se = _ratio(rewards, rows)
    return _look(estimate, se, len(rows), best_at, alpha)


def difference(
    rewards: tuple[Floats, Floats], rows: tuple[Floats, Floats], *, best_at: float, alpha: float = 0.05
) -> Sequence:
    """How much more the first arm gives a row than the second: a look at the confidence sequence of the difference.

    Args:
        rewards: of both arms, the sum of each user's rewards so far, shapes (users,).
        rows: of both arms, the number of each user's rows so far.
        best_at: the number of users of the smaller arm at which the margin is to be tightest.
        alpha: the probability that any look of all excludes the truth.
    """
    (one, se), (other, other_se) = (_ratio(*arm) for arm in zip(rewards, rows, strict=True))
    return _look(one - other, math.hypot(se, other_se), min(map(len, rows)), best_at, alpha)


def around(estimate: float, se: float, users: int, *, best_at: float, alpha: float = 0.05) -> Sequence:
    """A look at the confidence sequence of any estimate that is a mean over users but for what is negligible."""
    return _look(estimate, se, users, best_at, alpha)


def sample_ratio(users: int, of: int, share: float) -> Ratio:
    """Whether `users` of `of` is what an arm should hold to which `share` of all is hashed; as often as one likes.

    The e-value is the mixture of binomials over a beta prior around the share, against the share itself: a likelihood
    ratio, so it is at least 1/α at any look with a probability of at most α (Ville). Source: Lindon and Malek (2022),
    "Anytime-valid inference for multinomial count data".

    >>> sample_ratio(52, 1000, 0.05).off(), sample_ratio(120, 1000, 0.05).off()
    (False, True)
    """
    a, b = 100 * share, 100 * (1 - share)  # a prior as heavy as 100 users
    mixed = betaln(a + users, b + of - users) - betaln(a, b)
    exact = users * math.log(share) + (of - users) * math.log1p(-share)
    return Ratio(share, users / of if of else math.nan, float(np.exp(min(mixed - exact, 700.0))))


def _ratio(rewards: Floats, rows: Floats) -> tuple[float, float]:
    """Reward per row, and its standard error with users as clusters."""
    n, total = len(rows), float(rows.sum())
    if n < FEWEST:
        return (float(rewards.sum()) / total if total else math.nan), math.inf
    value = float(rewards.sum()) / total
    off = rewards - value * rows
    return value, math.sqrt(float(off @ off) * n / (n - 1)) / total


def _look(estimate: float, se: float, users: int, best_at: float, alpha: float) -> Sequence:
    margin = math.inf if users < FEWEST or not math.isfinite(se) else se * widening(users, best_at, alpha)
    return Sequence(estimate, estimate - margin, estimate + margin, se, users)
