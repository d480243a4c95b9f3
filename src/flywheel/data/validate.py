"""Suite results become good rows, quarantined rows with their reasons, warnings, and blocks.

A bad row is quarantined and its window goes on. An expectation of the whole window that fails stops the
window from closing, unless its severity says warn. So do too many bad rows: then the source is wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flywheel.errors import BlockedError
from flywheel.records import SuiteResult


@dataclass(frozen=True)
class Validation:
    """What validation made of a window's rows.

    `good` has the columns of the rows given, in their order; `reasons` says, by position in them, all that is against
    the others. `blocks` is empty if the window may close.
    """

    good: pa.Table
    reasons: dict[int, list[str]]
    warnings: tuple[str, ...]
    blocks: tuple[str, ...]


def validate(
    rows: pa.Table, results: Sequence[SuiteResult], *, refused: pa.Table, max_quarantined: float
) -> Validation:
    """Part the rows by what the suites said of them; every suite was run on these rows in this order.

    Args:
        rows: the window's rows.
        results: one a suite.
        refused: with `schema.REJECTED`, what could not even be read as rows.
        max_quarantined: the share of bad rows, refused ones included, above which the window is blocked.
    """
    reasons = _reasons(results)
    failures = [failure for result in results for failure in result.failures]
    blocks = [sentence for sentence, critical in failures if critical]
    against = [*reasons.values(), *refused.column("reasons").to_pylist()]
    if len(against) > max_quarantined * (rows.num_rows + refused.num_rows):
        blocks.append(_too_many(against, rows.num_rows + refused.num_rows, max_quarantined))
    good = np.ones(rows.num_rows, dtype=bool)
    good[list(reasons)] = False
    return Validation(
        good=rows.filter(pa.array(good)),
        reasons=reasons,
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


def _too_many(against: list[list[str]], rows: int, most: float) -> str:
    counts = Counter(reason for reasons in against for reason in reasons)
    top, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    share = f"{len(against):,} of {rows:,} rows are bad, and max_quarantined is {most:g} of them"
    return f"{share}; first of all: {top} ({count:,} rows)"
