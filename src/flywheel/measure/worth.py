"""What a curve is worth in answers: the gain of more rows, the rows that a target takes, and what it shows in words."""

from dataclasses import dataclass

import numpy as np

from flywheel.errors import DataError
from flywheel.evidence import Curve, Estimate
from flywheel.measure.curves import WELL_BEHAVED, climb, error_of, look
from flywheel.measure.forecast import FORECAST, SCENARIO


@dataclass(frozen=True)
class Needed:
    """Rows in all that it takes to reach a quality: the median with a 95 % interval; None is beyond ten times."""

    target: float
    rows: int | None
    low: int | None
    high: int | None
    chance: float  # to reach it within ten times the rows at hand
    says: str


def answers(drawn: Curve, more: int | None, target: float | None) -> tuple[str, ...]:
    """What a person asked of a curve: the gain of so many rows more, and the rows that a quality takes.

    Raises:
        DataError: nothing can be foretold, or not so far.
    """
    told = []
    if more is not None:
        kind = "forecast" if more <= (FORECAST - 1) * drawn.points[-1].rows else "scenario, less sure than it looks"
        told.append(f"{more:,} rows more would add {_with(gain(drawn, more))} to {drawn.metric} ({kind}).")
    if target is not None:
        told.append(needed(drawn, target).says)
    return tuple(told)


def gain(drawn: Curve, more: int) -> Estimate:
    """What so many rows more would add to quality, more being better whatever the metric, with its 95 % interval.

    Raises:
        DataError: the curve has no forecast, or does not reach so far.
    """
    times = 1 + more / drawn.points[-1].rows
    _refuse(drawn, times)
    change = look(drawn.points, drawn.metric, np.array([times])).change.estimates()[0]
    return Estimate(-change.value, -change.high, -change.low)


def needed(drawn: Curve, target: float) -> Needed:
    """The rows that it takes to reach a quality, as far as ten times the rows at hand.

    Raises:
        DataError: the curve has no forecast.
    """
    _refuse(drawn, 1.0)
    times = np.geomspace(drawn.points[0].rows / drawn.points[-1].rows, SCENARIO, 241)
    seen = look(drawn.points, drawn.metric, times)
    reached = np.maximum.accumulate(seen.value.below(error_of(target, drawn.metric)))
    at = [None if reached[-1] < p else round(drawn.points[-1].rows * float(times[np.argmax(reached >= p)]))
          for p in (0.025, 0.5, 0.975)]  # fmt: skip
    low, middle, high = at
    chance = float(reached[-1])
    if middle is None:
        told = f"{drawn.metric} {target:g} is not reachable within ten times the rows at hand (chance {chance:.0%})."
    elif high is not None and high <= drawn.points[-1].rows:
        told = f"{drawn.metric} {target:g} is reached with the rows at hand."
    else:
        most = "more than ten times as many as are at hand" if high is None else f"{high:,}"
        told = (
            f"{drawn.metric} {target:g} takes {middle:,} rows in all ({low:,} to {most}; chance within ten times "
            f"{chance:.0%}). Collect the lower number, then ask again."
        )
    return Needed(target, middle, low, high, chance, told)


def _refuse(drawn: Curve, times: float) -> None:
    if drawn.shape != WELL_BEHAVED:
        why = f"the curve {drawn.shape}: no law of learning does that, so none foretells it"
        raise DataError("this curve has no forecast", why=why, next="flywheel curve")
    if times > SCENARIO:
        most = round((SCENARIO - 1) * drawn.points[-1].rows)
        why = f"that is {times:.1f} times the rows at hand, and beyond {SCENARIO:g} times a forecast is a guess"
        raise DataError("so far nothing can be foretold", why=why, next=f"flywheel curve --more {most}")


def says(drawn: Curve) -> tuple[str, ...]:
    """What a curve shows, in sentences."""
    first, last = drawn.points[0], drawn.points[-1]
    told = [
        f"{drawn.metric} goes from {first.quality:.4f} with {first.rows:,} rows of {first.users:,} users to "
        f"{last.quality:.4f} with {last.rows:,} rows of {last.users:,} users, on one exam of {drawn.exam_rows:,} rows."
    ]
    if drawn.shape != WELL_BEHAVED:
        told.append(f"The curve {drawn.shape}, by more than noise explains, so nothing is foretold from it.")
    regions = {
        "small-data": "Each doubling of the rows still adds more than the one before: there is too little data yet.",
        "power-law": "Each doubling of the rows still adds something, and less than the one before.",
        "plateau": "Twice as many rows would add less than the gate's margin: the curve has levelled off.",
    }
    told.append(regions[drawn.region])
    rise = climb(drawn.points, drawn.metric)
    helps = "more data still helps" if rise.low > 0 else "that more data still helps is not shown"
    told.append(f"Over the largest sizes each doubling of the rows added {_with(rise)}: {helps}.")
    if drawn.forecast:
        two, four = (gain(drawn, (times - 1) * last.rows) for times in (2, 4))
        told.append(f"Twice the rows would add {_with(two)} to {drawn.metric}, four times {_with(four)}.")
    if drawn.more_users and drawn.more_per_user:
        users, rows = drawn.more_users, drawn.more_per_user
        apart = users.low > rows.high or rows.low > users.high
        better = "more users" if users.value > rows.value else "more rows of each user"
        told.append(
            f"Half as many users again would add {_with(users)}, half as many rows of each user again {_with(rows)}: "
            + (f"{better} are worth more." if apart else "the two are not told apart.")
        )
    return tuple(told)


def _with(gained: Estimate) -> str:
    return f"{gained.value:+.4f} ({gained.low:+.4f} to {gained.high:+.4f})"
