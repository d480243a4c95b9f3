"""Quality against data at one instant: from models fitted on nested samples to a curve, its forecast, and words.

Error is what a metric leaves to be gained: 1 − metric where more is better, else the metric itself. The noise of a
size is that between draws of users, pooled over sizes as a power of rows, for five draws alone tell little of it. Near
all rows draws overlap and differ less than new people would; their noise is what the smaller sizes say it is, and the
mean of k draws of a share f is known to its standard deviation times √(f + (1 − f) / k).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import digamma, ndtr

from flywheel.errors import DataError
from flywheel.evidence import Curve, CurvePoint, Estimate, Prediction
from flywheel.measure import forecast, spread
from flywheel.measure.forecast import FORECAST, Outlook
from flywheel.measure.laws import Floats

HIGHER_IS_BETTER = frozenset({"auc", "average_precision", "ndcg"})
WELL_BEHAVED = "well-behaved"
FEWEST_SIZES = 5
MULTIPLES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
_SLIGHT = 1.05  # times all rows: near enough for a slope
_LEAST = 1e-5  # standard error of a metric


@dataclass(frozen=True)
class Scored:
    """What a model was worth on the exam: fitted on a share of the users, and of the rows of each, of one draw.

    `reward` is on a scale whose ratios mean something, such as the mean label of what is put first; NaN for none.
    """

    users_share: float
    rows_share: float
    draw: int
    rows: int
    users: int
    quality: float
    reward: float


@dataclass(frozen=True)
class Asked:
    """What a curve is drawn for: metric, instant, exam, and the gain that counts as none."""

    metric: str
    as_of: datetime
    exam_rows: int
    margin: float
    made_from: str
    notes: tuple[str, ...] = ()


def curve(scored: Sequence[Scored], asked: Asked) -> Curve:
    """Draw the curve through what models of ever more rows were worth; `says` holds the notes alone.

    Raises:
        DataError: there are fewer than five sizes.
    """
    points = measured(scored, asked.metric)
    if len(points) < FEWEST_SIZES:
        why = f"models could be fitted at {len(points)} sizes, and a curve takes {FEWEST_SIZES}"
        raise DataError("there are too few rows for a learning curve", why=why, next="flywheel turn, as data comes in")
    wrong = shape(points, asked.metric)
    seen = look(points, asked.metric, np.array([*MULTIPLES, _SLIGHT])) if wrong == WELL_BEHAVED else None
    users, per_user = spread.more(scored, points, asked.metric in HIGHER_IS_BETTER)
    elasticity, of = _elasticity(scored, points, asked.metric) if seen else (None, "")
    return Curve(
        metric=asked.metric,
        as_of=asked.as_of,
        exam_rows=asked.exam_rows,
        points=points,
        envelope=envelope(points, asked.metric),
        forecast=_predictions(points, asked.metric, seen) if seen else (),
        shape=wrong,
        region=_region(points, asked, seen),  # type: ignore[arg-type]
        families=seen.families if seen else {},
        scale=seen.scale if seen else 1.0,
        elasticity=elasticity,
        elasticity_of=of,
        grid=spread.grid(scored, points),
        more_users=users,
        more_per_user=per_user,
        made_from=asked.made_from,
        says=asked.notes,
    )


def error_of(quality: Floats | Sequence[float] | float, metric: str) -> Floats:
    """What a metric leaves to be gained."""
    values = np.asarray(quality, dtype=np.float64)
    return 1 - values if metric in HIGHER_IS_BETTER else values


def measured(scored: Sequence[Scored], metric: str) -> tuple[CurvePoint, ...]:
    """One point a size, from the models fitted on all the rows of a share of the users; sizes ascend."""
    sizes: dict[float, list[Scored]] = {}
    for one in sorted(scored, key=lambda one: one.users_share):
        if one.rows_share == 1 and np.isfinite(one.quality):
            sizes.setdefault(one.users_share, []).append(one)
    noise = _noise([(share, [error_of(o.quality, metric) for o in ones], ones) for share, ones in sizes.items()])
    points = []
    for share, ones in sizes.items():
        rows = float(np.mean([one.rows for one in ones]))
        se = noise(rows) * np.sqrt(share + (1 - share) / len(ones))
        quality = float(np.mean([one.quality for one in ones]))
        users = round(float(np.mean([one.users for one in ones])))
        points.append(CurvePoint(round(rows), users, quality, max(float(se), _LEAST), len(ones)))
    return tuple(points)


def _noise(sizes: Sequence[tuple[float, list[Floats], list[Scored]]]) -> Callable[[float], float]:
    """The standard deviation between models of independent users, as a power of rows, pooled over the sizes."""
    known = [(s, np.asarray(e), np.mean([o.rows for o in ones])) for s, e, ones in sizes if s <= 0.5 and len(e) > 1]
    if not known:
        known = [(s, np.asarray(e), np.mean([o.rows for o in ones])) for s, e, ones in sizes if s < 1 and len(e) > 1]
    freedom = np.array([len(e) - 1.0 for _, e, _ in known])
    variance = np.array([max(e.var(ddof=1), 1e-14) / (1 - s) for s, e, _ in known])
    if not len(known):
        return lambda rows: 0.002  # noqa: ARG005  with one draw of each size nothing tells: assume what is usual
    log = np.log(variance) + np.log(freedom / 2) - digamma(freedom / 2)  # the mean of a log variance is too low
    x = np.log([rows for *_, rows in known])
    center = np.average(x, weights=freedom)
    along = float(np.sum(freedom * (x - center) ** 2))
    slope = float(np.clip(freedom @ ((x - center) * log) / along, -2, 0)) if len(known) > 2 and along else 0.0
    level = float(np.average(log, weights=freedom))
    return lambda rows: float(np.exp((level + slope * (np.log(rows) - center)) / 2))


def arrays(points: Sequence[CurvePoint], metric: str) -> tuple[Floats, Floats, Floats]:
    """Rows, error and its standard error of points."""
    rows = np.array([point.rows for point in points], dtype=np.float64)
    return rows, error_of([p.quality for p in points], metric), np.array([p.se for p in points])


def look(points: Sequence[CurvePoint], metric: str, places: Floats) -> Outlook:
    """What points leave open about other amounts of data, in units of the rows of the last."""
    return forecast.outlook(*arrays(points, metric), places)


def shape(points: Sequence[CurvePoint], metric: str, alpha: float = 0.05) -> str:
    """`well-behaved`, or what is wrong with a curve, beyond what noise explains.

    Error must not rise between any two sizes, nor its fall get steeper over any three (LCDB's tests, with Holm's
    correction over all pairs, and over all triples).

    >>> sizes = (100, 200, 400, 800, 1600)
    >>> dips = [CurvePoint(n, n, q, 0.001, 5) for n, q in zip(sizes, (0.60, 0.65, 0.62, 0.67, 0.69))]
    >>> shape(dips, "auc")
    'falls from 200 to 400 rows'
    """
    rows, error, se = arrays(points, metric)
    rises = [((i, j), (error[j] - error[i]) / np.hypot(se[i], se[j])) for i, j in combinations(range(len(rows)), 2)]
    found = _worst(rises, alpha)
    if found:
        return f"falls from {points[found[0]].rows:,} to {points[found[1]].rows:,} rows"
    bends = []
    for i, j, k in combinations(range(len(rows)), 3):
        part = (rows[j] - rows[i]) / (rows[k] - rows[i])
        above = error[j] - (1 - part) * error[i] - part * error[k]
        noise = np.sqrt(se[j] ** 2 + ((1 - part) * se[i]) ** 2 + (part * se[k]) ** 2)
        bends.append(((i, k), above / noise))
    found = _worst(bends, alpha)
    if found:
        return f"gains late, between {points[found[0]].rows:,} and {points[found[1]].rows:,} rows"
    return WELL_BEHAVED


def _worst(tests: Sequence[tuple[tuple[int, int], float]], alpha: float) -> tuple[int, int] | None:
    """The place of the largest z if it is significant among them all: Holm's first step."""
    place, z = max(tests, key=lambda test: test[1])
    return place if ndtr(-z) * len(tests) < alpha else None


