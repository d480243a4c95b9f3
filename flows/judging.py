"""What becomes of the events of a window: they are collected, and the suites at the doors judge them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flywheel.data import collect, dataset, validate
from flywheel.data.collect import Counts, Known
from flywheel.data.identity import Ids
from flywheel.integrations import gx_suites
from flywheel.records import LedgerLine, SuiteResult
from flywheel.workspace import Workspace

DOORS = ("events.json", "rows.json")


@dataclass(frozen=True)
class Offered:
    """What a window is closed from: the names of its shards."""

    window: int
    events: tuple[str, ...]
    rejected: tuple[str, ...]

    @property
    def shards(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.events, *self.rejected)


@dataclass(frozen=True)
class Judged:
    """A window's rows after validation: those that are good, those that are not, and the count of all."""

    good: pa.Table
    quarantined: pa.Table
    counts: Counts


def judge(
    ws: Workspace,
    window: int,
    *,
    events: pa.Table,
    rejected: pa.Table,
    known: Known,
    attributes: Sequence[pa.Table],
) -> Judged:
    """Collect a window, as `collect.close` does, and have the suites judge its rows.

    Raises:
        BlockedError: one stands in the way of its closing.
    """
    collected = collect.close(window, ws.config, events=events, rejected=rejected, known=known, attributes=attributes)
    validation = validate.validate(
        collected.rows,
        examine(ws, collected.rows),
        refused=collected.rejected,
        max_quarantined=ws.config.max_quarantined,
    )
    validate.demand_open(ws.config.windows.grid.name(window), validation)
    return Judged(
        validation.good,
        collect.quarantine(collected, validation.reasons, ws.config),
        collect.ledger(collected, validation.reasons),
    )


def examine(ws: Workspace, rows: pa.Table) -> list[SuiteResult]:
    """What each suite at the doors says of a window's rows."""
    frame = rows.to_pandas()
    return [gx_suites.run(gx_suites.read(ws.expectations / door), frame) for door in DOORS]


def rules(ws: Workspace) -> str:
    """The fingerprint of all that decides what becomes of an event: contract, windows, attributes, suites."""
    told = [ws.config.fingerprint("contract", "attributes", "windows", "max_quarantined").encode()]
    told += [(ws.expectations / door).read_bytes() for door in DOORS]
    return hashlib.sha256(b"\0".join(told)).hexdigest()[:12]


def ids(ws: Workspace, folder: Path, ledger: Sequence[LedgerLine]) -> Ids:
    """The ids that the windows of a ledger hold, by an index in `folder`."""
    grid, reader = ws.config.windows.grid, ws.reader
    chain = {grid.parse(name): address for name, address in dataset.chain(ledger).items()}
    return Ids(folder, chain, lambda window: reader(window, ["event_id"]).column("event_id"))
