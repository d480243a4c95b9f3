"""A sorted table on disk that grows by segments: what a key was last known to be, as of any recent window.

Closing a window writes one small segment with the new values of the keys it touched; nothing older is rewritten.
A read asks the newest segment first. Older segments are merged now and then, so that a key is found in a number
of steps that grows with the logarithm of the history (a log-structured merge tree of `.npy` files).

Everything here is a cache. One file, `manifest.json`, names the segments and their checksums, and is replaced in
one step: a process killed anywhere leaves the old tables or the new ones. A segment is hashed when it is first
opened and again whenever its stat has changed since: to hash all of history at each window would cost the history.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from flywheel.errors import IntegrityError

Keys = npt.NDArray[np.uint64]
Entries = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]
MANIFEST = "manifest.json"
_PARSING = threading.Lock()
_SETTLED = 50_000_000  # ns; a file changed more recently may change again within the same tick of its clock


@dataclass(frozen=True)
class Segment:
    """The keys touched since the segment before it, with their values as of window `upto`.

    Its file holds the keys, ascending, then the rest of each entry in the same order; `stat` is that of the file
    when its bytes were last seen to be right, and empty while that is too recent to tell.
    """

    table: str
    upto: int
    rows: int
    file: str
    checksum: str
    stat: tuple[int, ...] = ()


def load(file: Path | IO[bytes], mapped: Literal["r"] | None = None) -> npt.NDArray[Any]:
    """An array that was saved, read or mapped; the only way to one, for no two threads may parse a header at once.

    NumPy parses it by `ast`, which before Python 3.11.8 and 3.12.2 ends in a SystemError now and then where threads do
    so at the same time (CPython issue 106905).
    """
    with _PARSING:
        array: npt.NDArray[Any] = np.load(file, mmap_mode=mapped, allow_pickle=False)
    return array


def load_all(file: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays that were saved in one file, by name."""
    with _PARSING, np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def hash_names(values: list[str]) -> Keys:
    """Hash strings to keys; stable across processes and machines. Two names meet once in 2^64."""
    return np.fromiter((xxhash.xxh3_64_intdigest(v.encode()) for v in values), dtype=np.uint64, count=len(values))


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def entry_type(fields: list[tuple[Any, ...]]) -> np.dtype[np.void]:
    """The record that a table stores: its key first, then `fields`."""
    return np.dtype([("key", "<u8"), *fields])