def envelope(points: Sequence[CurvePoint], metric: str) -> tuple[float, ...]:
    """At each point the quality of the nearest curve that never falls, by weighted isotonic regression."""
    _, error, se = arrays(points, metric)
    smooth = isotonic_regression(error, weights=1 / se**2, increasing=False).x
    return tuple(float(q) for q in error_of(smooth, metric))  # the same rule both ways


def _predictions(points: Sequence[CurvePoint], metric: str, seen: Outlook) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            round(points[-1].rows * times), _quality(error, metric), "forecast" if times <= FORECAST else "scenario"
        )
        for times, error in zip(MULTIPLES, seen.value.estimates(), strict=False)
    )


def _quality(error: Estimate, metric: str) -> Estimate:
    if metric not in HIGHER_IS_BETTER:
        return error
    return Estimate(1 - error.value, 1 - error.high, 1 - error.low)


def _region(points: Sequence[CurvePoint], asked: Asked, seen: Outlook | None) -> str:
    """Plateau: twice the rows add less than counts; small-data: the fall per doubling still grows."""
    if seen and -seen.change.estimates()[MULTIPLES.index(2.0)].low < asked.margin:
        return "plateau"
    rows, error, se = arrays(points, asked.metric)
    half = len(points) // 2
    (early, early_se), (late, late_se) = (
        _slope(np.log2(rows[part]), error[part], se[part]) for part in (slice(None, half + 1), slice(half, None))
    )
    if not seen and -late + 2 * late_se < asked.margin:
        return "plateau"
    return "small-data" if late - early < -2 * np.hypot(early_se, late_se) else "power-law"


