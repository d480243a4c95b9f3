"""Raw rows become events, or are rejected with every reason against them."""

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.config import Config
from flywheel.content import content_ids
from flywheel.errors import SourceError
from flywheel.schema import NAME, REJECTED, TIME, event_schema
from flywheel.sections import Contract
from flywheel.sources.columns import Fault, Mask, Parsed, flags, lists, names, numbers, shown, text, times
from flywheel.sources.labels import label_rule, not_binary
from flywheel.sources.source import LINE, LOGGED, RESERVED, ROW, UNREADABLE

AHEAD = timedelta(days=1)  # clocks differ; a time later than this after now is a fault


@dataclass(frozen=True)
class Normalised:
    """Events with `event_schema`, rejected rows with `REJECTED`, and the columns that no role or context named."""

    events: pa.Table
    rejected: pa.Table
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """One typed column, where it came from, and what is wrong with it."""

    name: str
    raw: str
    parsed: Parsed


def contract_columns(contract: Contract, available: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns that a delivery must have, each once, in the order of the contract."""
    label = label_rule(contract.label, tuple(available)).column
    roles = ("user", "item", "request", "event_id", "label_time", "position", "propensity")
    maybe = [getattr(contract, role) for role in roles]
    named = [contract.timestamp, label, *(name for name in maybe if name), *contract.context, *contract.outcomes]
    return tuple(dict.fromkeys(named))


def normalise(batch: pa.RecordBatch, config: Config, *, source: str, first_row: int, now: datetime) -> Normalised:
    """Type one raw batch by the contract. Pure; the same rows in other batches give the same events.

    Args:
        source: what people call the delivery; it is stored with each row.
        first_row: the number of the batch's first row in it, from 1.
        now: a timestamp later than a day after it is rejected.

    Raises:
        SourceError: a column of the contract is not there.
    """
    columns = [name for name in batch.column_names if name not in RESERVED]
    required = contract_columns(config.contract, columns)
    unreadable = flags(batch[UNREADABLE].is_valid()) if UNREADABLE in batch.schema.names else None
    if unreadable is None:
        _check_columns(required, columns, source)
        typed = _typed(batch, config, now)
    else:
        typed = [_Column("event_id", UNREADABLE, Parsed(pa.nulls(batch.num_rows, pa.string())))]
        typed += [_Column("ts", UNREADABLE, Parsed(pa.nulls(batch.num_rows, TIME), (Fault(unreadable, str),)))]
    rows = batch[ROW].to_numpy() if ROW in batch.schema.names else np.arange(first_row, first_row + batch.num_rows)
    bad = np.zeros(batch.num_rows, dtype=bool)
    for column in typed:
        for fault in column.parsed.faults:
            bad |= fault.rows
    ignored = tuple(name for name in columns if name not in required) if unreadable is None else ()
    rejected = _rejected(batch, typed, bad, rows, source)
    if unreadable is not None:
        return Normalised(event_schema(config).empty_table(), rejected, ignored)
    return Normalised(_events(typed, ~bad, rows, source, config), rejected, ignored)


def _check_columns(required: tuple[str, ...], columns: list[str], source: str) -> None:
    missing = [name for name in required if name not in columns]
    if not missing:
        return
    extra = [name for name in columns if name not in required]
    near = difflib.get_close_matches(missing[0], extra, n=1, cutoff=0.5) or (
        extra if len(extra) == len(missing) == 1 else []
    )
    why = f"it has: {', '.join(columns)[:300]}"
    if near:
        why += f"; was {missing[0]} renamed to {near[0]}?"
    fix = (
        f"name {near[0]} in [contract] of flywheel.toml"
        if near
        else "name the right column in [contract] of flywheel.toml"
    )
    raise SourceError(
        f"{source} has no column {', '.join(map(repr, missing))}", where=source, why=why, next=f"{fix}, or restore it"
    )


def _typed(batch: pa.RecordBatch, config: Config, now: datetime) -> list[_Column]:
    contract = config.contract
    naive = contract.naive_timestamps == "utc"
    ts = _Column("ts", contract.timestamp, _moment(batch[contract.timestamp], contract.timestamp, now, naive=naive))
    found = [*_identity(batch, contract), ts, *_labels(batch, contract, ts.parsed.values, naive=naive)]
    named = {role: getattr(contract, role) for role in ("user", "item", "request")}
    found += [_Column(role, name, names(batch[name], name)) for role, name in named.items() if name]
    if contract.position:
        found.append(_Column("position", contract.position, _position(batch[contract.position], contract.position)))
    if contract.propensity:
        found.append(
            _Column("propensity", contract.propensity, _propensity(batch[contract.propensity], contract.propensity))
        )
    found += [_Column(name, name, numbers(batch[name], name)) for name in contract.numeric]
    found += [_Column(name, name, names(batch[name], name)) for name in contract.categorical]
    found += [_Column(name, name, lists(batch[name], name, sep)) for name, sep in contract.lists.items()]
    found += [_Column(name, name, Parsed(text(batch[name]))) for name in contract.outcomes]
    return found + (_logged(batch) if config.serve else [])


def _logged(batch: pa.RecordBatch) -> list[_Column]:
    """What the ranker logged; null in rows that came from elsewhere."""
    absent = {raw: pa.nulls(batch.num_rows, field.type) for raw, field in LOGGED.items()}
    given = {raw: batch[raw] for raw in LOGGED if raw in batch.schema.names}
    return [_Column(LOGGED[raw].name, raw, Parsed(values)) for raw, values in (absent | given).items()]


def _identity(batch: pa.RecordBatch, contract: Contract) -> list[_Column]:
    if not (name := contract.event_id):
        return []
    parsed = names(batch[name], name)
    faulty = np.logical_or.reduce([np.zeros(batch.num_rows, dtype=bool), *(fault.rows for fault in parsed.faults)])
    empty = Fault(flags(parsed.values.is_null()) & ~faulty, lambda _: f"{name} is empty")
    return [_Column("event_id", name, Parsed(parsed.values, (*parsed.faults, empty)))]


def _moment(column: pa.Array, name: str, now: datetime, *, naive: bool) -> Parsed:
    parsed = times(column, name, naive_is_utc=naive)
    faulty = np.logical_or.reduce([np.zeros(len(column), dtype=bool), *(fault.rows for fault in parsed.faults)])
    empty = Fault(flags(parsed.values.is_null()) & ~faulty, lambda _: f"{name} is empty")
    late = flags(pc.greater(parsed.values, pa.scalar(now + AHEAD, TIME)))
    future = Fault(late, lambda v: f"{name} lies in the future: {shown(v)}")
    values = pc.if_else(pa.array(late), pa.scalar(None, TIME), parsed.values) if late.any() else parsed.values
    return Parsed(values, (*parsed.faults, empty, future))


def _labels(batch: pa.RecordBatch, contract: Contract, ts: pa.Array, *, naive: bool) -> list[_Column]:
    """The label, and when it became known: at once where the contract has no time for it, or the row none."""
    rule = label_rule(contract.label, batch.schema.names)
    label = rule.parse(batch[rule.column])
    faults = label.faults
    if contract.kind == "binary":
        hint = "" if rule.sign else f'; a comparison makes it so: label = "{rule.column} >= …"'
        faults += (Fault(not_binary(label.values), lambda v: f"{rule.column} is neither 0 nor 1: {shown(v)}{hint}"),)
    column, known = contract.timestamp, Parsed(ts)
    if contract.label_time:
        column, known = contract.label_time, times(batch[contract.label_time], contract.label_time, naive_is_utc=naive)
        early = Fault(
            flags(pc.less(known.values, ts)), lambda v: f"{column} lies before {contract.timestamp}: {shown(v)}"
        )
        known = Parsed(pc.coalesce(known.values, ts), (*known.faults, early))
    label_ts = pc.if_else(label.values.is_valid(), known.values, pa.scalar(None, TIME))
    return [
        _Column("label_ts", column, Parsed(label_ts, known.faults)),
        _Column("label", rule.column, Parsed(label.values, faults)),
    ]


def _position(column: pa.Array, name: str) -> Parsed:
    parsed = numbers(column, name)
    found = parsed.values.fill_null(0).to_numpy()
    off = (found != np.floor(found)) | (np.abs(found) >= 2**31)
    whole = pa.array(np.where(off, 0, found).astype(np.int32), mask=flags(parsed.values.is_null()) | off)
    return Parsed(whole, (*parsed.faults, Fault(off, lambda v: f"{name} is not a whole number: {shown(v)}")))


def _propensity(column: pa.Array, name: str) -> Parsed:
    parsed = numbers(column, name)
    outside = flags(pc.or_(pc.less_equal(parsed.values, 0), pc.greater(parsed.values, 1)))
    return Parsed(
        parsed.values, (*parsed.faults, Fault(outside, lambda v: f"{name} is no probability above 0: {shown(v)}"))
    )


def _events(typed: list[_Column], good: Mask, rows: np.ndarray, source: str, config: Config) -> pa.Table:
    schema = event_schema(config)
    keep = None if good.all() else pa.array(good)
    columns = {c.name: c.parsed.values if keep is None else c.parsed.values.filter(keep) for c in typed}
    count = int(good.sum())
    columns = {name: v.dictionary_encode() if schema.field(name).type == NAME else v for name, v in columns.items()}
    if "event_id" not in columns:
        content = [field.name for field in schema if field.name in columns]
        columns["event_id"] = content_ids(pa.table({name: columns[name] for name in content}))
    columns["source"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([source]))
    columns["row"] = pa.array(rows[good], pa.int64())
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _rejected(batch: pa.RecordBatch, typed: list[_Column], bad: Mask, rows: np.ndarray, source: str) -> pa.Table:
    at = np.flatnonzero(bad)
    if not len(at):
        return REJECTED.empty_table()
    raw = batch.take(pa.array(at)).to_pylist()
    place = {int(position): k for k, position in enumerate(at)}
    reasons: list[list[str]] = [[] for _ in at]
    for column in typed:
        for fault in column.parsed.faults:
            for position in np.flatnonzero(fault.rows):
                k = place[int(position)]
                reasons[k].append(fault.says(raw[k][column.raw]))
    known = {c.name: c.parsed.values.take(pa.array(at)) for c in typed if c.name in ("event_id", "ts")}
    columns = {
        "event_id": known.get("event_id", pa.nulls(len(at), pa.string())),
        "ts": known["ts"],
        "source": pa.array([source] * len(at)),
        "row": pa.array(rows[at], pa.int64()),
        "reasons": pa.array([list(dict.fromkeys(r)) for r in reasons], pa.list_(pa.string())),
        "raw": pa.array([as_json(row) for row in raw]),
    }
    return pa.table(columns, schema=REJECTED)


def as_json(row: dict[str, object]) -> str:
    """A row as one JSON object; what JSON has no word for, such as NaN or a time, is written as text."""
    if row.get(LINE) is not None:
        return json.dumps({"line": row[LINE]}, ensure_ascii=False)
    given = {name: _strict(value) for name, value in row.items() if name not in RESERVED}
    return json.dumps(given, ensure_ascii=False, default=str)


def _strict(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
