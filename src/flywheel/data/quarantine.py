"""Rows that may not be trained on, in the form they are kept in: with every reason, and ready to be read again."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.config import Config
from flywheel.content import plain
from flywheel.schema import REJECTED


def as_given(rows: pa.Table, config: Config) -> list[dict[str, Any]]:
    """Rows under the contract's own column names, so that a source can read them again; attributes are left out.

    A label that is a comparison keeps it as its name, `{"rating >= 4": 1.0}`, which the contract reads as a column.
    """
    contract = config.contract
    roles = {"event_id": contract.event_id, "ts": contract.timestamp, "label_ts": contract.label_time}
    roles |= {"label": contract.label, "user": contract.user, "item": contract.item, "request": contract.request}
    roles |= {"position": contract.position, "propensity": contract.propensity}
    roles |= {name: name for name in (*contract.context, *contract.outcomes)}
    kept = {role: name for role, name in roles.items() if name and role in rows.column_names}
    given: list[dict[str, Any]] = rows.select(list(kept)).rename_columns(list(kept.values())).to_pylist()
    for row in given:
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = value.isoformat()
            elif isinstance(value, list):
                row[name] = contract.lists[name].join(value)
    return given


def as_rejected(rows: pa.Table, origin: pa.Table, reasons: Sequence[Sequence[str]], config: Config) -> pa.Table:
    """Events or rows with `REJECTED`; `origin` has their `source` and `row`, `reasons` all that is against each."""
    raw = [json.dumps(row, ensure_ascii=False) for row in as_given(rows, config)]
    columns = {
        "event_id": rows["event_id"],
        "ts": rows["ts"],
        "source": origin["source"].cast(pa.string()),
        "row": origin["row"],
        "reasons": pa.array([list(r) for r in reasons], pa.list_(pa.string())),
        "raw": pa.array(raw, pa.string()),
    }
    return pa.table(columns, schema=REJECTED)


def distinct_rejected(rejected: pa.Table) -> pa.Table:
    """Each once: two rows that read the same and were refused for the same are one."""
    if not rejected.num_rows:
        return rejected
    ordered = in_order(rejected)
    same = pc.binary_join_element_wise(plain(ordered["raw"]), plain(ordered["reasons"]), "\n")
    first = np.unique(same.dictionary_encode().indices.to_numpy(), return_index=True)[1]
    return ordered.take(pa.array(np.sort(first))).combine_chunks()


def in_order(rejected: pa.Table) -> pa.Table:
    """By where they came from."""
    return rejected.sort_by([("source", "ascending"), ("row", "ascending"), ("raw", "ascending")]).combine_chunks()