def climb(points: Sequence[CurvePoint], metric: str) -> Estimate:
    """What each doubling of the rows added over the largest half of the sizes, more being better, with 95 %.

    That is measured, not foretold: whether the curve still climbs at its end.
    """
    rows, error, se = (part[len(points) // 2 :] for part in arrays(points, metric))
    slope, of_slope = _slope(np.log2(rows), error, se)
    return Estimate(-slope, -slope - 1.96 * of_slope, -slope + 1.96 * of_slope)


def _slope(x: Floats, y: Floats, se: Floats) -> tuple[float, float]:
    weight = 1 / se**2
    center = np.average(x, weights=weight)
    along = float(weight @ (x - center) ** 2)
    return float(weight @ ((x - center) * y) / along), float(along**-0.5)


def _elasticity(scored: Sequence[Scored], points: Sequence[CurvePoint], metric: str) -> tuple[Estimate | None, str]:
    """∂ ln Q / ∂ ln rows at all rows, Q being reward where the exam tells one, else 1 / error."""
    rewarded = [Scored(**{**one.__dict__, "quality": one.reward}) for one in scored]
    reward = measured(rewarded, "ndcg") if all(np.isfinite(one.reward) for one in scored) else ()
    if len(reward) == len(points) and reward[-1].quality > 0:
        change = look(reward, "ndcg", np.array([_SLIGHT])).change.estimates()[0]
        level, of = reward[-1].quality, "mean label of what the model puts first"
    else:
        change = look(points, metric, np.array([_SLIGHT])).change.estimates()[0]
        level, of = float(error_of(points[-1].quality, metric)), f"1 / {_left(metric)}"
    if level <= 0:
        return None, ""
    per = -level * np.log(_SLIGHT)
    return Estimate(*(float(part / per) for part in (change.value, change.high, change.low))), of


def _left(metric: str) -> str:
    return f"(1 − {metric})" if metric in HIGHER_IS_BETTER else metric
