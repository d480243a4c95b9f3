"""How to cut the time, what to remember and what to examine on, proposed from what the sample shows."""

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from flywheel.infer.columns import Column
from flywheel.infer.context import Reading, varies_within
from flywheel.infer.label import Label
from flywheel.infer.roles import Role
from flywheel.windows import format_duration

DAY = timedelta(days=1)
LENGTHS = (timedelta(hours=1), timedelta(hours=6), DAY, 7 * DAY, 28 * DAY)
LAGS = [
    *(timedelta(minutes=m) for m in (1, 5, 15, 30)),
    *(timedelta(hours=h) for h in (1, 2, 6, 12)),
    *(DAY * d for d in (1, 2, 3, 7, 14, 21, 28)),
]
MANY_COUNTERS = 8
CROSSED = (
    0.05  # of the keys with several rows must vary: on OULAD, where 8 % of students take a second module, AUC +.003
)
FEW = (2, 50)  # names of a column that are few enough to be crossed with users or items


def propose_every(times: "pd.Series[pd.Timestamp]", span: timedelta) -> timedelta:
    """The natural length that cuts `span` into about 110 windows; never finer than the times are."""
    whole = times.dropna()
    finest = DAY if (whole == whole.dt.normalize()).all() else timedelta(0)
    lengths = [every for every in LENGTHS if every >= finest]
    return min(lengths, key=lambda every: abs(math.log(max(span / every, 1e-9) / 110)))


def propose_attribution(lags: "pd.Series[pd.Timedelta] | None") -> timedelta:
    """The longest lag seen, rounded up to a natural length; none where every label is known at once."""
    longest = pd.Timedelta(0) if lags is None or lags.dropna().empty else lags.max()
    if longest <= pd.Timedelta(0):
        return timedelta(0)
    lag = longest.to_pytimedelta()
    return next((natural for natural in LAGS if natural >= lag), math.ceil(lag / (28 * DAY)) * 28 * DAY)


def propose_silence(label: Label) -> str | int:
    """What no outcome means: 0 where there are only ones and gaps, as in click logs; else nothing."""
    clicks = label.values.isna().any() and set(label.values.dropna().unique()) == {1.0}
    return 0 if clicks else "unlabelled"


def propose_exam(rows: int, span: timedelta, every: timedelta) -> dict[str, int]:
    """About 5 % of the history, at least 2,000 rows where it has 20,000 or more; else 10 %."""
    share = max(0.05 * rows, 2000) if rows >= 20_000 else 0.1 * rows
    windows = max(1, math.ceil(0.03 * (span / every)))
    return {"windows": windows, "rows": max(1, _two_digits(share))}


def _two_digits(number: float) -> int:
    unit = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return int(number // unit * unit)


def propose_counters(reading: Reading, every: timedelta) -> list[dict[str, Any]]:
    """At most eight counters: user, item, each crossed with what varies within it, and few names alone.

    Columns come in order of how much of the label they tell, the most first.
    """
    few = [column for column, role in reading.of("context") if _has_few_names(column, role)]
    few.sort(key=lambda column: -_tells(column.texts, reading.label))
    half_lives = [format_duration(4 * every), "forever"]
    users, items = reading.get("user"), reading.get("item")
    keys: list[dict[str, Any]] = [{"key": [role]} for role in ("user", "item") if comes_back(reading.get(role))]
    crossed = [*_crossed("user", users, few, 3), *_crossed("item", items, few, 2)]
    room = (MANY_COUNTERS if keys else 4) - len(keys) - len(crossed)
    alone = [{"key": [column.name]} for column in few[:room]]
    return [one | {"half_lives": half_lives} for one in (*keys, *crossed, *alone)]


def comes_back(key: Column | None) -> bool:
    """Whether some value of a key has more than one row: else there is nothing to remember."""
    return key is not None and 1 < key.distinct < len(key.filled)


def _crossed(role: str, key: Column | None, few: list[Column], most: int) -> list[dict[str, Any]]:
    """What varies within a key: the same item on different devices, the same user before different genres."""
    if key is None or not comes_back(key):
        return []
    able = [column for column in few if varies_within(column, key, CROSSED)]
    return [{"key": [role, column.name], "backoff": role} for column in able[:most]]


def _has_few_names(column: Column, role: Role) -> bool:
    if role.role != "context" or role.type == "number":
        return False
    names = column.distinct if role.type == "name" else column.parts(role.type[-1]).nunique()
    return FEW[0] <= names <= FEW[1]


def _tells(names: "pd.Series[str]", label: Label) -> float:
    """The share of the label's variance between names, less what as many random names would show."""
    known = label.values.notna() & names.notna()
    values, groups = label.values[known], names[known]
    total, count = float(values.var(ddof=0)), groups.nunique()
    if len(values) <= count or not np.isfinite(total) or total == 0:
        return 0.0
    between = float(((values.groupby(groups).transform("mean") - values.mean()) ** 2).mean()) / total
    return between - (count - 1) / (len(values) - 1)
