"""Past windows made again: by today's rules, and with their late rows where they belong.

Two things can be wrong with a closed window. Its rules were others: contract, suites, waits. Then it is closed again
from what was collected: the deliveries whose shards it consumed are read once more from their files or from the inbox,
which must still hold them; where they do not, the window stays, and that is said. Or some of its events came late, or
were quarantined and sent again: then they are held by the later window that collected them, and no source is needed.

What late rows mean for the state was decided so: the state folds what was known when a window closed, so a late row
is folded by the window that collected it, before a backfill and after. In its own window it becomes a training row,
with the label its peers have, and is folded by nobody there (`flywheel.data.returning`). So no state, no
vocabulary and no served feature changes by it, and a generation that is fitted again at a past instant may learn from
a row that had not come by then: that is what a correction is. Rules are another matter: rows that were not in the
dataset are folded by the window that they are in, and every feature after it may change.

A duplicate is told by the dataset as it was when the backfill began, so that windows can be made in any order.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import branching, judging
from flows.branching import Branch
from flows.failpoints import failpoint
from flows.progress import tell
from flows.reclosing import Making, recloser
from flywheel import parquet
from flywheel.data import dataset, returning, validate
from flywheel.data.collect import Counts
from flywheel.errors import FlywheelError
from flywheel.fingerprint import atomic_write
from flywheel.records import LedgerLine
from flywheel.schema import KNOWN_SINCE, REJECTED
from flywheel.workspace import Workspace

Reprocess = Literal["missing", "failed", "changed", "all"]
LATE, RULES = "late rows", "other rules"
RECORD = "backfill.json"  # what failed, and how long things take: rebuildable, like all of `.flywheel`


@dataclass(frozen=True)
class Redone:
    """What became of a window: `rewritten`, `unchanged`, `kept` as its source is gone, `failed`, or `closed` anew."""

    window: str
    status: str
    rows: int
    before: int
    why: str = ""


def choose(
    ws: Workspace, span: tuple[datetime | None, datetime | None], reprocess: Reprocess, ledger: Sequence[LedgerLine]
) -> dict[str, str]:
    """The closed windows to be made again, each with the reason; windows belong to a span by their start."""
    start, end = span
    within = [x for x in ledger if (start is None or x.start >= start) and (end is None or x.start < end)]
    if reprocess == "all":
        return {line.window: "all" for line in within}
    if reprocess == "failed":
        return {line.window: "failed last time" for line in within if line.window in recorded(ws)["failed"]}
    if reprocess == "missing":
        return {}
    today, waiting = judging.rules(ws), unreturned(ws, ledger)
    reasons = {x.window: RULES if x.rules and x.rules != today else waiting.get(x.window, "") for x in within}
    return {window: why for window, why in reasons.items() if why}


def unreturned(ws: Workspace, ledger: Sequence[LedgerLine]) -> dict[str, str]:
    """Windows that late rows of others are dated in which were not given back yet, and how many."""
    grid, closed = ws.config.windows.grid, {line.window for line in ledger}
    late: dict[str, set[str]] = {}
    for line in ledger:
        if line.late:
            table = dataset.read_window(ws.data, line.window, ["event_id", "ts", "late"])
            for home, ids in returning.homes(table, grid).items():
                late.setdefault(grid.name(home), set()).update(ids)
    found = {}
    for name in sorted(closed & late.keys()):
        missing = late[name] - set(dataset.read_window(ws.data, name, ["event_id"])["event_id"].to_pylist())
        found[name] = f"{len(missing):,} {LATE}" if missing else ""
    return found


def remake(ws: Workspace, branch: Branch, most: int) -> list[Redone]:
    """Make the windows of a branch that are not made yet, `most` at once; one that fails does not stop the others."""
    making = Making(ws, branch)
    grid, began = ws.config.windows.grid, time.monotonic()
    reclosed = [grid.parse(name) for name, why in branch.chosen.items() if not why.endswith(LATE)]
    _each(making, reclosed, recloser(making, reclosed), most)
    late = _late(making)
    targets = sorted(_targets(making, late))
    fresh = [w for w in targets if branching.made(making.folder("new", w)) is None]
    _each(making, fresh, partial(_finish, making, late), most)
    done = [_told(making, w) for w in sorted({*targets, *map(grid.parse, branch.chosen)})]
    took, rows = time.monotonic() - began, sum(making.lines[w].collected for w in fresh)
    note(ws, {one.window: one.why for one in done if one.status == "failed"}, took / rows if rows else None)
    return done


def recorded(ws: Workspace) -> dict[str, dict[str, str]]:
    """What failed last time, by window; and under `seconds` what a row took."""
    try:
        held = json.loads((ws.cache / RECORD).read_text())
        return {"failed": dict(held["failed"]), "seconds": dict(held["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"failed": {}, "seconds": {}}


def note(ws: Workspace, failed: dict[str, str], seconds: float | None) -> None:
    """Keep what failed, and how long a row took."""
    held = recorded(ws) | {"failed": failed}
    if seconds is not None:
        held["seconds"] = {"row": str(seconds)}
    atomic_write(ws.cache / RECORD, lambda path: path.write_text(json.dumps(held, indent=1)))


def _each(making: Making, windows: Sequence[int], work: Callable[[int], object], most: int) -> None:
    """Do the work for each window, so many at once; whose work raises an error that people may see has failed."""
    name = making.ws.config.windows.grid.name

    def one(window: int) -> None:
        try:
            failpoint("redo:before")
            work(window)
            failpoint("redo:after")
        except FlywheelError as error:
            making.failed[name(window)] = " ".join(f"{error.what}: {error.why or error.where}".split())

    with ThreadPoolExecutor(most) as pool:
        futures = [pool.submit(copy_context().run, one, window) for window in windows]
        for done, future in enumerate(futures, start=1):
            future.result()
            tell("windows", done, len(windows))


def _late(making: Making) -> returning.Late:
    """The late rows that each window holds, without those that their own windows have by themselves now."""
    found, grid = {}, making.ws.config.windows.grid
    for window, line in making.lines.items():
        now = branching.made(making.folder("reclosed", window)) or line
        if not now.late:
            continue
        rows = making.rows(window)
        late = rows.filter(rows["late"])
        for home, ids in returning.homes(late, grid).items():
            if branching.made(making.folder("reclosed", home)):
                twice = pa.array(sorted(returning.twice(ids, making.rows(home))), pa.string())
                late = late.filter(pc.invert(pc.is_in(late["event_id"], value_set=twice)))
        found[window] = late
    return found


def _targets(making: Making, late: returning.Late) -> set[int]:
    """The windows whose rows may become others: chosen ones, and those that hang on one that was closed again."""
    grid, lines = making.ws.config.windows.grid, making.lines
    closed = {w for w in lines if branching.made(making.folder("reclosed", w))}
    chosen = {grid.parse(name) for name in making.branch.chosen}
    homes = {home for table in late.values() for home in returning.homes(table, grid)}
    hanging = {w for w, line in lines.items() if line.returned and any(other > w for other in closed)}
    shrunk = {
        w
        for w, table in late.items()
        if table.num_rows < (branching.made(making.folder("reclosed", w)) or lines[w]).late
    }
    failed = {grid.parse(name) for name in making.failed}
    return (closed | (chosen & (homes | {w for w in chosen if lines[w].returned})) | hanging | shrunk) - failed


def _finish(making: Making, late: returning.Late, window: int) -> None:
    """Give a window its late rows back, and keep it with its counts."""
    ws, line = making.ws, making.lines[window]
    again_closed = branching.made(making.folder("reclosed", window))
    rows = making.rows(window)
    if window in late:
        gone = pc.and_(
            rows["late"], pc.invert(pc.is_in(rows["event_id"], value_set=late[window]["event_id"].combine_chunks()))
        )
        rows = rows.filter(pc.invert(gone))
    given = _good(making, line.window, rows, returning.candidates(window, rows, late, ws.config))
    counts = _counts(again_closed or line, returning.together(rows, given), given.num_rows)
    quarantined = None
    if again_closed is not None:
        path = making.folder("reclosed", window) / "quarantine.parquet"
        quarantined = parquet.read(path) if path.exists() else REJECTED.empty_table()
    made = replace(again_closed or line, **asdict(counts), returned=given.num_rows)
    branching.keep(making.folder("new", window), made, returning.together(rows, given), quarantined)


def _good(making: Making, name: str, rows: pa.Table, given: pa.Table) -> pa.Table:
    """Those of the rows given back that the suites let through, judged among their peers; the rest stay as they are.

    Raises:
        BlockedError: the window with them does not meet its suites.
    """
    if not given.num_rows:
        return given
    both = returning.together(rows, given)
    with making.suites:
        said = validate.validate(
            both,
            judging.examine(making.ws, both.drop_columns([KNOWN_SINCE.name])),
            refused=REJECTED.empty_table(),
            max_quarantined=making.ws.config.max_quarantined,
        )
    validate.demand_open(name, said)
    good = np.ones(both.num_rows, dtype=bool)
    good[list(said.reasons)] = False
    return both.filter(pc.and_(both[KNOWN_SINCE.name].is_valid(), pa.array(good)))


def _counts(line: LedgerLine, rows: pa.Table, returned: int) -> Counts:
    """What became of a window's events; a late row that fell away was there twice."""
    late = pc.sum(rows["late"]).as_py() or 0
    silent = pc.sum(pc.and_(pc.invert(rows["late"]), rows["label"].is_null())).as_py() or 0
    known = rows.num_rows - late - silent
    duplicate = line.collected + returned - known - silent - late - line.quarantined
    return Counts(line.collected, known, duplicate, line.quarantined, silent, late)


def _told(making: Making, window: int) -> Redone:
    line, new = making.lines[window], branching.made(making.folder("new", window))
    if line.window in making.failed:
        return Redone(line.window, "failed", line.rows, line.rows, making.failed[line.window])
    gone = sorted({why for shard in line.shards if (why := making.gone.get(shard.partition("/")[0]))})
    why = making.branch.chosen.get(line.window, "a window that it hangs on was closed again")
    if new is None or new == line:
        status = "kept" if gone else "unchanged"
        return Redone(line.window, status, line.rows, line.rows, "; ".join(gone) or why)
    return Redone(line.window, "rewritten", new.rows, line.rows, "; ".join([why, *gone]))


def unfinished(done: Iterable[Redone]) -> list[Redone]:
    """Those that failed."""
    return [one for one in done if one.status == "failed"]
