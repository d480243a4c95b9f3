"""Generation 0: what things are worth on average. It needs no training and serves from the first minute."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flywheel.windows import parse_duration

GLOBAL_MEAN = "global__mean"
IN_THE_DARK = {"binary": 0.5, "number": 0.0}  # nothing was known yet, not even a mean
EDGE = 1e-6
_MEAN = re.compile(r"(?P<key>.+)__mean_(?P<half_life>forever|\d+(?:\.\d+)?[smhdw])")


def scores(
    matrix: NDArray[Any], names: Sequence[str], *, kind: Literal["binary", "number"] = "binary"
) -> NDArray[np.float64]:
    """Smoothed popularity, one score a row, from an (n, len(names)) feature matrix.

    The item's mean label where an item is counted, else that of the first counter, at its longest half-life; where
    that is NaN the global mean known at the time, and before there was one .5 (binary) or 0. Binary scores are
    clipped to [1e-6, 1 − 1e-6].

    >>> scores(np.array([[0.9, 0.4], [np.nan, 0.4], [np.nan, np.nan]]), ["item__mean_forever", "global__mean"])
    array([0.9, 0.4, 0.5])
    """
    found = np.full(len(matrix), np.nan)
    for name in (mean_column(names) or GLOBAL_MEAN, GLOBAL_MEAN):
        if name in names:
            column = matrix[:, list(names).index(name)].astype(np.float64)
            found = np.where(np.isfinite(found), found, column)
    found = np.where(np.isfinite(found), found, IN_THE_DARK[kind])
    return np.clip(found, EDGE, 1 - EDGE) if kind == "binary" else found


def mean_column(names: Sequence[str]) -> str | None:
    """The column that the baseline scores by; None where nothing is counted.

    >>> mean_column(["user__mean_forever", "item__mean_28d", "item__mean_7d", "global__mean"])
    'item__mean_28d'
    """
    means = [match for name in names if (match := _MEAN.fullmatch(name))]
    if not means:
        return None
    keys = [match["key"] for match in means]
    key = "item" if "item" in keys else keys[0]
    return max((match for match in means if match["key"] == key), key=_length)[0]


def _length(match: re.Match[str]) -> float:
    half_life = match["half_life"]
    return float("inf") if half_life == "forever" else parse_duration(half_life).total_seconds()
