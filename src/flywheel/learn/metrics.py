"""What scores are worth on labelled rows, and how much each row moves that worth.

Labels and scores are equally long float arrays. A metric that is not defined (no rows, one class, a score
that is not finite, a probability outside [0, 1]) is NaN by value, never a warning. A row's *influence* is its
first-order effect on the metric (Hampel 1974); influences sum to 0, and the variance of their sums over
independent clusters is the variance of the metric.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Measured = tuple[float, Floats]

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "rmse", "mae"})
SMALLEST_PROBABILITY = 1e-7  # float32, which boosters score in, tells nothing closer to 0 or 1 apart
ROWS_PER_BIN = 250  # noise alone then makes a calibration error of .025 at most


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, and per bin the mean prediction, the observed rate and the rows."""

    error: float
    predicted: Floats
    observed: Floats
    rows: Codes


def auc(labels: Floats, scores: Floats) -> float:
    """The chance that a positive row scores above a negative one, ties counting half.

    >>> auc(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    return measure_auc(labels, scores)[0]


def log_loss(labels: Floats, scores: Floats) -> float:
    """Mean negative log likelihood of 0/1 labels; probabilities are clipped to [1e-7, 1 − 1e-7]."""
    return measure_log_loss(labels, scores)[0]


def average_precision(labels: Floats, scores: Floats) -> float:
    """Mean precision at each positive row's score, rows of equal score counted together."""
    return measure_average_precision(labels, scores)[0]


def brier(labels: Floats, scores: Floats) -> float:
    """Mean squared difference between probabilities and 0/1 labels."""
    return float(np.mean((scores - labels) ** 2)) if _are_probabilities(scores) else np.nan


def rmse(labels: Floats, scores: Floats) -> float:
    """Root mean squared error."""
    return measure_rmse(labels, scores)[0]


def mae(labels: Floats, scores: Floats) -> float:
    """Mean absolute error."""
    return measure_mae(labels, scores)[0]


def r2(labels: Floats, scores: Floats) -> float:
    """The share of the labels' variance that is explained; NaN where labels do not vary."""
    if not _are_finite(scores) or np.ptp(labels) == 0:
        return np.nan
    return float(1 - np.sum((labels - scores) ** 2) / np.sum((labels - labels.mean()) ** 2))


def ndcg(labels: Floats, scores: Floats, requests: Codes, k: int = 10) -> float:
    """Mean NDCG@k over the requests that hold a label above 0, with linear gains and a log2 discount.

    `requests` are codes from 0; rows of code −1 belong to none. Rows of equal score share the mean of their
    places' discounts (McSherry and Najork 2008). NaN where a label is negative.
    """
    return measure_ndcg(labels, scores, requests, k)[0]


