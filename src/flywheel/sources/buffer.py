"""Rows on their way into the shards of one delivery, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.fingerprint import sync
from flywheel.windows import Windows

UNDATED = "undated"
_MOST_BYTES = 64 << 20
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class Buffer:
    """Tables by window, written to `folder/<window>.<part>.parquet` when they grow past 64 MiB, and at the close."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder, self._most = folder, most_bytes
        self._waiting: dict[str, list[pa.Table]] = {}
        self._bytes = 0
        self._rows: Counter[str] = Counter()
        self._parts: Counter[str] = Counter()

    def add(self, window: str, table: pa.Table) -> None:
        """Keep the table for its window, until the next flush."""
        self._waiting.setdefault(window, []).append(table)
        self._rows[window] += table.num_rows
        self._bytes += table.nbytes
        if self._bytes > self._most:
            self._flush()

    def close(self) -> dict[str, int]:
        """Write what waits; the rows of each window, in order of time."""
        self._flush()
        return dict(sorted(self._rows.items()))

    def _flush(self) -> None:
        while self._waiting:
            window, tables = self._waiting.popitem()
            path = self._folder / f"{window}.{self._parts[window]:04}.parquet"
            self._parts[window] += 1
            table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
            pq.write_table(table, path, compression="zstd", compression_level=1)
            sync(path)
        self._bytes = 0


def parted(table: pa.Table, grid: Windows) -> Iterator[tuple[str, pa.Table]]:
    """The table, window by window, what has no time as `UNDATED`; within one, in the order given."""
    if not table.num_rows:
        return
    undated = -(2**62)
    stamps = table["ts"].cast(pa.int64())
    origin, every = (round(span.total_seconds() * 1e6) for span in (grid.origin - _UNIX, grid.every))
    windows = (stamps.fill_null(0).to_numpy() - origin) // every
    windows[stamps.is_null().to_numpy()] = undated
    if (np.diff(windows) < 0).any():
        order = np.argsort(windows, kind="stable")
        table, windows = table.take(pa.array(order)), windows[order]
    starts = np.flatnonzero(np.diff(windows, prepend=windows[0] - 1))
    for start, end in zip(starts, [*starts[1:], len(windows)], strict=True):
        index = int(windows[start])
        yield UNDATED if index == undated else grid.name(index), table.slice(start, end - start)
