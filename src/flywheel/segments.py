"""A sorted table on disk that grows by segments: what a key was last known to be, as of any recent window.

Closing a window writes one small segment with the new values of the keys it touched; nothing older is rewritten.
A read asks the newest segment first. Older segments are merged now and then, so that a key is found in a number
of steps that grows with the logarithm of the history (a log-structured merge tree of `.npy` files).

Everything here is a cache. One file, `manifest.json`, names the segments and their checksums, and is replaced in
one step: a process killed anywhere leaves the old tables or the new ones.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from flywheel.errors import IntegrityError

Keys = npt.NDArray[np.uint64]
Entries = npt.NDArray[np.void]
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Segment:
    """The keys touched since the segment before it, with their values as of window `upto`."""

    table: str
    upto: int
    rows: int
    file: str
    checksum: str


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
        self._arrays: dict[str, Entries] = {}
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
            array = self._array(segment)
            place = np.searchsorted(array["key"], wanted)
            place[place == len(array)] = 0
            hit = array["key"][place] == wanted if len(array) else np.zeros(len(wanted), dtype=bool)
            entries[pending[hit]] = array[place[hit]]
            found[pending[hit]] = True
            pending, wanted = pending[~hit], wanted[~hit]
        return found, entries

    def put(self, blocks: Iterable[tuple[int, Mapping[str, Entries]]], notes: Mapping[str, Any] | None = None) -> None:
        """Add the windows up to each block's, in order: per table the entries of the keys touched, as of that window.

        All blocks become visible in one step, together with `notes`, a JSON object kept beside the tables.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        segments = list(self._segments)
        for upto, tables in blocks:
            segments += [self._write(name, upto, _sorted(tables[name])) for name in self.tables]
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
            a, b = self._array(older), self._array(newer)
            place = np.searchsorted(b["key"], a["key"])
            place[place == len(b)] = 0
            replaced = b["key"][place] == a["key"] if len(b) else np.zeros(len(a), dtype=bool)
            both = _sorted(np.concatenate([a[~replaced], b]))
            old[-2:] = [self._write(older.table, newer.upto, both)]
        return old + young

    def _write(self, table: str, upto: int, entries: Entries) -> Segment:
        checksum = xxhash.xxh3_64_hexdigest(as_bytes(entries))
        file = f"{table}.{upto}.{checksum}.npy"
        partial = self._folder / f"{file}.partial"
        with partial.open("wb") as stream:
            np.save(stream, entries)
        partial.replace(self._folder / file)
        self._arrays[file] = entries
        return Segment(table, upto, len(entries), file, checksum)

    def _array(self, segment: Segment) -> Entries:
        """A segment's entries, mapped, checked against its checksum when first opened."""
        if segment.file not in self._arrays:
            path = self._folder / segment.file
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise IntegrityError(f"cached state {segment.file} cannot be read", why=str(error)) from None
            if xxhash.xxh3_64_hexdigest(as_bytes(array)) != segment.checksum:
                raise IntegrityError(f"cached state {segment.file} is not what was written")
            self._arrays[segment.file] = array
        return self._arrays[segment.file]

    def _read_manifest(self) -> None:
        """Take up what is stored, unless it was made from other data or by another version."""
        try:
            stored = json.loads((self._folder / MANIFEST).read_text())
            segments = [Segment(**s) for s in stored["segments"]]
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
                self._arrays.pop(path.name, None)


def _sorted(entries: Entries) -> Entries:
    return entries[np.argsort(entries["key"], kind="stable")]
