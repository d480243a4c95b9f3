"""Metrics, differences and intervals as a person writes them: `AUC .846 against .831 (+.015, …)`."""

from math import ceil, floor, inf, isfinite, isnan, log10
from typing import Literal

from flywheel.records import Comparison, Interval

Status = Literal["pass", "fail", "not enough evidence"]

UNSURE: Status = "not enough evidence"
NAMES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "ndcg": "NDCG",
    "rmse": "RMSE",
    "mae": "MAE",
}
LOWER_IS_BETTER = ("log_loss", "rmse", "mae")


def name(metric: str) -> str:
    """A metric by the name that people know it by."""
    return NAMES.get(metric, metric)


def compared(comparison: Comparison, confidence: float, against: str = "") -> str:
    """Both models, the difference and what it rests on, as in `AUC .846 against .831 (+.015, …)`."""
    interval = comparison.difference
    places = decimals(interval.se)
    gain = "gain " if comparison.metric in LOWER_IS_BETTER else ""
    difference = f"{gain}{number(interval.estimate, places, sign=True)}, {bounds(interval, confidence)}"
    return (
        f"{name(comparison.metric)} {number(comparison.challenger, places)} against "
        f"{against}{number(comparison.champion, places)} ({difference}, {interval.rows:,} rows)"
    )


def bounds(interval: Interval, confidence: float) -> str:
    """The ends of an interval, as in `95 % .012 to .018`."""
    places = decimals(interval.se)
    return f"{100 * confidence:g} % {number(interval.low, places)} to {number(interval.high, places)}"


def decimals(scale: float) -> int:
    """As many places as show a number of this size, from three to six.

    >>> decimals(0.02), decimals(0.00004), decimals(0)
    (3, 5, 3)
    """
    return min(6, max(3, -floor(log10(scale)))) if 0 < scale < inf else 3


def roughly(count: float) -> str:
    """A number of rows to two digits, rounded up.

    >>> roughly(3412), roughly(57)
    ('3,500', '57')
    """
    step = 10 ** max(0, floor(log10(count)) - 1)
    return f"{ceil(count / step) * step:,}"


def number(value: float, places: int | None = None, *, sign: bool = False) -> str:
    """A number as a person writes it.

    >>> number(0.846), number(-0.002), number(0.015, 3, sign=True), number(float("nan"))
    ('.846', '−.002', '+.015', 'not a number')
    """
    if not isfinite(value):
        return "not a number" if isnan(value) else "infinite"
    text = f"{abs(value):.{places}f}" if places is not None else f"{abs(value):.6f}".rstrip("0").rstrip(".")
    text = text.removeprefix("0") if text.startswith("0.") else text
    return ("−" if value < 0 else "+" if sign else "") + text
