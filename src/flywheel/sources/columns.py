"""Raw columns become typed ones; what cannot is named, value by value.

Each function takes a column of any type and returns `Parsed`: the typed values, null where a value is missing or
at fault, and the faults. A whole column is first cast in one go; only where that fails is it taken apart.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.schema import TIME

Mask = npt.NDArray[np.bool_]
MAX_NAME = 512

_DATE, _CLOCK, _ZONE = r"\d{4}-\d\d-\d\d", r"[T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?", r"(Z|[+-]\d\d(:?\d\d)?)"
_NUMBER = r"^(?i:[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity))$"
_FIRST, _LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1990, 2100))
_UNITS = {"s": 1_000_000, "ms": 1_000, "µs": 1, "ns": 1e-3}  # in microseconds


@dataclass(frozen=True)
class Fault:
    """Rows of a column that share what is wrong with them; `says` makes the sentence from the raw value."""

    rows: Mask
    says: Callable[[object], str]


@dataclass(frozen=True)
class Parsed:
    """Typed values, null where missing or at fault, and the faults."""

    values: pa.Array
    faults: tuple[Fault, ...] = ()


def shown(value: object) -> str:
    """A value as a sentence may quote it: on one line, at most 60 characters of it.

    >>> shown("a\\nb"), shown("x" * 80) == repr("x" * 60) + "…"
    ("'a\\\\nb'", True)
    """
    text = value if isinstance(value, str) else str(value)
    return repr(text[:60]) + ("…" if len(text) > 60 else "")


def flags(mask: pa.Array) -> Mask:
    """An Arrow mask as NumPy's; null is false."""
    array: Mask = mask.fill_null(False).to_numpy(zero_copy_only=False)
    return array


def without(values: pa.Array, rows: Mask) -> pa.Array:
    """The values with null in the given rows."""
    return pc.if_else(pa.array(rows), pa.scalar(None, values.type), values) if rows.any() else values


def text(column: pa.Array) -> pa.Array:
    """Any column as strings, as given; an empty string is null. 3.0 becomes "3"."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = pa.array(
            [None if v is None else v.decode("utf-8", "backslashreplace") for v in column.to_pylist()], pa.string()
        )
    if not pa.types.is_string(column.type):
        nested = pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType)
        column = (
            pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
            if nested
            else column.cast(pa.string())
        )
    return without(column, flags(pc.equal(pc.binary_length(column), 0)))


def names(column: pa.Array, name: str) -> Parsed:
    """Strings as given, at most 512 characters and without NUL; an empty one is null."""
    values = text(column)
    faults = []
    if (pc.max(pc.binary_length(values)).as_py() or 0) > MAX_NAME:
        long = flags(pc.greater(pc.utf8_length(values), MAX_NAME))
        faults.append(Fault(long, lambda v: f"{name} is longer than {MAX_NAME} characters: {shown(v)}"))
    if _may_hold_nul(values):
        nul = flags(pc.match_substring(values, "\0"))
        faults.append(Fault(nul, lambda v: f"{name} holds a NUL character: {shown(v)}"))
    return _settle(values, faults)


def numbers(column: pa.Array, name: str, *, booleans: bool = False) -> Parsed:
    """Finite float64; with `booleans`, the words true and false are 1 and 0."""
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        values, odd = whole.cast(pa.float64(), safe=False), np.zeros(len(column), dtype=bool)
    else:
        values, odd = _numbers_of_text(text(column), booleans=booleans)
    endless = flags(pc.invert(pc.is_finite(values)))
    faults = [Fault(odd, lambda v: f"{name} is not a number: {shown(v)}")]
    faults += [Fault(endless, lambda v: f"{name} is not finite: {shown(v)}")]
    return _settle(values, faults)


def times(column: pa.Array, name: str, *, naive_is_utc: bool) -> Parsed:
    """UTC microseconds of ISO 8601 text, Arrow timestamps and dates, or numbers since 1970 in s, ms, µs or ns.

    The unit of a number is the one that puts it between 1990 and 2100. Without a zone a time is at fault, unless
    `naive_is_utc`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _settle(*_since_1970(column, name))
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _times_of_text(text(column), name, naive_is_utc=naive_is_utc)
    zoned = getattr(kind, "tz", None) is not None
    naive = flags(column.is_valid()) & (not zoned and not naive_is_utc)
    micros = column.cast(pa.timestamp("us", kind.tz if zoned else None), safe=False)
    values = pc.assume_timezone(micros, "UTC") if not zoned else micros.cast(TIME)
    return _settle(values, [*_naive(naive, name), *_strange_year(values, name)])


