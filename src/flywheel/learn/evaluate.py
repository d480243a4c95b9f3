"""One exam: both models on the same rows, every metric, and the paired difference with its interval.

The interval is clustered: rows of one user are not independent evidence. Per-row influences of the difference
(those of AUC are DeLong's, 1988) are summed by user; the variance is bias-reduced by each user's share of the
rows and its degrees of freedom are Satterthwaite's, so a few users with most of the rows widen it (Bell and
McCaffrey 2002; it is the textbook's clusters − 1 where all have equally many rows). AUC and average precision
rest on two samples, positives and negatives, whose degrees of freedom combine as Welch's. What the interval covers is
shown by `tests/benchmarks/interval_coverage.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from flywheel.errors import ConfigError, DataError
from flywheel.learn import metrics
from flywheel.learn.metrics import Codes, Floats
from flywheel.records import Comparison, Evaluation, Interval, Slice

Kind = Literal["binary", "number"]

NO_VALUE = "—"
SMALLEST_SLICE = 30  # rows; below it a metric says nothing
DECIDING = {
    "binary": ("auc", "log_loss", "average_precision", "ndcg"),
    "number": ("rmse", "mae", "ndcg"),
}


@dataclass(frozen=True)
class _Rows:
    """The exam as arrays; users and requests are codes from 0, −1 for none; every row has a cluster."""

    labels: Floats
    challenger: Floats
    champion: Floats
    clusters: Codes
    users: Codes | None
    requests: Codes | None

    def take(self, index: Codes) -> "_Rows":
        return _Rows(
            labels=self.labels[index],
            challenger=self.challenger[index],
            champion=self.champion[index],
            clusters=self.clusters[index],
            users=None if self.users is None else self.users[index],
            requests=None if self.requests is None else _compact(self.requests[index]),
        )

    @property
    def n_users(self) -> int:
        return 0 if self.users is None else len(np.unique(self.users)) - int((self.users < 0).any())


def evaluate(  # noqa: PLR0913  (an exam has this many parts, all named)
    labels: NDArray[Any],
    challenger: NDArray[Any],
    champion: NDArray[Any],
    *,
    kind: Kind,
    metric: str,
    users: NDArray[Any] | None = None,
    requests: NDArray[Any] | None = None,
    slices: Mapping[str, NDArray[Any]] | None = None,
    confidence: float = 0.95,
    k: int = 10,
) -> Evaluation:
    """Examine both models on the same rows.

    Clusters are users; a row without one is its own. Without users they are requests, else rows. `difference`
    is signed so that more is better for the challenger. Slices of fewer than 30 rows, and those on which the
    metric is not defined, appear with NaN. Scores that are not finite make metrics NaN; the gate refuses
    those.

    Raises:
        DataError: arrays differ in length, or a label is missing or none of the kind's.
        ConfigError: the metric does not fit the kind, or is `ndcg` without requests.
    """
    _check_metric(metric, kind, requests)
    columns = dict(slices or {})
    parts = {"challenger": challenger, "champion": champion, "users": users, "requests": requests}
    _check_rows(labels, kind, parts | {f"slice {name}": values for name, values in columns.items()})
    rows = _rows(labels, challenger, champion, users, requests)
    return Evaluation(
        rows=len(rows.labels),
        users=rows.n_users,
        challenger=_all_metrics(kind, rows, rows.challenger, k),
        champion=_all_metrics(kind, rows, rows.champion, k),
        overall=compare(rows, metric, confidence, k),
        slices=tuple(
            Slice(column, value, len(index), part.n_users, compare(part, metric, confidence, k, SMALLEST_SLICE))
            for column in columns
            for value, index in groups(columns[column])
            for part in [rows.take(index)]
        ),
    )


def compare(rows: _Rows, metric: str, confidence: float, k: int, smallest: int = 1) -> Comparison:
    """The metric of both models, and the challenger's advantage; NaN below the smallest number of rows."""
    if len(rows.labels) < smallest:
        unknown = Interval(np.nan, np.nan, np.nan, np.nan, len(rows.labels), rows.n_users)
        return Comparison(metric, np.nan, np.nan, unknown)
    challenger, influence = metrics.measure(metric, rows.labels, rows.challenger, rows.requests, k)
    champion, champion_influence = metrics.measure(metric, rows.labels, rows.champion, rows.requests, k)
    sign = -1 if metric in metrics.LOWER_IS_BETTER else 1
    influence = sign * (influence - champion_influence)
    estimate = sign * (challenger - champion)
    se, freedom = clustered_error(influence, _samples(rows, metric), rows.clusters)
    reach = 0.0 if se == 0 else float(stdtrit(freedom, 0.5 + confidence / 2)) * se
    interval = Interval(estimate, estimate - reach, estimate + reach, se, len(rows.labels), rows.n_users)
    return Comparison(metric, challenger, champion, interval)


