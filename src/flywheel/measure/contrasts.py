"""Weighted sums of exam results, each with an interval for who sat in the exams and for the luck of training.

A result is what one kind of model, trained with several seeds, came to in one exam. A contrast weighs results: one
with 1 and another with −1 is a difference. Its sampling error is that of its rows' influences, summed by user over all
exams together; its training error is that of each kind of model over its seeds, kinds being trained independently.
Both are added, with Satterthwaite's degrees of freedom. The rows that models learned from are taken as given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from flywheel.evidence import Estimate
from flywheel.learn.evaluate import clustered_error
from flywheel.learn.metrics import LOWER_IS_BETTER, Codes, Floats, measure, ranked_rows

Key = tuple[str, str]  # a kind of model, and an exam
Weights = Mapping[Key, float]
Names = NDArray[np.object_]


@dataclass(frozen=True)
class Exam:
    """The rows of an exam: labels, whose each is (codes that mean the same in every exam), and which list it was in."""

    labels: Floats
    clusters: Codes
    requests: Codes | None = None


@dataclass(frozen=True)
class Result:
    """Quality by seed, more is better, shape (seeds,); and each row's influence on the mean of it, shape (rows,)."""

    qualities: Floats
    influence: Floats

    @property
    def quality(self) -> float:
        """The mean over seeds."""
        return float(self.qualities.mean())


def exams(sittings: Sequence[tuple[Floats, Names | None, Names | None]]) -> list[Exam]:
    """Exams from labels, users and requests of each; rows of one user are one cluster wherever they are.

    Without users requests are the clusters, without both each row is its own; so is a row of nobody.
    """
    names = [next((n for n in (users, requests) if n is not None), None) for _, users, requests in sittings]
    whose = [np.full(len(s[0]), None, object) if n is None else n for s, n in zip(sittings, names, strict=True)]
    codes = pd.factorize(np.concatenate(whose))[0].astype(np.int64)
    codes = np.where(codes < 0, len(codes) + np.arange(len(codes)), codes)
    parts = np.split(codes, np.cumsum([len(labels) for labels, _, _ in sittings])[:-1])
    listed = [None if requests is None else pd.factorize(requests)[0].astype(np.int64) for _, _, requests in sittings]
    return [
        Exam(np.asarray(labels, np.float64), part, requests)
        for (labels, _, _), part, requests in zip(sittings, parts, listed, strict=True)
    ]


def sit(exam: Exam, scores: Sequence[Floats], metric: str) -> Result:
    """What models that differ in their seed alone came to in an exam; `scores` are one array a model."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    found = [measure(metric, exam.labels, one, exam.requests) for one in scores]
    qualities = np.array([sign * value for value, _ in found])
    return Result(qualities, sign * np.mean([influence for _, influence in found], axis=0))


def contrast(
    weights: Weights,
    results: Mapping[Key, Result],
    exams: Mapping[str, Exam],
    *,
    metric: str,
    confidence: float = 0.95,
) -> Estimate:
    """A weighted sum of results with its two-sided interval."""
    value = sum(w * results[key].quality for key, w in weights.items())
    names = sorted({exam for _, exam in weights})
    influence = np.concatenate([_influence(weights, results, exams, name) for name in names])
    clusters = np.concatenate([exams[name].clusters for name in names])
    se, freedom = clustered_error(influence, _samples(names, exams, metric), clusters)
    luck = [(q.var(ddof=1) / len(q), len(q) - 1) for q in _by_model(weights, results).values()]
    variance = se**2 + sum(v for v, _ in luck)
    spread = se**4 / freedom + sum(v**2 / f for v, f in luck)
    reach = stdtrit(variance**2 / spread, 0.5 + confidence / 2) * np.sqrt(variance) if spread > 0 else 0.0
    return Estimate(float(value), float(value - reach), float(value + reach))


def covariance(models: Sequence[str], exam: str, results: Mapping[Key, Result], sat: Exam) -> Floats:
    """How qualities in one exam vary together, for who sat in it and for seeds, shape (models, models)."""
    codes = np.unique(sat.clusters, return_inverse=True)[1]
    totals = np.stack([np.bincount(codes, results[m, exam].influence) for m in models])
    luck = [q.var(ddof=1) / len(q) for m in models for q in [results[m, exam].qualities]]
    return np.asarray(totals @ totals.T + np.diag(luck))


def _influence(weights: Weights, results: Mapping[Key, Result], exams: Mapping[str, Exam], name: str) -> Floats:
    total = np.zeros(len(exams[name].labels))
    for (model, exam), weight in weights.items():
        if exam == name:
            total += weight * results[model, exam].influence
    return total


def _by_model(weights: Weights, results: Mapping[Key, Result]) -> dict[str, Floats]:
    """What each kind of model adds to a contrast, by seed."""
    total: dict[str, Floats] = {}
    for (model, exam), weight in weights.items():
        total[model] = total.get(model, np.zeros(1)) + weight * results[model, exam].qualities
    return total


def _samples(names: Sequence[str], exams: Mapping[str, Exam], metric: str) -> list[NDArray[np.bool_]]:
    """The sets of rows that the results average over, among the rows of all exams."""
    found = []
    for place, name in enumerate(names):
        for rows in _sets(exams[name], metric):
            parts = [np.zeros(len(exams[n].labels), dtype=bool) for n in names]
            parts[place] = rows
            found.append(np.concatenate(parts))
    return found


def _sets(exam: Exam, metric: str) -> list[NDArray[np.bool_]]:
    if metric in ("auc", "average_precision"):
        return [exam.labels > 0, exam.labels <= 0]
    if metric == "ndcg" and exam.requests is not None:
        return [ranked_rows(exam.labels, exam.requests)]
    return [np.ones(len(exam.labels), dtype=bool)]
