"""More users, or more rows of each? Error as c + a·users^−β₁ + b·rows-per-user^−β₂, from models of a small grid.

Every pair of exponents is tried, weighted by likelihood, as in `flywheel.measure.forecast`; the rest follows by
least squares.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flywheel.evidence import CurvePoint, Estimate
from flywheel.measure.forecast import Mixture
from flywheel.measure.laws import Floats

HALF_AGAIN = 1.5
_EXPONENTS = np.geomspace(0.05, 2, 24)
_FEWEST = 3  # points that have fewer rows of each user


class Fitted(Protocol):
    """A model's share of users and of the rows of each, and what it was worth."""

    @property
    def users_share(self) -> float: ...  # noqa: D102
    @property
    def rows_share(self) -> float: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def users(self) -> int: ...  # noqa: D102
    @property
    def quality(self) -> float: ...  # noqa: D102


def grid(scored: Sequence[Fitted], points: Sequence[CurvePoint]) -> tuple[CurvePoint, ...]:
    """One point for each share of rows per user below 1, their noise that of the curve at as many rows."""
    return tuple(point for *_, point in _grid(scored, points))


def more(
    scored: Sequence[Fitted], points: Sequence[CurvePoint], higher_is_better: bool
) -> tuple[Estimate | None, Estimate | None]:
    """Quality gained by half as many users again, and by half as many rows again of each; None where nothing tells."""
    thinned = _grid(scored, points)
    if len(thinned) < _FEWEST or not points[-1].users:
        return None, None
    every = [(p.rows / points[-1].rows, 1.0, p) for p in points] + thinned
    users, rows = (np.array([one[i] for one in every]) for i in (0, 1))
    error = np.array([(1 - p.quality) if higher_is_better else p.quality for *_, p in every])
    se = np.array([p.se for *_, p in every])
    se = np.hypot(se, 0.004 * np.ptp(error))
    changes, errors, misfits = [], [], []
    for first in _EXPONENTS:
        for second in _EXPONENTS:
            design = np.column_stack([np.ones(len(error)), _fall(users, first), _fall(rows, second)])
            change, spread, misfit = _solve(design / se[:, None], error / se, first, second)
            changes.append(change)
            errors.append(spread)
            misfits.append(misfit)
    excess = np.array(misfits) - min(misfits)
    trust = min(1.0, max(len(error) - 5, 1) / max(min(misfits), 1e-12))
    weight = np.exp(-trust * excess / 2)
    mixture = Mixture(np.array(changes), np.array(errors) / np.sqrt(trust), weight / weight.sum())
    gained = [Estimate(-e.value, -e.high, -e.low) for e in mixture.estimates()]
    return gained[0], gained[1]


def _fall(share: Floats | float, exponent: float) -> Floats:
    return np.asarray(share**-exponent - 1)


def _solve(design: Floats, error: Floats, first: float, second: float) -> tuple[Floats, Floats, float]:
    """What half as much again changes, its standard error, and the misfit; falls are held at 0 or above."""
    covariance = np.linalg.pinv(design.T @ design)
    found = np.maximum(covariance @ (design.T @ error), 0)
    reach = np.array([float(_fall(HALF_AGAIN, exponent)) for exponent in (first, second)])
    spread = np.sqrt(np.diag(covariance))[1:] * np.abs(reach)
    return found[1:] * reach, spread, float(((error - design @ found) ** 2).sum())


def _grid(scored: Sequence[Fitted], points: Sequence[CurvePoint]) -> list[tuple[float, float, CurvePoint]]:
    cells: dict[tuple[float, float], list[Fitted]] = {}
    for one in scored:
        if one.rows_share < 1 and np.isfinite(one.quality):
            cells.setdefault((one.users_share, one.rows_share), []).append(one)
    log_rows, log_se = np.log([p.rows for p in points]), np.log([p.se * np.sqrt(p.seeds) for p in points])
    found = []
    for (users, rows), ones in sorted(cells.items()):
        mean = float(np.mean([one.rows for one in ones]))
        se = float(np.exp(np.interp(np.log(mean), log_rows, log_se))) / len(ones) ** 0.5
        quality = float(np.mean([one.quality for one in ones]))
        who = round(float(np.mean([one.users for one in ones])))
        found.append((users, rows, CurvePoint(round(mean), who, quality, se, len(ones))))
    return found