def calibration(labels: Floats, scores: Floats, bins: int = 15, rows_per_bin: int = ROWS_PER_BIN) -> Calibration:
    """Expected calibration error over bins of equal mass; equal scores share a bin.

    There are fewer than `bins` where they would hold fewer than `rows_per_bin` rows.
    """
    if not _are_probabilities(scores):
        none = np.empty(0)
        return Calibration(np.nan, none, none, none.astype(np.int64))
    bins = max(1, min(bins, len(scores) // rows_per_bin))
    edges = np.unique(np.sort(scores)[np.arange(1, bins) * len(scores) // bins])
    bin_of = np.searchsorted(edges, scores, side="right")
    rows = np.bincount(bin_of)
    filled = rows > 0
    rows = rows[filled]
    predicted = np.bincount(bin_of, scores)[filled] / rows
    observed = np.bincount(bin_of, labels)[filled] / rows
    error = float(np.sum(rows * np.abs(predicted - observed)) / len(scores))
    return Calibration(error, predicted, observed, rows.astype(np.int64))


def measure(metric: str, labels: Floats, scores: Floats, requests: Codes | None = None, k: int = 10) -> Measured:
    """The metric with each row's influence on it; `ndcg` needs requests.

    Raises:
        KeyError: the metric has no influence function.
    """
    if metric == "ndcg" and requests is not None:
        return measure_ndcg(labels, scores, requests, k)
    return MEASURES[metric](labels, scores)


def measure_auc(labels: Floats, scores: Floats) -> Measured:
    """AUC by placement values (DeLong, DeLong and Clarke-Pearson 1988)."""
    rows, positives = len(labels), float(np.count_nonzero(labels > 0))
    negatives = rows - positives
    if not _are_finite(scores) or positives == 0 or negatives == 0:
        return _undefined(labels)
    order, start, end = _ties(scores)
    positive = labels[order] > 0
    below = np.concatenate([[0.0], np.cumsum(positive)])
    positives_below = (below[start] + below[end]) / 2
    negatives_below = (start + end) / 2 - positives_below
    placement = np.where(positive, negatives_below / negatives, 1 - positives_below / positives)
    value = float(placement[positive].mean())
    return value, _unsort((placement - value) / np.where(positive, positives, negatives), order)


def measure_average_precision(labels: Floats, scores: Floats) -> Measured:
    """Average precision; a row counts at its own threshold and in the precision of every lower one."""
    rows, positives = len(labels), float(np.count_nonzero(labels > 0))
    if not _are_finite(scores) or positives in (0, rows):
        return _undefined(labels)
    order, start, end = _ties(scores)
    positive = (labels[order] > 0).astype(float)
    above = rows - start
    precision = (positives - np.concatenate([[0.0], np.cumsum(positive)])[start]) / above
    value = float(precision @ positive / positives)
    weight = np.cumsum(positive / above)[end - 1]
    precision_weight = np.cumsum(positive * precision / above)[end - 1]
    influence = (positive * (precision - value + weight) - precision_weight) / positives
    return value, _unsort(influence, order)


def measure_log_loss(labels: Floats, scores: Floats) -> Measured:
    """Log loss, with each row's own share of it."""
    if not _are_probabilities(scores):
        return _undefined(labels)
    clipped = np.clip(scores, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return _mean(-np.log(np.where(labels > 0, clipped, 1 - clipped)))


def measure_mae(labels: Floats, scores: Floats) -> Measured:
    """Mean absolute error, with each row's own share of it."""
    return _mean(np.abs(labels - scores)) if _are_finite(scores) else _undefined(labels)


def measure_rmse(labels: Floats, scores: Floats) -> Measured:
    """Root mean squared error, its influence by the delta method on squared errors."""
    if not _are_finite(scores):
        return _undefined(labels)
    square, influence = _mean((labels - scores) ** 2)
    value = float(np.sqrt(square))
    return value, influence / (2 * value) if value > 0 else influence


def measure_ndcg(labels: Floats, scores: Floats, requests: Codes, k: int) -> Measured:
    """NDCG@k; a request's influence is spread evenly over its rows."""
    if not _are_finite(scores) or labels.min() < 0:
        return _undefined(labels)
    in_request = requests >= 0
    codes, gains = requests[in_request], labels[in_request]
    best = _gain_by_request(gains, gains, codes, k)
    ranked = best > 0
    if not ranked.any():
        return _undefined(labels)
    per_request = _gain_by_request(gains, scores[in_request], codes, k)[ranked] / best[ranked]
    value = float(per_request.mean())
    per_row = np.zeros(len(best))
    per_row[ranked] = (per_request - value) / (len(per_request) * np.bincount(codes)[ranked])
    influence = np.zeros(len(labels))
    influence[in_request] = per_row[codes]
    return value, influence


def ranked_rows(labels: Floats, requests: Codes) -> NDArray[np.bool_]:
    """The rows that NDCG rests on: those in a request with a label above 0."""
    in_request = requests >= 0
    has_gain = np.bincount(requests[in_request], labels[in_request] > 0) > 0
    rows = np.zeros(len(labels), dtype=bool)
    rows[in_request] = has_gain[requests[in_request]]
    return rows


MEASURES: dict[str, Callable[[Floats, Floats], Measured]] = {
    "auc": measure_auc,
    "average_precision": measure_average_precision,
    "log_loss": measure_log_loss,
    "mae": measure_mae,
    "rmse": measure_rmse,
}


def _gain_by_request(gains: Floats, scores: Floats, codes: Codes, k: int) -> Floats:
    order = np.lexsort((-scores, codes))
    code, score = codes[order], scores[order]
    new_request = np.concatenate([[True], code[1:] != code[:-1]])[: len(code)]
    new_tie = new_request | np.concatenate([[True], score[1:] != score[:-1]])[: len(code)]
    place = np.arange(len(code)) - np.flatnonzero(new_request)[np.cumsum(new_request) - 1]
    discount = np.where(place < k, 1 / np.log2(place + 2), 0.0)
    tie = np.cumsum(new_tie) - 1
    shared = (np.bincount(tie, discount) / np.bincount(tie))[tie]
    return np.bincount(code, gains[order] * shared).astype(np.float64)


def _ties(scores: Floats) -> tuple[Codes, Codes, Codes]:
    """The ascending order, and for each place in it where its run of equal scores starts and ends."""
    order = np.argsort(scores)
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(scores))
    return order, np.repeat(starts, ends - starts), np.repeat(ends, ends - starts)


def _unsort(values: Floats, order: Codes) -> Floats:
    unsorted = np.empty_like(values)
    unsorted[order] = values
    return unsorted


def _mean(values: Floats) -> Measured:
    mean = float(values.mean())
    return mean, (values - mean) / len(values)


def _undefined(labels: Floats) -> Measured:
    return np.nan, np.full(len(labels), np.nan)


def _are_finite(scores: Floats) -> bool:
    return len(scores) > 0 and bool(np.isfinite(scores).all())


def _are_probabilities(scores: Floats) -> bool:
    return _are_finite(scores) and bool(scores.min() >= 0) and bool(scores.max() <= 1)
