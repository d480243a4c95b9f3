"""The label: which column or comparison, and whether its values can be learned from as they are."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from flywheel.errors import ConfigError
from flywheel.infer.columns import Column, first_fault
from flywheel.infer.names import LABEL, Columns, called, existing, listed, several
from flywheel.sources.columns import Parsed
from flywheel.sources.labels import label_rule

FEW_VALUES = 20  # a number with at most so many values is asked about: is it an amount, or grades to be cut?


@dataclass(frozen=True)
class Label:
    """The label as the contract will write it, and its values in the sample (NaN where there is none)."""

    text: str
    column: Column
    kind: Literal["binary", "number"]
    values: "pd.Series[float]"
    why: str


def find_label(columns: Columns, given: str | None, *, kind: str | None, free: list[Column]) -> Label:
    """How it was received.

    Raises:
        ConfigError: no column or several could be it, or its values are neither 0/1 nor a range of numbers.
    """
    if given is None:
        column = _guess(columns, free)
        return _as_it_is(column, kind, f"called {column.name}")
    try:
        rule = label_rule(given, columns)
    except ConfigError as error:
        raise ConfigError(f"--label {given!r} cannot be read", why=error.why) from None
    column = existing(columns, rule.column, "label")
    if not rule.sign:
        return _as_it_is(column, kind, "you said so")
    parsed = rule.parse(column.raw)
    if parsed.values.null_count == len(column.raw):
        raise ConfigError(f"{given} is never known", where=f"--label '{given}'", why=first_fault(column, parsed))
    return Label(given.strip(), column, "binary", _floats(parsed), f"you said {given.strip()}")


def _as_it_is(column: Column, kind: str | None, why: str) -> Label:
    """A column taken as the label without a comparison."""
    values = _floats(column.labels)
    known = values.dropna()
    if len(known) < 0.95 * len(column.filled) or known.empty:
        words = "it is empty" if column.filled.empty else f"it holds words: {_seen(column.filled)}"
        raise _unusable(column, words, f"--label \"{column.name} == '{_rarest(column)}'\"")
    if kind != "number" and set(known.unique()) <= {0.0, 1.0}:
        return Label(column.name, column, "binary", values, f"{why}, and 0 or 1")
    if kind == "binary" or (kind is None and known.nunique() <= FEW_VALUES):
        advice = f'--label "{column.name} >= {_middle(known):g}", or --kind number to predict the number itself'
        raise _unusable(column, f"it has {known.nunique()} values and is not 0/1: {_seen(known)}", advice)
    return Label(column.name, column, "number", values, f"{why}, and numbers of many values")


def _guess(columns: Columns, free: list[Column]) -> Column:
    chosen = called((c for c in free if not c.labels.faults), LABEL) or called(free, LABEL)
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise several(chosen, "label", "each of them is called as labels are")
    advice = '--label COLUMN, or a comparison: --label "rating >= 4"'
    why = f"none of {listed(columns)} is called as labels are"
    raise ConfigError("no column can be the label", why=why, next=advice)


def _unusable(column: Column, why: str, advice: str) -> ConfigError:
    what = f"column {column.name} cannot be the label as it is"
    return ConfigError(what, where=f"column {column.name}", why=why, next=advice)


def _floats(parsed: Parsed) -> "pd.Series[float]":
    return pd.Series(parsed.values.to_numpy(zero_copy_only=False).astype("float64"))


def _seen(values: "pd.Series[str] | pd.Series[float]") -> str:
    found = [f"{value:g}" if isinstance(value, float) else value[:20] for value in sorted(values.unique())]
    return ", ".join(found[:6]) + " …" * (len(found) > 6)


def _middle(values: "pd.Series[float]") -> float:
    """The value that splits the rows most evenly into below and not below."""
    steps = sorted(values.unique())[1:] or [float(values.iloc[0])]
    return float(min(steps, key=lambda step: abs(float((values >= step).mean()) - 0.5)))


def _rarest(column: Column) -> str:
    return "yes" if column.filled.empty else str(column.filled.value_counts().index[-1])[:40]
