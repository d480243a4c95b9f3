"""What a column looks like: numbers, times, lists or names; how many of each, and whether they come back.

Values are read by the same functions that read deliveries, so that what is proposed is what will be understood.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from flywheel.sources import columns as typed
from flywheel.sources.columns import Parsed

TOLERATED = 0.05  # share of values that may fail to be what the others are; such rows end in quarantine
SEPARATORS = "|;,"
MAX_NAMES = 500


@dataclass(frozen=True)
class Column:
    """One raw column of a sample."""

    name: str
    raw: pa.Array

    @cached_property
    def is_list(self) -> bool:
        """Whether each value is a list already."""
        return bool(pa.types.is_list(self.raw.type) or pa.types.is_large_list(self.raw.type))

    @cached_property
    def texts(self) -> "pd.Series[str]":
        """The values as text, missing where empty; the parts of a list are joined by `|`."""
        if self.is_list:
            return pd.Series([None if v is None else "|".join(map(str, v)) for v in self.raw.to_pylist()], dtype="str")
        return pd.Series(typed.text(self.raw).to_pylist(), dtype="str")

    @cached_property
    def filled(self) -> "pd.Series[str]":
        """The values that are there, with their row numbers as index."""
        return self.texts.dropna()

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return int(self.filled.nunique())

    @cached_property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return len(self.texts) == self.distinct

    @cached_property
    def numbers(self) -> "pd.Series[float]":
        """The values as numbers, NaN where they are none."""
        return self._floats(typed.numbers(self._flat, self.name))

    @cached_property
    def labels(self) -> Parsed:
        """The values as numbers; the words true and false are 1 and 0."""
        return typed.numbers(self._flat, self.name, booleans=True)

    @cached_property
    def is_numeric(self) -> bool:
        """Whether (nearly) all values are finite numbers."""
        return not pa.types.is_boolean(self.raw.type) and self._mostly(self.numbers.notna())

    @cached_property
    def is_whole(self) -> bool:
        """Whether all its numbers are whole."""
        return self.is_numeric and bool((self.numbers.dropna() % 1 == 0).all())

    @cached_property
    def times(self) -> "pd.Series[pd.Timestamp]":
        """The values as UTC times, NaT where they are none; numbers count from 1970."""
        found: pd.Series[pd.Timestamp] = self._times.values.to_pandas()
        return found

    @cached_property
    def holds_times(self) -> bool:
        """Whether (nearly) all values can be read as times, numbers since 1970 among them."""
        return self._mostly(self.times.notna())

    @cached_property
    def is_naive(self) -> bool:
        """Whether any of its times lacks a zone."""
        return bool(
            typed.times(self._flat, self.name, naive_is_utc=False).values.null_count > self._times.values.null_count
        )

    @cached_property
    def separator(self) -> str | None:
        """What parts the names in one field, if a good share of values holds several that come back."""
        return "|" if self.is_list else next((sign for sign in SEPARATORS if self._recurs(sign)), None)

    def parts(self, sign: str) -> "pd.Series[str]":
        """Every name in every field."""
        return self.filled.str.split(sign, regex=False).explode().str.strip()

    @property
    def time_fault(self) -> str:
        """Why its first value that is no time is none."""
        return first_fault(self, self._times)

    @cached_property
    def _times(self) -> Parsed:
        return typed.times(self._flat, self.name, naive_is_utc=True)

    @cached_property
    def _flat(self) -> pa.Array:
        return pa.array(self.texts.to_list(), pa.string(), from_pandas=True) if self.is_list else self.raw

    def _floats(self, parsed: Parsed) -> "pd.Series[float]":
        return pd.Series(parsed.values.to_numpy(zero_copy_only=False).astype("float64"))

    def _mostly(self, good: "pd.Series[bool]") -> bool:
        return len(self.filled) > 0 and float(good[self.filled.index].mean()) >= 1 - TOLERATED

    def _recurs(self, sign: str) -> bool:
        if self.is_numeric or self.filled.empty or self.filled.str.contains(sign, regex=False).mean() < 0.1:
            return False
        parts = self.parts(sign)
        names = parts.nunique()
        return names <= MAX_NAMES and len(parts) >= 3 * names and names < 2 * self.distinct


def first_fault(column: Column, parsed: Parsed) -> str:
    """The sentence about the first value at fault, and its row in the sample; "it is empty" where none is there."""
    if column.filled.empty:
        return "it is empty"
    row, fault = min(((int(np.argmax(f.rows)), f) for f in parsed.faults), key=lambda found: found[0])
    return f"{fault.says(column.raw[row].as_py())}, in row {row + 1} of the sample"


def columns_of(sample: pa.Table) -> dict[str, Column]:
    """The columns of a sample by name."""
    columns = {}
    for name in sample.column_names:
        raw = sample.column(name).combine_chunks()
        columns[name] = Column(name, raw.dictionary_decode() if pa.types.is_dictionary(raw.type) else raw)
    return columns
