"""The laws by which error falls with data, and how well each explains what was measured.

A law is a shape φ of rows, decreasing, with one or two parameters: `pow3` and `pow4` powers (with and without a head
start), `mmf4` Morgan-Mercer-Flodin, `wbl4` Weibull; `log` falls forever and `last` not at all (Viering and Loog,
"The shape of learning curves", 2021, found these four to extrapolate best). Error is c + a·φ(rows), and given a shape
c and a follow by weighted least squares. So shapes are tried on a grid, all at once, in place of a search from many
starts (Golub and Pereyra's variable projection, 1973): nothing can fail to converge, and a million fits take seconds.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FAMILIES = ("pow3", "pow4", "mmf4", "wbl4", "log", "last")


@dataclass(frozen=True, eq=False)
class Fits:
    """Every shape of one family fitted to one curve; arrays of shape (shapes,) but for `beyond`, (shapes, places).

    Error at a place is m + A·beyond: `m` at all data, and `drop` (A) the fall from the smallest size to there, with
    the variances and the covariance of the two. `misfit` is the sum of squared residuals in their standard errors.
    """

    m: Floats
    drop: Floats
    beyond: Floats
    variances: tuple[Floats, Floats, Floats]
    misfit: Floats

    @property
    def value(self) -> Floats:
        """The error at each place, shape (shapes, places)."""
        return np.maximum(self.m[:, None] + self.drop[:, None] * self.beyond, 0)

    @property
    def spread(self) -> Floats:
        """The standard error of `value`, given the shape."""
        of_m, of_drop, both = (part[:, None] for part in self.variances)
        return np.sqrt(np.maximum(of_m + 2 * both * self.beyond + of_drop * self.beyond**2, 0))

    @property
    def change(self) -> Floats:
        """The error at each place less that at all data, shape (shapes, places)."""
        return np.maximum(self.drop[:, None] * self.beyond, -self.m[:, None])

    @property
    def change_spread(self) -> Floats:
        """The standard error of `change`, given the shape."""
        return np.sqrt(self.variances[1])[:, None] * np.abs(self.beyond)


@cache
def shapes(family: str) -> Floats:
    """The grid of a family's parameters, shape (shapes, 2): each even in its logarithm, rows being 1 at all data.

    >>> [len(shapes(family)) for family in FAMILIES]
    [100, 360, 704, 704, 1, 1]
    """
    first, second = {
        "pow3": (np.geomspace(0.05, 2, 100), np.zeros(1)),  # exponent; no head start
        "pow4": (np.geomspace(0.05, 2, 30), np.geomspace(3e-3, 1, 12)),  # exponent, head start
        "mmf4": (np.geomspace(0.2, 2, 22), np.geomspace(3e-3, 10, 32)),  # exponent, rows at half the way
        "wbl4": (np.geomspace(0.2, 2, 22), np.geomspace(1e-3, 3, 32)),  # exponent, rows at 63 % of the way
        "log": (np.zeros(1), np.zeros(1)),
        "last": (np.zeros(1), np.zeros(1)),
    }[family]
    return np.stack([grid.ravel() for grid in np.meshgrid(first, second, indexing="ij")], axis=1)


def phi(family: str, rows: Floats) -> Floats:
    """The shapes of a family at `rows` (1 is all data), shape (shapes, places)."""
    first, second = shapes(family)[:, :1], shapes(family)[:, 1:]
    match family:
        case "pow3" | "pow4":
            return np.asarray((rows + second) ** -first)
        case "mmf4":
            return np.asarray(1 / (1 + (rows / second) ** first))
        case "wbl4":
            return np.asarray(np.exp(-((rows / second) ** first)))
        case "log":
            return -np.log(rows)[None, :]
    return np.zeros((1, len(rows)))


def fit(family: str, rows: Floats, error: Floats, se: Floats, places: Floats) -> Fits:
    """Fit every shape of a family to a curve, and say what it is at `places`.

    Args:
        family: one of `FAMILIES`.
        rows: increasing, shape (sizes,); in units of all the data.
        error: to be small, shape (sizes,).
        se: standard error of each, shape (sizes,).
        places: rows to say the error at, shape (places,).
    """
    if family == "last":
        return _last(error, se, places)
    known, asked = phi(family, rows), phi(family, places)
    # as m + A·ψ, error at all data and drop until then: what is well determined, whatever the shape
    drop = known[:, :1] - known[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        psi, beyond = (known - known[:, -1:]) / drop, (asked - known[:, -1:]) / drop
        floor = known[:, -1:] / drop if family != "log" else np.zeros_like(drop)
    usable = np.isfinite(psi).all(axis=1) & np.isfinite(beyond).all(axis=1) & (drop[:, 0] > 0)
    psi, beyond, floor = psi[usable], beyond[usable], floor[usable, 0]
    return _solved(psi, beyond, floor, error, se)


def _solved(psi: Floats, beyond: Floats, floor: Floats, error: Floats, se: Floats) -> Fits:
    """Weighted least squares of m and A given each ψ, A held at 0 or above and the asymptote m − A·floor too."""
    weight = 1 / se**2
    s0, s1, s2 = weight.sum(), psi @ weight, psi**2 @ weight
    t0, t1 = weight @ error, psi @ (weight * error)
    determinant = s0 * s2 - s1**2
    m, drop = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
    below = m - drop * floor < 0
    along = psi + floor[:, None]  # with the asymptote at 0, error is A·(ψ + floor)
    held = (along @ (weight * error)) / (along**2 @ weight)
    drop = np.where(below, held, drop)
    m = np.where(below, held * floor, m)
    flat = drop < 0
    m, drop = np.where(flat, t0 / s0, m), np.where(flat, 0.0, drop)
    residual = (error - m[:, None] - drop[:, None] * psi) / se
    variances = (s2 / determinant, s0 / determinant, -s1 / determinant)
    return Fits(m, drop, beyond, variances, (residual**2).sum(axis=1))


def _last(error: Floats, se: Floats, places: Floats) -> Fits:
    nothing = np.zeros(1)
    misfit = (((error - error[-1]) / se) ** 2).sum(keepdims=True)
    return Fits(error[-1:], nothing, np.zeros((1, len(places))), (se[-1:] ** 2, nothing, nothing), misfit)