def clustered_error(influence: Floats, samples: list[NDArray[np.bool_]], clusters: Codes) -> tuple[float, float]:
    """Standard error and degrees of freedom of an estimate, from the influence of its rows.

    `samples` are the sets of rows that the estimate averages over. NaN where one cluster holds all of a
    sample: nothing then tells how much clusters differ.
    """
    sparse = clusters.max(initial=0) > 2 * len(clusters)
    codes = np.unique(clusters, return_inverse=True)[1] if sparse else clusters
    totals = np.zeros(codes.max(initial=-1) + 1)
    variances, freedoms = [], []
    for sample in samples:
        rows = np.bincount(codes, sample, len(totals))
        if rows.max(initial=0) == rows.sum():
            return np.nan, np.nan
        share = rows / rows.sum()
        part = np.bincount(codes, influence * sample, len(totals)) / np.sqrt(1 - share)
        totals += part
        variances.append(part @ part)
        freedoms.append(_freedom(share))
    weighted = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    freedom = sum(variances) ** 2 / weighted if weighted > 0 else sum(freedoms)
    return float(np.sqrt(totals @ totals)), float(freedom)


def groups(values: NDArray[Any]) -> Iterator[tuple[str, Codes]]:
    """Each value of a column with the rows that have it, in the order of their names; no value is "—".

    >>> [(value, rows.tolist()) for value, rows in groups(np.array(["b", None, "a", "b"], dtype=object))]
    [('a', [2]), ('b', [0, 3]), ('—', [1])]
    """
    codes, names = _factorize(values)
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    named = [NO_VALUE if code < 0 else str(names[code]) for code in found]
    rows = np.split(order, starts)[1:]
    return iter(sorted(zip(named, rows, strict=True), key=lambda group: group[0]))


def _freedom(share: Floats) -> float:
    """Satterthwaite's degrees of freedom of the bias-reduced variance, rows taken as alike."""
    off = share**2 / (1 - share)
    return float(1 / (np.sum(share**2) + np.sum(off) ** 2 - np.sum(off**2)))


def _samples(rows: _Rows, metric: str) -> list[NDArray[np.bool_]]:
    if metric in ("auc", "average_precision"):
        return [rows.labels > 0, rows.labels <= 0]
    if metric == "ndcg" and rows.requests is not None:
        return [metrics.ranked_rows(rows.labels, rows.requests)]
    return [np.ones(len(rows.labels), dtype=bool)]


def _all_metrics(kind: Kind, rows: _Rows, scores: Floats, k: int) -> dict[str, float]:
    labels = rows.labels
    if kind == "binary":
        found = {
            "auc": metrics.auc(labels, scores),
            "log_loss": metrics.log_loss(labels, scores),
            "average_precision": metrics.average_precision(labels, scores),
            "brier": metrics.brier(labels, scores),
            "calibration_error": metrics.calibration(labels, scores).error,
        }
    else:
        found = {
            "rmse": metrics.rmse(labels, scores),
            "mae": metrics.mae(labels, scores),
            "r2": metrics.r2(labels, scores),
        }
    return found if rows.requests is None else found | {"ndcg": metrics.ndcg(labels, scores, rows.requests, k)}


def _rows(
    labels: NDArray[Any],
    challenger: NDArray[Any],
    champion: NDArray[Any],
    users: NDArray[Any] | None,
    requests: NDArray[Any] | None,
) -> _Rows:
    user_codes = None if users is None else _factorize(users)[0]
    request_codes = None if requests is None else _factorize(requests)[0]
    known = user_codes if user_codes is not None else request_codes
    clusters = known if known is not None else np.full(len(labels), -1)
    alone = clusters.max(initial=-1) + 1 + np.arange(len(labels))
    return _Rows(
        labels=np.asarray(labels, dtype=np.float64),
        challenger=np.asarray(challenger, dtype=np.float64),
        champion=np.asarray(champion, dtype=np.float64),
        clusters=np.where(clusters < 0, alone, clusters),
        users=user_codes,
        requests=request_codes,
    )


def _factorize(values: NDArray[Any]) -> tuple[Codes, Any]:
    codes, names = pd.factorize(np.asarray(values))
    return codes.astype(np.int64), names


def _compact(codes: Codes) -> Codes:
    found, compact = np.unique(codes, return_inverse=True)
    return compact - int(found[0] < 0)


def _check_metric(metric: str, kind: Kind, requests: NDArray[Any] | None) -> None:
    if metric not in DECIDING[kind]:
        why = f"a label of kind {kind} is decided by one of {', '.join(DECIDING[kind])}"
        raise ConfigError(f"gate.metric {metric} does not fit the label", why=why, next="edit flywheel.toml")
    if metric == "ndcg" and requests is None:
        why = "contract.request names no column, so nothing is ranked"
        raise ConfigError("gate.metric ndcg needs requests", why=why, next="edit flywheel.toml")


def _check_rows(labels: NDArray[Any], kind: Kind, parts: dict[str, NDArray[Any] | None]) -> None:
    for name, values in parts.items():
        if values is not None and len(values) != len(labels):
            raise DataError(f"the exam has {len(labels):,} labels but {len(values):,} values of {name}")
    values = np.asarray(labels, dtype=np.float64)
    bad = ~np.isfinite(values) if kind == "number" else ~np.isin(values, (0, 1))
    if bad.any():
        first = int(np.argmax(bad))
        why = "labels are finite numbers" if kind == "number" else "labels are 0 or 1"
        raise DataError(
            f"{bad.sum():,} of {len(values):,} exam labels cannot be used",
            where=f"column label, first at exam row {first + 1}: {values[first]:g}",
            why=why,
        )
