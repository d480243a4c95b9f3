"""Suite results become good rows, quarantined rows with their reasons, warnings, and blocks.

A bad row is quarantined and its window goes on. An expectation of the whole window that fails stops the
window from closing, unless its severity says warn. So do too many bad rows: then the source is wrong.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from flywheel.errors import BlockedError
from flywheel.records import SuiteResult
from flywheel.schema import REJECTED

ORIGIN = ("source", "row")  # where a row came from; kept beside it in the quarantine, not in it


@dataclass(frozen=True)
class Validation:
    """What validation made of a window's rows.

    `good` has the columns of the rows given, in their order; `quarantined` is `schema.REJECTED`. `blocks` is
    empty if the window may close.
    """

    good: pa.Table
    quarantined: pa.Table
    warnings: tuple[str, ...]
    blocks: tuple[str, ...]


def validate(rows: pa.Table, results: Sequence[SuiteResult], *, max_quarantined: float) -> Validation:
    """Part the rows by what the suites said of them; every suite was run on these rows in this order.

    `max_quarantined` is the share of the rows above which their window is blocked. If the rows carry `source`
    and `row`, these say in the quarantine where each came from.
    """
    reasons = _reasons(results)
    failures = [failure for result in results for failure in result.failures]
    blocks = [sentence for sentence, critical in failures if critical]
    if len(reasons) > max_quarantined * rows.num_rows:
        blocks.append(_too_many(reasons, rows.num_rows, max_quarantined))
    bad = np.zeros(rows.num_rows, dtype=bool)
    bad[list(reasons)] = True
    return Validation(
        good=rows.filter(pa.array(~bad)),
        quarantined=_quarantine(
            rows.filter(pa.array(bad)), [reasons[position] for position in sorted(reasons)]
        ),
        warnings=tuple(sentence for sentence, critical in failures if not critical),
        blocks=tuple(blocks),
    )


def demand_open(window: str, validation: Validation) -> None:
    """Return if nothing stands in the way of the window's closing.

    Raises:
        BlockedError: names the window, what it did not meet and the number observed.
    """
    if not validation.blocks:
        return
    first, *others = validation.blocks
    why = first + (f"; and {len(others)} more: {others[0]}" if others else "")
    raise BlockedError(
        f"window {window} is blocked, and nothing of it was written",
        why=" ".join(why.split()),
        next="correct the source, or the expectation in expectations/, then flywheel turn",
    )


def _reasons(results: Sequence[SuiteResult]) -> dict[int, list[str]]:
    """Every reason against each bad row, once each, in the order of the suites."""
    merged: dict[int, list[str]] = {}
    for result in results:
        for position, reasons in result.bad_rows.items():
            known = merged.setdefault(position, [])
            known.extend(reason for reason in reasons if reason not in known)
    return merged


def _too_many(reasons: dict[int, list[str]], rows: int, most: float) -> str:
    counts = Counter(reason for against in reasons.values() for reason in against)
    top, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    share = f"{len(reasons):,} of {rows:,} rows are bad, and max_quarantined is {most:g} of them"
    return f"{share}; first of all: {top} ({count:,} rows are not so)"


def _quarantine(bad: pa.Table, reasons: list[list[str]]) -> pa.Table:
    present = [name for name in bad.column_names if name not in ORIGIN]
    columns = {
        "event_id": _column(bad, "event_id", None),
        "ts": _column(bad, "ts", None),
        "source": _column(bad, "source", ""),
        "row": _column(bad, "row", 0),
        "reasons": reasons,
        "raw": [_json(values) for values in bad.select(present).to_pylist()],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in REJECTED], schema=REJECTED)


def _column(bad: pa.Table, name: str, default: object) -> list[object]:
    return bad.column(name).to_pylist() if name in bad.column_names else [default] * bad.num_rows


def _json(values: dict[str, object]) -> str:
    """One JSON object that any reader takes: times in ISO 8601, NaN and infinities by their names."""
    return json.dumps({k: _strict(v) for k, v in values.items()}, ensure_ascii=False, allow_nan=False)


def _strict(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
