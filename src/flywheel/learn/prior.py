"""What past exams teach about a difference, before and beside the exam that measured it.

Of many challengers the one that looks best is partly lucky, and so is a champion that was chosen for looking best (the
winner's curse). So all of them are looked at together. The quality of generation t is taken as a curve that drifts
and wanders, plus the luck of its own training; every past exam told the difference of two of them to within its
standard error. That is a linear Gaussian model, and what it says of the new difference is its posterior: shrunk to
what the curve promises, and set against a champion whose own lucky exam is discounted by those it has sat since. How
large luck, wandering and drift are is learned from the same exams (empirical Bayes): a grid of values, as multiples of
an exam's usual standard error, each weighed by how likely it makes what was seen (Carlin and Louis, Bayesian Methods
for Data Analysis, ch. 5; compare TrueSkill Through Time, Dangauthier et al. 2007).
A simpler prior, one normal for the newest ten differences, let a fifth more harmful promotions through and served no
better in simulated wheels; `tests/benchmarks/gate_wheels.py` compares this one with the exam alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from flywheel.records import Interval

FEWEST = 3  # past exams below which nothing is learned from them
NEWEST = 40  # past exams that count
NOISE = 1e-9  # a standard error below this is rounding
GRID = tuple(product((0.2, 0.6, 1.2), (0.05, 0.3), (0.03, 0.3)))  # luck, wandering and drift, in standard errors


@dataclass(frozen=True)
class Met:
    """A past exam: a generation, whom it was examined against, and the difference that was found."""

    generation: int
    against: int
    difference: Interval


@dataclass(frozen=True)
class Belief:
    """A difference as it is to be believed: its mean, the probability that it is above 0, and from how many exams.

    `past` is the number of past exams behind it; 0 means this exam alone.
    """

    mean: float
    better: float
    past: int


def believe(interval: Interval, champion: int, past: Sequence[Met]) -> Belief:
    """The posterior of a challenger's difference to the champion, by this exam and those of the past, oldest first.

    Exams against the baseline (generation 0) teach nothing: it is on no curve. Two models that score alike (a standard
    error of 0) are better or not.

    >>> found = Interval(0.004, -0.001, 0.009, 0.0025, 5000, 400)
    >>> alone = believe(found, 1, ())
    >>> f"{alone.mean:.4f} {alone.better:.2f}"
    '0.0040 0.95'
    >>> seen = enumerate((-0.002, 0.001, 0, -0.001, 0), start=2)
    >>> shrunk = believe(found, 1, [Met(n, 1, Interval(e, 0, 0, 0.0025, 5000, 400)) for n, e in seen])
    >>> f"{shrunk.mean:.4f} {shrunk.better:.2f}"
    '0.0013 0.79'
    """
    if interval.se < NOISE:
        return Belief(interval.estimate, float(interval.estimate > 0), 0)
    usable = [one for one in past if one.against and _told(one.difference)][-NEWEST:]
    if champion == 0 or len(usable) < FEWEST:
        return Belief(interval.estimate, float(ndtr(interval.estimate / interval.se)), 0)
    newest = max(champion, *(one.generation for one in usable)) + 1
    means, errors, weights = _posterior([*usable, Met(newest, champion, interval)])
    return Belief(float(weights @ means), float(weights @ ndtr(means / errors)), len(usable))


def _told(difference: Interval) -> bool:
    return isfinite(difference.estimate) and isfinite(difference.se) and difference.se >= NOISE


def _posterior(met: Sequence[Met]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of the last difference: mean, standard deviation and weight by each row of the grid, shape (len(GRID),)."""
    times = np.array(sorted({n for one in met for n in (one.generation, one.against)}))
    place = {int(n): k for k, n in enumerate(times)}
    pairs = np.zeros((len(met), len(times)))
    for row, one in zip(pairs, met, strict=True):
        row[place[one.generation]], row[place[one.against]] = 1, -1
    seen = np.array([one.difference.estimate for one in met])
    noise = np.array([one.difference.se for one in met])
    unit, age = np.median(noise), times - times[0]
    found = []
    for luck, wander, drift in GRID:
        curve = wander**2 * np.minimum.outer(age, age) + drift**2 * np.outer(age, age)
        joint = pairs @ (unit**2 * (luck**2 * np.eye(len(times)) + curve)) @ pairs.T  # of the true differences
        root = np.linalg.cholesky(joint + np.diag(noise**2))
        told, gain = np.linalg.solve(root, seen), np.linalg.solve(root, joint[:, -1])
        likely = -np.sum(np.log(np.diag(root))) - told @ told / 2
        found.append((gain @ told, np.sqrt(joint[-1, -1] - gain @ gain), likely))
    means, errors, likelihoods = np.array(found).T
    weights = np.exp(likelihoods - likelihoods.max())
    return means, errors, weights / weights.sum()
