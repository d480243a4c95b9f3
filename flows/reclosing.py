"""A window closed again from what was collected, by today's rules: its deliveries are read once more into a branch."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from flows import branching, judging
from flows.branching import Branch
from flywheel import parquet
from flywheel.data import dataset, returning
from flywheel.data.identity import Ids
from flywheel.records import LedgerLine
from flywheel.sources import again, attributes
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace

UNKNOWN = "the inbox does not know its delivery any more"


@dataclass
class Making:
    """A branch on its way: what is read once for all of its windows."""

    ws: Workspace
    branch: Branch
    gone: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    suites: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lines(self) -> dict[int, LedgerLine]:
        """The windows as they were, by index."""
        grid = self.ws.config.windows.grid
        return {grid.parse(line.window): line for line in self.branch.base}

    def folder(self, kind: str, window: int) -> Path:
        """Where a window is kept once it was made."""
        return self.branch.folder / kind / self.ws.config.windows.grid.name(window)

    def rows(self, window: int) -> pa.Table:
        """A window's own rows: as closed again, else as they were."""
        folder, name = self.folder("reclosed", window), self.ws.config.windows.grid.name(window)
        if branching.made(folder):
            return parquet.read(folder / "events.parquet")
        return returning.own(dataset.read_window(self.ws.data, name))


def recloser(making: Making, windows: Sequence[int]) -> Callable[[int], object]:
    """Bring the deliveries of these windows into the branch; what closes one of them from there."""
    if not windows:
        return lambda _: None
    ws, branch, lines = making.ws, making.branch, making.lines
    live, grid = Spool(ws.inbox, ws.config.windows.grid), ws.config.windows.grid
    arrived = again.arrivals({window: line.shards for window, line in lines.items()})
    needed = {shard.partition("/")[0] for window in windows for shard in lines[window].shards}
    every = {taken.name: taken for taken in live.deliveries()}
    making.gone |= dict.fromkeys(needed - every.keys(), UNKNOWN)
    spool = Spool(branch.folder / "inbox", grid)
    here = {taken.name for taken in spool.deliveries()}
    wanted = [every[name] for name in sorted(needed & every.keys())]
    for name, found in again.reread(wanted, list(every.values()), ws.config, ws.root).items():
        if isinstance(found, str):
            making.gone[name] = found
        elif name not in here:
            spool.take_again(found, ws.config, now=branch.started)
    shards: dict[int, list[str]] = {}
    for taken in spool.deliveries():
        now, then = (again.consumed_by(one, arrived[taken.name], grid) for one in (taken, every[taken.name]))
        moved = [w for w in {*now, *then} - {*windows} if sum(now.get(w, {}).values()) != sum(then.get(w, {}).values())]
        if moved:
            making.gone[taken.name] = f"by today's contract rows of {taken.label} are of {grid.name(moved[0])} or not"
        for window, names in now.items():
            shards.setdefault(window, []).extend(names)
    tables = [attributes.read_attributes(spec, ws.root) for spec in ws.config.attributes]
    ids = judging.ids(ws, branch.folder / "ids", branch.base)
    return partial(_reclose, making, spool, shards, (ids, tables))


def _reclose(
    making: Making, spool: Spool, shards: dict[int, list[str]], known: tuple[Ids, list[pa.Table]], window: int
) -> None:
    ws, folder, line = making.ws, making.folder("reclosed", window), making.lines[window]
    if branching.made(folder) or any(shard.partition("/")[0] in making.gone for shard in line.shards):
        return
    names = shards.get(window, [])
    ids, tables = known
    events = spool.read_events(sorted(n for n in names if "/rejected/" not in n), ws.config)
    rejected = spool.read_rejected(sorted(n for n in names if "/rejected/" in n))
    with making.suites:  # neither the index nor Great Expectations was made for threads
        before = partial(ids.known, before=window)
        judged = judging.judge(ws, window, events=events, rejected=rejected, known=before, attributes=tables)
    made = replace(line, **asdict(judged.counts), returned=0, rules=judging.rules(ws))
    branching.keep(folder, made, judged.good, judged.quarantined)