class Segments:
    """Tables of one folder, opened at the address of the data that made them.

    Args:
        folder: where the segments are.
        tables: the record of each table, its first field `key`.
        keep: how many of the newest windows stay apart, so that a read can be as of any of them.
        chain: the address of the data up to a window; segments made from other data are forgotten.
    """

    def __init__(
        self,
        folder: Path,
        tables: Mapping[str, np.dtype[np.void]],
        *,
        keep: int,
        chain: Callable[[int], str | None],
    ) -> None:
        self._folder, self.tables, self.keep, self._chain = folder, dict(tables), keep, chain
        self._contents: dict[str, Bytes] = {}
        self.newest: int | None = None
        self.notes: dict[str, Any] = {}
        self._segments: list[Segment] = []
        self._read_manifest()

    def oldest_readable(self) -> int | None:
        """The oldest window that a read can be as of, or None while nothing is stored."""
        bounds = [{s.upto for s in self._segments if s.table == name} for name in self.tables]
        common = set.intersection(*bounds) if bounds else set()
        return min(common) if common else None

    def get(self, table: str, keys: Keys, at: int) -> tuple[npt.NDArray[np.bool_], Entries]:
        """What each key was known to be as of window `at`.

        Args:
            table: one of the tables.
            keys: unique hashes, shape (n,), in any order.
            at: a window that `oldest_readable() <= at <= newest`.

        Returns:
            Which keys are known, shape (n,), and their entries, shape (n,), zero where unknown.
        """
        found = np.zeros(len(keys), dtype=bool)
        entries = np.zeros(len(keys), dtype=self.tables[table])
        order = np.argsort(keys)
        pending, wanted = order, keys[order]
        for segment in sorted((s for s in self._segments if s.table == table and s.upto <= at), key=lambda s: -s.upto):
            if not len(pending):
                break
            stored, values = self._open(segment)
            place, hit = find(stored, wanted)
            entries[pending[hit]] = _joined(wanted[hit], values[place[hit]], entries.dtype)
            found[pending[hit]] = True
            pending, wanted = pending[~hit], wanted[~hit]
        return found, entries

    def merged(self, table: str) -> tuple[Keys, Entries]:
        """All keys of a table, ascending, and the rest of their entries, as of `newest`; a copy, or mapped."""
        segments = sorted((s for s in self._segments if s.table == table), key=lambda s: s.upto)
        merged = self._open(segments.pop())
        while segments:  # the small ones first
            merged = _merged(self._open(segments.pop()), merged)
        return merged

    def put(self, blocks: Iterable[tuple[int, Mapping[str, Entries]]], notes: Mapping[str, Any] | None = None) -> None:
        """Add the windows up to each block's, in order: per table the entries of the keys touched, as of that window.

        All blocks become visible in one step, together with `notes`, a JSON object kept beside the tables.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        segments = list(self._segments)
        for upto, tables in blocks:
            segments += [self._write(name, upto, *_sorted(tables[name])) for name in self.tables]
            self.newest = upto
        self.notes = {**self.notes, **(notes or {})}
        self._segments = [s for name in self.tables for s in self._compacted([s for s in segments if s.table == name])]
        self._write_manifest()

    def _compacted(self, segments: list[Segment]) -> list[Segment]:
        """Merge neighbours older than the windows kept apart, until each is twice as large as the next."""
        assert self.newest is not None
        old = [s for s in segments if s.upto <= self.newest - self.keep]
        young = segments[len(old) :]
        while len(old) > 1 and old[-2].rows <= 2 * old[-1].rows:
            older, newer = old[-2:]
            old[-2:] = [self._write(older.table, newer.upto, *_merged(self._open(older), self._open(newer)))]
        return old + young

    def _write(self, table: str, upto: int, keys: Keys, values: Entries) -> Segment:
        content = np.concatenate([keys.view(np.uint8), values.view(np.uint8)])
        checksum = xxhash.xxh3_64_hexdigest(content.data)
        file = f"{table}.{upto}.{checksum}.npy"
        partial = self._folder / f"{file}.partial"
        with partial.open("wb") as stream:
            np.save(stream, content)
        partial.replace(self._folder / file)
        self._contents[file] = content
        return Segment(table, upto, len(keys), file, checksum)

    def _open(self, segment: Segment) -> tuple[Keys, Entries]:
        """A segment's keys and the rest of its entries, mapped, checked when first opened or changed since."""
        if segment.file not in self._contents:
            path = self._folder / segment.file
            try:
                stat = _stat(path)
                content = load(path, mapped="r")
            except (OSError, ValueError, EOFError) as error:
                raise IntegrityError(f"cached state {segment.file} cannot be read", why=str(error)) from None
            if stat != segment.stat:
                if xxhash.xxh3_64_hexdigest(as_bytes(content)) != segment.checksum:
                    raise IntegrityError(f"cached state {segment.file} is not what was written")
                self._settle(segment, stat)
            self._contents[segment.file] = content
        keys = self._contents[segment.file][: 8 * segment.rows].view(np.uint64)
        return keys, self._contents[segment.file][8 * segment.rows :].view(_rest(self.tables[segment.table]))

    def _settle(self, segment: Segment, stat: tuple[int, ...]) -> None:
        """Note the stat under which a segment was right; the next `put` keeps the note."""
        if time.time_ns() - max(stat[-2:]) > _SETTLED:
            self._segments = [replace(s, stat=stat) if s.file == segment.file else s for s in self._segments]

    def _read_manifest(self) -> None:
        """Take up what is stored, unless it was made from other data or by another version."""
        try:
            stored = json.loads((self._folder / MANIFEST).read_text())
            segments = [Segment(**{**s, "stat": tuple(s["stat"])}) for s in stored["segments"]]
            newest, address, notes = int(stored["newest"]), str(stored["address"]), dict(stored["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if address == self._chain(newest):
            self.newest, self._segments, self.notes = newest, segments, notes

    def _write_manifest(self) -> None:
        assert self.newest is not None
        stored = {
            "newest": self.newest,
            "address": self._chain(self.newest),
            "notes": self.notes,
            "segments": [asdict(s) for s in self._segments],
        }
        partial = self._folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(stored))
        partial.replace(self._folder / MANIFEST)
        named = {s.file for s in self._segments}
        for path in self._folder.glob("*.npy*"):
            if path.name not in named:
                path.unlink()
                self._contents.pop(path.name, None)


def _stat(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _rest(entry: np.dtype[np.void]) -> np.dtype[np.void]:
    """An entry's record without its key."""
    assert entry.names is not None
    return np.dtype([(name, entry[name]) for name in entry.names[1:]])


def _joined(keys: Keys, values: Entries, entry: np.dtype[np.void]) -> Entries:
    whole = np.empty((len(keys), entry.itemsize), dtype=np.uint8)
    whole[:, :8] = keys.view(np.uint8).reshape(-1, 8)
    whole[:, 8:] = _octets(values)
    return whole.view(entry)[:, 0]


def _sorted(entries: Entries) -> tuple[Keys, Entries]:
    keys = np.ascontiguousarray(entries["key"])
    order = np.argsort(keys)
    rest = np.ascontiguousarray(_octets(entries)[:, 8:])
    return keys[order], rest[order].view(_rest(entries.dtype))[:, 0]


def _octets(entries: Entries) -> Bytes:
    return np.ascontiguousarray(entries).view(np.uint8).reshape(len(entries), entries.dtype.itemsize)


def find(stored: Keys, wanted: Keys) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each wanted key would stand among the stored, which ascend, and whether it does."""
    place = np.searchsorted(stored, wanted)
    place[place == len(stored)] = 0
    return place, stored[place] == wanted if len(stored) else np.zeros(len(wanted), dtype=bool)


def _merged(older: tuple[Keys, Entries], newer: tuple[Keys, Entries]) -> tuple[Keys, Entries]:
    """Both, ascending; what the newer one says of a key replaces what the older one said."""
    stays = ~find(newer[0], older[0])[1]
    place = np.searchsorted(older[0][stays], newer[0]) + np.arange(len(newer[0]))
    from_older = np.ones(int(stays.sum()) + len(newer[0]), dtype=bool)
    from_older[place] = False
    keys = np.empty(len(from_older), dtype=np.uint64)
    values = np.empty(len(from_older), dtype=newer[1].dtype)
    keys[from_older], keys[place] = older[0][stays], newer[0]
    values[from_older], values[place] = older[1][stays], newer[1]
    return keys, values
