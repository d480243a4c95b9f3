"""What a curve leaves open about more data: every law that explains it, weighted, and widened by what it failed to
foretell of itself.

Shapes are weighted by how well they explain the sizes measured: by likelihood, each family believed beforehand as
`PRIOR` says and its shapes evenly, so that many shapes are no advantage. The band is that of the mixture: over laws,
shapes and noise. Where it would have missed the largest sizes, had they been hidden (a rolling-origin back-test), it is
widened by as much. Weights by the back-test alone, as often advised, were about as good on simulated truths, a little
better on Weibull's and a little worse on power laws, and gave no likelihood to make a band of.
`tests/benchmarks/forecasts.py` shows what the bands hold.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from flywheel.evidence import Estimate
from flywheel.measure import laws
from flywheel.measure.laws import Fits, Floats

FORECAST, SCENARIO = 4.0, 10.0  # times the rows at hand, up to which a forecast goes and a scenario
HIDDEN = 3  # sizes that a back-test hides at most
FEWEST = 5  # sizes that a law is fitted to at least
PARAMETERS = 4  # of a law
# What is believed before a curve is seen. That one levels off for good (Weibull) is given the most: the other laws
# cannot say so, and take such a curve for one that still falls.
PRIOR = {"pow3": 0.4, "pow4": 0.1, "mmf4": 1.0, "wbl4": 1.5, "log": 0.05, "last": 0.05}
EXACT = 0.004  # of the fall so far: to within it a law, and the grid of its shapes, is meant
_NEGLIGIBLE = 1e-7  # weight of a shape
_STEPS = 50  # halvings of an interval that holds a quantile


@dataclass(frozen=True, eq=False)
class Mixture:
    """Normal distributions at each place, one a shape: means and errors of shape (shapes, places), weights (shapes,).

    `scale` widens about the mean what quantiles say.
    """

    mean: Floats
    error: Floats
    weight: Floats
    scale: float = 1.0

    @cached_property
    def expected(self) -> Floats:
        """The mean at each place, shape (places,)."""
        return self.weight @ self.mean

    def below(self, value: Floats | float) -> Floats:
        """The chance at each place to be at or below a value, shape (places,)."""
        narrow = self.expected + (value - self.expected) / self.scale
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            z = (narrow - self.mean) / self.error
        return self.weight @ np.where(np.isnan(z), 1.0, ndtr(z))

    def quantile(self, chance: float) -> Floats:
        """The value at each place that is not exceeded with this chance, shape (places,)."""
        reach = self.scale * (np.abs(self.mean - self.expected) + 9 * self.error).max(axis=0) + 1e-12
        low, high = self.expected - reach, self.expected + reach
        for _ in range(_STEPS):
            middle = (low + high) / 2
            under = self.below(middle) < chance
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.asarray((low + high) / 2)

    def estimates(self) -> list[Estimate]:
        """The mean at each place, with its 95 % interval."""
        bounds = zip(self.expected, self.quantile(0.025), self.quantile(0.975), strict=True)
        return [Estimate(float(value), float(low), float(high)) for value, low, high in bounds]


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a curve says of other amounts of data: the error there, and its change from all data at hand.

    `families` are the weights of the laws, the heaviest first.
    """

    value: Mixture
    change: Mixture
    families: dict[str, float]
    scale: float


def outlook(rows: Floats, error: Floats, se: Floats, places: Floats) -> Outlook:
    """Foretell a curve at `places`.

    Args:
        rows: increasing, shape (sizes,).
        error: to be small, shape (sizes,).
        se: standard error of each, above 0, shape (sizes,).
        places: amounts of data, shape (places,), in units of the largest of `rows`.
    """
    se = np.hypot(se, EXACT * np.ptp(error))
    scale = backtest(rows, error, se)
    fits, weight = _weighed(rows / rows[-1], error, se, places)
    kept = weight > _NEGLIGIBLE
    family = np.repeat(list(fits), [len(fit.m) for fit in fits.values()])[kept]
    weight = weight[kept] / weight[kept].sum()
    value, spread, change, change_spread = (
        np.concatenate([getattr(fit, name) for fit in fits.values()])[kept]
        for name in ("value", "spread", "change", "change_spread")
    )
    shares = {name: float(weight[family == name].sum()) for name in fits}
    return Outlook(
        Mixture(value, spread, weight, scale),
        Mixture(change, change_spread, weight, scale),
        dict(sorted(shares.items(), key=lambda share: -share[1])),
        scale,
    )


def backtest(rows: Floats, error: Floats, se: Floats) -> float:
    """By how much bands are to be wider: what the band would have missed of the largest sizes, had they been hidden.

    The root mean square of the misses in units of the band's own error, leaning on 1 as on as many misses as are
    tested, and never below 1.
    """
    known = len(rows) - HIDDEN
    if known < FEWEST:
        return 1.0
    top = rows[known - 1]
    fits, weight = _weighed(rows[:known] / top, error[:known], se[:known], rows[known:] / top)
    value, spread = (np.concatenate([getattr(fit, name) for fit in fits.values()]) for name in ("value", "spread"))
    expected = weight @ value
    variance = weight @ (spread**2 + (value - expected) ** 2) + se[known:] ** 2
    squares = ((error[known:] - expected) ** 2 / variance).sum()
    return float(np.sqrt(max(1.0, (squares + HIDDEN) / (2 * HIDDEN))))


def _weighed(rows: Floats, error: Floats, se: Floats, places: Floats) -> tuple[dict[str, Fits], Floats]:
    """Every family fitted, and the weights of all their shapes, in that order."""
    fits = {family: laws.fit(family, rows, error, se, places) for family in laws.FAMILIES}
    least = min(fit.misfit.min(initial=np.inf) for fit in fits.values())
    # where no law explains the curve, noise was larger than its standard errors say
    trust = min(1.0, max(len(rows) - PARAMETERS, 1) / max(least, 1e-12))
    log = [np.log(PRIOR[family] / max(len(fit.misfit), 1)) - trust * fit.misfit / 2 for family, fit in fits.items()]
    likely = np.concatenate(log)
    weight = np.exp(likely - likely.max())
    return fits, weight / weight.sum()
