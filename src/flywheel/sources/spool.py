"""The inbox: what arrived and is not yet in a closed window, one folder per delivery, one shard per window.

    inbox/shards/<delivery>/delivery.json             the mark: what was taken
                            2014-12-01.0000.parquet   events of that window, in parts
                            rejected/2014-12-01.0000.parquet, undated.0000.parquet

A shard is known by its name, `<delivery>/<window>`, `<delivery>/rejected/<window>` or `<delivery>/rejected/undated`.
Which shards are consumed is written in the ledger, not here, so the functions that list take `consumed`. A take
that is killed leaves a folder whose name starts with a dot, which the next one removes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.config import Config
from flywheel.errors import IntegrityError
from flywheel.fingerprint import sync
from flywheel.schema import REJECTED, event_schema
from flywheel.sources.buffer import UNDATED, Buffer, parted
from flywheel.sources.normalise import normalise
from flywheel.sources.source import ROW, Delivery, Mark, Source
from flywheel.windows import Windows, format_duration

_RECORD = "delivery.json"
Rejected = Callable[[], pa.Table]


@dataclass(frozen=True)
class Taken:
    """One delivery in the inbox. `rows = sum(windows) + rejected`; `windows` counts events by window name."""

    name: str
    label: str
    mark: Mark
    rows: int
    rejected: int
    windows: dict[str, int]
    rejected_windows: dict[str, int]
    ignored: tuple[str, ...]
    grid: str
    contract: str

    @cached_property
    def shards(self) -> dict[str, int]:
        """Rows by shard name."""
        events = {f"{self.name}/{window}": count for window, count in self.windows.items()}
        return events | {f"{self.name}/rejected/{window}": count for window, count in self.rejected_windows.items()}


Accept = Callable[[Taken, Rejected], None]


@dataclass(frozen=True)
class Spool:
    """The inbox of a workspace, read by the grid that its windows lie on."""

    inbox: Path
    grid: Windows

    def take(
        self,
        source: Source,
        config: Config,
        *,
        now: datetime,
        consumed: frozenset[str] = frozenset(),
        progress: Callable[[int], None] | None = None,
        accept: Accept | None = None,
    ) -> tuple[Taken, ...]:
        """Bring in every new delivery; each is there as a whole or not at all.

        Args:
            source: what to ask for deliveries beyond the marks of those here.
            config: the contract by which rows become events.
            now: rows dated more than a day after it are rejected.
            consumed: the shards of closed windows. A delivery with none of them that was taken under another
                contract is taken again, if the source still has it.
            progress: called with the number of rows read so far.
            accept: called with each delivery before it is kept; what it raises keeps the delivery out.

        Raises:
            SourceError: a delivery cannot be read. Those before it stay, nothing of it does.
        """
        self._shards.mkdir(parents=True, exist_ok=True)
        for left in self._shards.glob(".*"):
            shutil.rmtree(left)
        taken: list[Taken] = []
        marks = [known.mark for known in self._settled(config.fingerprint("contract"), consumed)]
        for delivery in source.deliveries(marks):
            before = sum(one.rows for one in taken)
            told = (lambda rows, before=before: progress(before + rows)) if progress else None
            taken.append(self._take(delivery, config, now, told, accept))
        return tuple(taken)

    def take_again(self, delivery: Delivery, config: Config, *, now: datetime) -> Taken:
        """Bring one delivery in, taken before or not."""
        shutil.rmtree(self._shards / f".{delivery.name}", ignore_errors=True)
        return self._take(delivery, config, now, None, None)

    def deliveries(self) -> tuple[Taken, ...]:
        """All that was ever taken, by name.

        Raises:
            IntegrityError: the inbox was filled with windows of another length or origin.
        """
        paths = sorted(self._shards.glob(f"[!.]*/{_RECORD}")) if self._shards.is_dir() else []
        found = tuple(_read_record(path, path.stat().st_mtime_ns) for path in paths)
        other = next((taken.grid for taken in found if taken.grid != self._grid), None)
        if other is not None:
            why = f"windows are {self._grid} now"
            fix = "restore [windows] every, or delete inbox/shards and take everything again"
            raise IntegrityError(
                f"the inbox was filled with windows of {other}", where=str(self.inbox), why=why, next=fix
            )
        return found

    def span(self, consumed: frozenset[str] = frozenset()) -> tuple[int, int] | None:
        """The first and the last window that have events open; None where none has."""
        open_windows = [self.grid.parse(name) for name in self.still_open(consumed)]
        return (min(open_windows), max(open_windows)) if open_windows else None

    def still_open(self, consumed: frozenset[str]) -> dict[str, int]:
        """Events that no closed window has consumed, by the window they are dated in; in order of time."""
        counts: Counter[str] = Counter()
        for taken in self.deliveries():
            open_windows = {w: n for w, n in taken.windows.items() if f"{taken.name}/{w}" not in consumed}
            counts.update(open_windows)
        return dict(sorted(counts.items()))

    def shards(self, window: int, consumed: frozenset[str]) -> tuple[str, ...]:
        """Event shards of a window."""
        return self._named(lambda kind, at: kind == "events" and at == window, consumed)

    def late(self, window: int, consumed: frozenset[str]) -> tuple[str, ...]:
        """Event shards of windows before it: as windows close in order, those are closed, and their rows are late."""
        return self._named(lambda kind, at: kind == "events" and at is not None and at < window, consumed)

    def rejected(self, window: int, consumed: frozenset[str]) -> tuple[str, ...]:
        """Rejected shards to attach to a window: those dated up to it, and the undated."""
        return self._named(lambda kind, at: kind == "rejected" and (at is None or at <= window), consumed)

    def rejected_open(self, consumed: frozenset[str]) -> int:
        """Rejected rows that are not attached to a window yet."""
        shards = {name: n for taken in self.deliveries() for name, n in taken.shards.items() if "/rejected/" in name}
        return sum(count for name, count in shards.items() if name not in consumed)

    def read_events(self, names: Iterable[str], config: Config) -> pa.Table:
        """The events of the named shards, with `event_schema`; an unknown name is an IntegrityError."""
        return self._read(names, event_schema(config))

    def read_rejected(self, names: Iterable[str]) -> pa.Table:
        """The rejected rows of the named shards, with `REJECTED`."""
        return self._read(names, REJECTED)

    def forget(self, consumed: frozenset[str]) -> int:
        """Delete the files of consumed shards, and say how many; what was taken stays known."""
        files = [path for name in sorted(consumed) for path in self.files(name)]
        for path in files:
            path.unlink()
        return len(files)

    def _settled(self, contract: str, consumed: frozenset[str]) -> list[Taken]:
        """All but those to be taken again: of another contract, not `once`, alone under their label, not consumed."""
        known = self.deliveries()
        labels = Counter(taken.label for taken in known)

        def again(taken: Taken) -> bool:
            fixed = taken.contract == contract or taken.mark.get("once", False) or labels[taken.label] > 1
            return not fixed and consumed.isdisjoint(taken.shards)

        return [taken for taken in known if not again(taken)]

    @property
    def _grid(self) -> str:
        return f"{format_duration(self.grid.every)} from {self.grid.origin.isoformat()}"

    @property
    def _shards(self) -> Path:
        return self.inbox / "shards"

    def _named(self, wanted: Callable[[str, int | None], bool], consumed: frozenset[str]) -> tuple[str, ...]:
        taken = self.deliveries()
        shards = (shard for one in taken for shard in _windows(one.name, tuple(one.shards), self.grid))
        return tuple(sorted(name for name, kind, at in shards if wanted(kind, at) and name not in consumed))

    def files(self, name: str) -> list[Path]:
        """The files of a shard."""
        return sorted((self._shards / name).parent.glob(f"{Path(name).name}.*parquet"))

    def _read(self, names: Iterable[str], schema: pa.Schema) -> pa.Table:
        tables = []
        for name in names:
            files = self.files(name)
            if not files:
                why = "its files were deleted before its window was closed"
                raise IntegrityError(f"shard {name} is not in the inbox", where=str(self._shards), why=why)
            tables += [pq.read_table(path, partitioning=None) for path in files]
        unlike = next((table.schema for table in tables if table.schema.names != schema.names), None)
        if unlike is not None:
            changed = sorted(set(unlike.names) ^ set(schema.names))
            why = f"[contract] changed since in: {', '.join(changed)}"
            fix = "restore the contract, or delete inbox/shards and take everything again"
            raise IntegrityError(
                "the inbox was filled under another contract", where=str(self._shards), why=why, next=fix
            )
        return pa.concat_tables([table.cast(schema) for table in tables]) if tables else schema.empty_table()

    def _take(
        self,
        delivery: Delivery,
        config: Config,
        now: datetime,
        progress: Callable[[int], None] | None,
        accept: Accept | None,
    ) -> Taken:
        temporary, before = self._shards / f".{delivery.name}", self._shards / f".{delivery.name}.before"
        (temporary / "rejected").mkdir(parents=True)
        try:
            taken = self._fill(temporary, delivery, config, now, progress)
            if accept:
                accept(taken, lambda: _read_all(sorted((temporary / "rejected").glob("*.parquet")), REJECTED))
            (record := temporary / _RECORD).write_text(json.dumps(asdict(taken), indent=1), encoding="utf-8")
            for path in (record, temporary / "rejected", temporary):
                sync(path)
            if (final := self._shards / delivery.name).exists():
                final.replace(before)
            temporary.replace(final)
            sync(self._shards)
        finally:
            for folder in (temporary, before):
                shutil.rmtree(folder, ignore_errors=True)
        return taken

    def _fill(
        self, folder: Path, delivery: Delivery, config: Config, now: datetime, progress: Callable[[int], None] | None
    ) -> Taken:
        events, rejected = Buffer(folder), Buffer(folder / "rejected")
        ignored: dict[str, None] = {}
        rows, row = 0, delivery.first_row
        for batch in delivery.batches():
            known = normalise(batch, config, source=delivery.label, first_row=row, now=now)
            for window, part in parted(known.events, self.grid):
                events.add(window, part)
            for window, part in parted(known.rejected, self.grid):
                rejected.add(window, part)
            ignored |= dict.fromkeys(known.ignored)
            rows += batch.num_rows
            row = batch[ROW][-1].as_py() + 1 if ROW in batch.schema.names else row + batch.num_rows
            if progress:
                progress(rows)
        windows, bad = events.close(), rejected.close()
        return Taken(
            name=delivery.name,
            label=delivery.label,
            mark=delivery.mark(),
            rows=rows,
            rejected=sum(bad.values()),
            windows=windows,
            rejected_windows=bad,
            ignored=tuple(ignored),
            grid=self._grid,
            contract=config.fingerprint("contract"),
        )


def _read_all(files: Iterable[Path], schema: pa.Schema) -> pa.Table:
    tables = [pq.read_table(path, partitioning=None).cast(schema) for path in files]
    return pa.concat_tables([schema.empty_table(), *tables])


@lru_cache(maxsize=8192)
def _windows(_delivery: str, names: tuple[str, ...], grid: Windows) -> tuple[tuple[str, str, int | None], ...]:
    """Each shard with its kind and its window: parsing a name takes 10 µs, and each close asks for all of them."""
    found = []
    for name in names:
        window = name.rpartition("/")[2]
        kind = "rejected" if "/rejected/" in name else "events"
        found.append((name, kind, None if window == UNDATED else grid.parse(window)))
    return tuple(found)


@lru_cache(maxsize=8192)
def _read_record(path: Path, _written: int) -> Taken:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Taken(**values | {"ignored": tuple(values["ignored"])})
    except (ValueError, KeyError, TypeError) as error:
        fix = f"rm -r {path.parent}; the next turn takes the delivery again where its source still has it"
        raise IntegrityError(
            "a delivery's record is not what was written", where=str(path), why=str(error), next=fix
        ) from None