def lists(column: pa.Array, name: str, separator: str) -> Parsed:
    """Several strings of one field: parted by `separator`, stripped, empty ones dropped; null where none is left."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        parts = column.cast(pa.list_(pa.string()))
    else:
        parts = pc.split_pattern(text(column), separator)
    values = pc.utf8_trim_whitespace(parts.flatten())
    kept = flags(pc.greater(pc.binary_length(values), 0))
    parents = pc.list_parent_indices(parts).to_numpy()[kept]
    counts = np.bincount(parents, minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = values.filter(pa.array(kept))
    result = pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))
    if not _may_hold_nul(values):
        return Parsed(result)
    nul = flags(pc.match_substring(pc.binary_join(result, ""), "\0"))
    return _settle(result, [Fault(nul, lambda v: f"{name} holds a NUL character: {shown(v)}")])


def _may_hold_nul(values: pa.Array) -> bool:
    """Whether to look closer: the bytes below a slice may hold more than the slice."""
    data = values.buffers()[2]
    return data is not None and b"\0" in data.to_pybytes()


def _settle(values: pa.Array, faults: list[Fault]) -> Parsed:
    real = tuple(fault for fault in faults if fault.rows.any())
    for fault in real:
        values = _null_lists(values, fault.rows) if pa.types.is_list(values.type) else without(values, fault.rows)
    return Parsed(values, real)


def _null_lists(values: pa.Array, rows: Mask) -> pa.Array:
    return values.take(pa.array(np.arange(len(values), dtype=np.int32), mask=rows))


def _numbers_of_text(column: pa.Array, *, booleans: bool) -> tuple[pa.Array, Mask]:
    try:
        return column.cast(pa.float64()), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(column)
    if booleans:
        trimmed = pc.replace_substring_regex(trimmed, "^(?i:true)$", "1")
        trimmed = pc.replace_substring_regex(trimmed, "^(?i:false)$", "0")
    good = flags(pc.match_substring_regex(trimmed, _NUMBER))
    return without(trimmed, ~good).cast(pa.float64()), ~good & flags(column.is_valid())


def _times_of_text(column: pa.Array, name: str, *, naive_is_utc: bool) -> Parsed:
    try:
        values = column.cast(TIME)
        return _settle(values, _strange_year(values, name))
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(column)
    number = flags(pc.match_substring_regex(trimmed, r"^[+-]?\d+(\.\d*)?$"))
    zoned = flags(pc.match_substring_regex(trimmed, f"^{_DATE}{_CLOCK}{_ZONE}$"))
    naive = flags(pc.match_substring_regex(trimmed, f"^{_DATE}({_CLOCK})?$"))
    written = pc.replace_substring_regex(trimmed, r"(\.\d{6})\d+", r"\1")
    if naive_is_utc and naive.any():
        midnight = pc.if_else(
            pc.equal(pc.utf8_length(written), 10), pc.binary_join_element_wise(written, "T00:00", ""), written
        )
        written = pc.if_else(pa.array(naive), pc.binary_join_element_wise(midnight, "Z", ""), written)
        zoned, naive = zoned | naive, np.zeros_like(naive)
    values, wrong = _cast_times(without(written, ~zoned))
    counted, strange = _since_1970(_whole_or_float(without(trimmed, ~number)), name)
    values = pc.if_else(pa.array(number), counted, values)
    odd = flags(column.is_valid()) & ~(number | zoned | naive) | wrong
    faults = [Fault(odd, lambda v: f"{name} is not a time: {shown(v)}"), *_naive(naive, name), *strange]
    return _settle(values, [*faults, *_strange_year(values, name)])


def _cast_times(column: pa.Array) -> tuple[pa.Array, Mask]:
    """Zoned ISO 8601 as UTC, and which rows have no such day or hour."""
    try:
        return column.cast(TIME), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        found = [_read_time(value) for value in column.to_pylist()]
    values = pa.array(found, TIME)
    return values, flags(column.is_valid()) & flags(values.is_null())


def _read_time(value: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(value).astimezone(UTC) if value else None
    except (ValueError, OverflowError):
        return None


def _whole_or_float(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.float64())


def _since_1970(column: pa.Array, name: str) -> tuple[pa.Array, list[Fault]]:
    valid = flags(column.is_valid())
    raw = column.fill_null(0).to_numpy()
    micros, found = np.zeros(len(raw), dtype=np.int64), ~valid
    for scale in _UNITS.values():
        inside = (raw >= _FIRST * (1_000_000 / scale)) & (raw < _LAST * (1_000_000 / scale))
        part = raw[inside]
        whole = part // 1000 if scale < 1 else part * scale
        micros[inside] = whole.astype(np.int64) if np.issubdtype(raw.dtype, np.integer) else np.round(part * scale)
        found |= inside
    says: Callable[[object], str] = lambda v: f"{name} is no time between 1990 and 2100: {shown(v)}{_year(v)}"  # noqa: E731
    return pa.array(micros, mask=~valid | ~found).cast(TIME), [Fault(~found, says)]


def _year(value: object) -> str:
    match = re.match(r"\s*[+-]?\d+", str(value))
    year = 1970 + int(match[0]) // 31_556_952 if match and len(match[0]) < 25 else None
    return "" if year is None else f", in seconds the year {year}"


def _strange_year(values: pa.Array, name: str) -> list[Fault]:
    micros = values.cast(pa.int64()).fill_null(_FIRST * 1_000_000).to_numpy()
    strange = (micros < _FIRST * 1_000_000) | (micros >= _LAST * 1_000_000)
    return [Fault(strange, lambda v: f"{name} is no time between 1990 and 2100: {shown(v)}")]


def _naive(rows: Mask, name: str) -> list[Fault]:
    return [
        Fault(rows, lambda v: f'{name} has no time zone: {shown(v)}; contract.naive_timestamps = "utc" reads it as UTC')
    ]
