"""How fast data ages, and whether it is better to drop what is old.

A row of age `a` counts as `2^(−a / h)` of a fresh one, and the quality of a model rises with the logarithm of the rows
that it learned from, counted so. `half_life` fits `h` to the qualities of many models trained on rows of different
ages and numbers, in one exam.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from flywheel.evidence import Estimate
from flywheel.learn.metrics import Floats

GRID = 200  # half-lives tried, evenly on the logarithm
FOREVER = 50.0  # spans of the data after which aging cannot be told from none


@dataclass(frozen=True)
class Aging:
    """The rows that a model learned from, by age: days before the exam, and how many."""

    days: Floats
    rows: Floats

    def effective(self, half_life: float) -> float:
        """So many fresh rows would be worth as much.

        >>> Aging(np.array([0.0, 7.0]), np.array([100.0, 100.0])).effective(7)
        150.0
        """
        return float(self.rows @ np.exp2(-self.days / half_life))


def half_life(models: Sequence[Aging], qualities: Floats, covariance: Floats) -> Estimate | None:
    """Days after which a row is worth half of a fresh one, by profile likelihood; None where no aging is seen.

    Quality is taken as a parabola over the logarithm of effective rows, and `covariance` is widened by what that
    leaves unexplained.

    Args:
        models: the rows of each.
        qualities: what each came to in the same exam, shape (models,).
        covariance: of the qualities, shape (models, models).
    """
    oldest = max(float(one.days.max()) for one in models)
    tried = np.geomspace(oldest / 50, oldest * FOREVER, GRID)
    root = np.linalg.inv(np.linalg.cholesky(covariance + np.eye(len(models)) * np.diag(covariance).mean() * 1e-6))
    misfit = np.array([_misfit([one.effective(h) for one in models], qualities, root) for h in tried])
    best = int(np.argmin(misfit))
    unexplained = max(1.0, float(misfit[best]) / max(1, len(models) - 4))
    inside = np.flatnonzero(misfit <= misfit[best] + chi2.ppf(0.95, 1) * unexplained)
    first, last = max(0, inside[0] - 1), inside[-1] + 1  # the ends lie between those tried
    if last >= GRID - 1:
        return None
    return Estimate(float(tried[best]), float(tried[first]), float(tried[last]))


def shortened(gains: Mapping[float, Estimate], least: float) -> float | None:
    """The days of newest rows to keep, where keeping only some is better than keeping all; else None.

    Of the spans whose interval is above 0 and whose gain is at least `least`, the longest that is worse than the best
    by a quarter of the best one's interval at most: rows are dropped only as far as it surely pays.

    Args:
        gains: of each span over all rows; their intervals are to hold for all of them together.
        least: a gain smaller than this counts as none.
    """
    better = {days: gain for days, gain in gains.items() if gain.low > 0 and gain.value >= least}
    if not better:
        return None
    best = max(better.values(), key=lambda gain: gain.value)
    return max(days for days, gain in better.items() if gain.value >= best.value - (best.high - best.low) / 4)


def _misfit(effective: Sequence[float], qualities: Floats, root: Floats) -> float:
    x = np.log(np.asarray(effective))
    x = (x - x.mean()) / max(float(x.std()), 1e-12)
    design = root @ np.stack([np.ones_like(x), x, x**2], axis=1)
    seen = root @ qualities
    left = seen - design @ np.linalg.lstsq(design, seen, rcond=None)[0]
    return float(left @ left)
