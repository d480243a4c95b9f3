"""Decisions become raw rows: one a slot, under the contract's own column names, with what was heard of it."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from flywheel.config import Config
from flywheel.errors import ConfigError
from flywheel.events import Decision, Shown, Value
from flywheel.schema import TIME
from flywheel.sources.labels import label_rule
from flywheel.sources.settling import Heard
from flywheel.sources.source import LOGGED


class Slot(NamedTuple):
    """One slot of a decision, from 1, and the outcome that labels it."""

    decision: Decision
    number: int
    shown: Shown
    label: Heard | None


def slots(decision: Decision, labels: dict[str, Heard]) -> list[Slot]:
    """A decision's slots, labelled by item."""
    return [Slot(decision, n, shown, labels.get(shown.item)) for n, shown in enumerate(decision.shown, start=1)]


def label_column(config: Config) -> str:
    """The raw column that an outcome's value goes into.

    Raises:
        ConfigError: the label compares with a text, and outcomes bring numbers.
    """
    rule = label_rule(config.contract.label)
    if isinstance(rule.value, str):
        why = f"{config.contract.label} compares with a text, and the value of an outcome is a number"
        raise ConfigError("contract.label cannot be served", why=why, next="edit flywheel.toml")
    return rule.column


def raw_batch(rows: Sequence[Slot], config: Config) -> pa.RecordBatch:
    """Slots as `normalise` reads them; an item's own attribute stands before the context of its request."""
    contract = config.contract
    columns: dict[str | None, pa.Array] = dict.fromkeys(contract.outcomes, pa.nulls(len(rows), pa.string()))
    for name, separator in [
        *((name, None) for name in (*contract.numeric, *contract.categorical)),
        *contract.lists.items(),
    ]:
        given = [row.shown.attributes.get(name, row.decision.context.get(name)) for row in rows]
        columns[name] = _cells(given) if separator is None else _lists(given, separator)
    columns |= {
        label_column(config): pa.array([row.label and row.label.value for row in rows], pa.float64()),
        contract.label_time: pa.array([row.label and row.label.ts for row in rows], pa.int64()).cast(TIME),
        contract.user: pa.array([row.decision.user for row in rows], pa.string()),
        contract.item: pa.array([row.shown.item for row in rows], pa.string()),
        contract.request: pa.array([row.decision.id for row in rows], pa.string()),
        contract.event_id: pa.array([f"{row.decision.id}-{row.number}" for row in rows], pa.string()),
        contract.position: pa.array([row.number for row in rows], pa.int64()),
        contract.propensity: pa.array([row.shown.propensity for row in rows], pa.float64()),
        contract.timestamp: pa.array([row.decision.ts for row in rows], pa.int64()).cast(TIME),
    }
    for raw, field in LOGGED.items():
        of_slot = field.name in Shown.__struct_fields__
        values = [getattr(row.shown if of_slot else row.decision, field.name) for row in rows]
        columns[raw] = pa.array(values, field.type)
    return pa.record_batch(list(columns.values()), names=list(columns))


def _cells(values: Sequence[Value]) -> pa.Array:
    """Numbers where all are, else the text of each."""
    if all(value is None or isinstance(value, float | int) for value in values):
        return pa.array(values, pa.float64())
    return pa.array([_text(value) for value in values], pa.string())


def _lists(values: Sequence[Value], separator: str) -> pa.Array:
    parts = [
        value if value is None or isinstance(value, list) else str(_text(value)).split(separator) for value in values
    ]
    return pa.array(parts, pa.list_(pa.string()))


def _text(value: Value) -> str | None:
    """As Arrow writes a column of it: 3.0 as 3. A list is written as JSON."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, list) else str(pa.scalar(value).cast(pa.string()))
