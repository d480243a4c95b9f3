"""Whether what comes in still looks as it did: the population stability index of each column, as an early signal.

PSI = Σ (p − q) · ln(p / q) over bins of a column, q before and p now: the symmetrised relative entropy. By the usual
reading below .1 is no change and above .25 a large one. A difference in what is asked for says nothing of a
difference in what people like, and a model may serve both alike; so this only warns (METHODS).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flywheel.watched import Signal

LARGE = 0.25
BINS = 10
FEWEST = 500  # rows on either side, below which chance alone makes an index of some .02 and more


def psi(before: "pd.Series[Any]", now: "pd.Series[Any]") -> float:
    """The index of a column of numbers or of names; what is missing is a bin of its own.

    >>> round(psi(pd.Series(["a", "b"] * 500), pd.Series(list("aaab") * 500)), 2)
    0.27
    """
    numbers = pd.api.types.is_numeric_dtype(before) and before.nunique() > BINS
    codes = _binned(before, now) if numbers else pd.factorize(pd.concat([before, now]), use_na_sentinel=False)[0]
    bins = int(codes.max()) + 1
    was, is_now = (
        (np.bincount(part, minlength=bins) + 0.5) / (len(part) + 0.5 * bins)
        for part in (codes[: len(before)], codes[len(before) :])
    )
    return float(((is_now - was) * np.log(is_now / was)).sum())


def signal(name: str, before: pd.DataFrame, now: pd.DataFrame) -> Signal:
    """The column that moved most between two frames."""
    rows = min(len(before), len(now))
    if rows < FEWEST or not len(before.columns):
        said = f"{len(before):,} rows before and {len(now):,} now; it takes {FEWEST:,}"
        return Signal(name, "not enough evidence", None, rows, said)
    moved = {column: psi(before[column], now[column]) for column in before.columns}
    most = max(moved, key=moved.__getitem__)
    said = f"{most} moved most, PSI {moved[most]:.2f} ({LARGE} is large)"
    return Signal(name, "off" if moved[most] > LARGE else "well", None, rows, said)


def _binned(before: "pd.Series[Any]", now: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    values = pd.concat([before, now]).to_numpy(np.float64)
    edges = np.unique(np.nanquantile(before.to_numpy(np.float64), np.arange(1, BINS) / BINS))
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right")).astype(np.int64)
