"""What somebody should know about a proposal before they trust it, each in a sentence or two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from flywheel.config import Config
from flywheel.infer.context import Reading
from flywheel.infer.label import Label
from flywheel.infer.roles import YOU
from flywheel.windows import format_duration

RARE = 0.02  # a class rarer than this is remarked on
FEW_WINDOWS = 20


@dataclass(frozen=True)
class History:
    """How many rows there are, over how long, whether that was seen or guessed, and how late labels came."""

    rows: int
    span: timedelta
    seen: bool
    lags: "pd.Series[pd.Timedelta] | None"


def remarks(reading: Reading, config: Config, history: History) -> tuple[str, ...]:
    """Every remark that applies."""
    return (
        *_on_times(reading),
        *_on_label_time(reading, config, history),
        *_on_label(reading.label, history),
        *_on_roles(reading),
        *_on_outcomes(reading),
        *_on_size(config, history),
    )


def _on_times(reading: Reading) -> Iterator[str]:
    columns = [reading.found[role][0] for role in ("timestamp", "label_time") if role in reading.found]
    naive = [column.name for column in columns if column.is_naive]
    if naive:
        names = " and ".join(naive)
        reading_as = 'naive_timestamps = "utc"'
        yield f"{names}: times without a zone are read as UTC ({reading_as}); convert them if they are not"
    for column in columns:
        bad = int(column.times[column.filled.index].isna().sum())
        if bad:
            yield f"{column.name}: {bad} of {len(column.filled)} values are no times; these rows are quarantined"


def _on_label_time(reading: Reading, config: Config, history: History) -> Iterator[str]:
    column, values = reading.get("label_time"), reading.label.values
    if column is None or history.lags is None:
        return
    untimed = int((values.notna() & column.times.isna()).sum())
    if untimed:
        known = int(values.notna().sum())
        yield f"{untimed} of {known} labels have no {column.name}; they count as known at once"
    lags = history.lags.dropna()
    early = int((lags < pd.Timedelta(0)).sum())
    if early:
        yield f"{column.name}: {early} of {len(lags)} are before the interaction; these rows are quarantined"
    usual = (
        timedelta(seconds=max(60, math.ceil(lags.dt.total_seconds().quantile(0.99) / 60) * 60)) if len(lags) else None
    )
    if usual is not None and config.windows.attribution > 5 * usual:
        waits = format_duration(config.windows.attribution)
        yield f"windows wait {waits} for the slowest label, but 99 % are known after {format_duration(usual)}"


def _on_label(label: Label, history: History) -> Iterator[str]:
    known = label.values.dropna()
    if label.kind == "number" or known.empty:
        return
    share = float(known.mean())
    if share in (0.0, 1.0) and not label.values.isna().any():
        yield f"every label in the sample is {share:g}; nothing can be learned until both 0 and 1 occur"
    rare = min(share, 1 - share)
    if 0 < rare < RARE:
        count = f"about {rare * history.rows:,.0f} in {history.rows:,} rows"
        yield f"only {100 * rare:.2g} % of the labels are {int(share < 0.5)}: {count}; models need hundreds"


def _on_roles(reading: Reading) -> Iterator[str]:
    for role in ("user", "item"):
        if role not in reading.found:
            yield f"no column is called as columns of {role}s are; if there is one, say --{role} COLUMN"
    for role, (low, high) in {"propensity": (np.nextafter(0, 1), 1.0), "position": (-(2.0**31), 2.0**31 - 1)}.items():
        values = reading.get(role)
        odd = 0 if values is None else int((~values.numbers[values.filled.index].between(low, high)).sum())
        if values is not None and odd:
            yield f"{values.name}: {odd} of {len(values.filled)} values are no {role}; these rows are quarantined"
    column = reading.get("event_id")
    if column is None:
        yield "no unique event id was found; rows that are equal in every column count as one event"
    elif not column.is_unique:
        again = len(column.texts) - column.distinct
        yield f"{column.name}: {again} of {len(column.texts)} rows repeat an id, and are dropped as duplicates"


def _on_outcomes(reading: Reading) -> Iterator[str]:
    guessed = [role.column for _, role in reading.of("outcome") if role.why != YOU]
    if guessed:
        yield (
            f"kept out of the features as known only afterwards: {', '.join(guessed)}; a column that is known when "
            "deciding belongs under numeric or categorical"
        )


def _on_size(config: Config, history: History) -> Iterator[str]:
    if not history.seen:
        yield "only the head of the source was seen, and the length of its history guessed; check [windows] every"
    windows, every = history.span / config.windows.every, format_duration(config.windows.every)
    if windows < FEW_WINDOWS:
        yield f"the history holds about {max(1, round(windows))} windows of {every}; that is few to learn from"
    if config.exam.rows < config.gate.min_rows:
        short = f"an exam of {config.exam.rows} rows is below [gate] min_rows = {config.gate.min_rows}"
        yield f"{short}: the gate decides nothing until there is more history"
    if not config.features.counters:
        yield "no column is worth a counter: there are no users, items or names that come back"
