"""Which event ids the dataset holds already, and how many users: indices of hashes, kept beside it and rebuildable."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.errors import IntegrityError
from flywheel.segments import MANIFEST, Keys, Segments, entry_type, find, hash_names

TABLE = "ids"
USERS = "users"
Read = Callable[[int], pa.ChunkedArray]
T = TypeVar("T")


class Ids:
    """The ids of all closed windows, every hit confirmed by the id itself; brought up to date when it is opened.

    Args:
        folder: where the index is kept; it may be deleted.
        chain: the address of the dataset up to each closed window, by index, oldest first.
        read: the event ids of a closed window.
    """

    def __init__(self, folder: Path, chain: dict[int, str], read: Read) -> None:
        self._folder, self._chain, self._read = folder, dict(chain), read
        self._store = self._open()
        self._catch_up()

    def known(self, ids: pa.ChunkedArray, before: int | None = None) -> pa.Array:
        """For each id whether the dataset holds it, or did before a window, as booleans in the order given."""
        if self._store.newest is None or not len(ids):
            return pa.array(np.zeros(len(ids), dtype=bool))
        encoded = ids.combine_chunks().dictionary_encode()
        try:
            found, entries = self._store.get(TABLE, hash_names(encoded.dictionary.to_pylist()), self._store.newest)
        except IntegrityError:
            self._store = self._open(fresh=True)
            self._catch_up()
            return self.known(ids, before)
        held = np.zeros(len(found), dtype=bool)
        if before is not None:
            found &= entries["window"] < before
        for window in np.unique(entries["window"][found]):
            place = np.flatnonzero(found & (entries["window"] == window))
            held[place] = pc.is_in(encoded.dictionary.take(pa.array(place)), value_set=self._read(int(window)))
        return pa.array(held[encoded.indices.to_numpy()])

    def add(self, window: int, address: str, held: Keys | None = None) -> None:
        """Take up a window that has just been closed, now that the dataset's address is `address`.

        Its ids are read, unless `held` has their `hashes`.
        """
        self._chain[window] = address
        if held is not None:
            self._put(window, held)
        self._catch_up()

    def heal(self) -> None:
        """Make the index again if any of it is damaged, for those who only read it."""
        self.known(pa.chunked_array([[""]]))  # no event has this id, so all of the index is asked

    def _open(self, *, fresh: bool = False) -> Segments:
        if fresh:
            (self._folder / MANIFEST).unlink(missing_ok=True)
        return Segments(self._folder, {TABLE: entry_type([("window", "<i4")])}, keep=0, chain=self._chain_of)

    def _chain_of(self, window: int) -> str | None:
        return self._chain.get(window)

    def _catch_up(self) -> None:
        newest = self._store.newest
        for window in [w for w in self._chain if newest is None or w > newest]:
            self._put(window, hashes(self._read(window)))

    def _put(self, window: int, held: Keys) -> None:
        entries = np.zeros(len(held), dtype=self._store.tables[TABLE])
        entries["key"], entries["window"] = held, window
        self._store.put([(window, {TABLE: entries})])


def hashes(ids: pa.ChunkedArray) -> Keys:
    """The hashes of the ids, each once, ascending."""
    return np.unique(hash_names(ids.to_pylist()))


def repeated(brought: Sequence[Keys], read: Read) -> list[list[str]]:
    """For each of some windows in order, the ids that it brings and one before it holds, sorted.

    Two ids may have one hash: then there may be ids among them that the window does not bring.

    Args:
        brought: for each window, the `hashes` of the ids that it was offered.
        read: the ids that a window holds of those, by its place among them.
    """
    keys, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *brought]), return_counts=True)
    shared = keys[counts > 1]
    held: dict[int, set[str]] = {}
    found = []
    for window, mine in enumerate(brought):
        common = mine[find(shared, mine)[1]]
        found.append(sorted(name for key in common.tolist() for name in held.get(key, ())))
        names = read(window).to_pylist() if len(common) else []
        hashed = hash_names(names)
        for place in np.flatnonzero(find(shared, hashed)[1]):
            held.setdefault(int(hashed[place]), set()).add(names[place])
    return found


class Users:
    """Since when each user has rows in the dataset; only windows that are new are read for it.

    Args:
        folder: where the index is kept; it may be deleted.
        chain: the address of the dataset up to each closed window, by index, oldest first.
        read: the users of the rows of a closed window.
    """

    def __init__(self, folder: Path, chain: dict[int, str], read: Read) -> None:
        self._folder, self._chain, self._read = folder, chain, read

    def until(self, window: int) -> int:
        """How many users have a row in a closed window up to and with this one."""
        return self._found(lambda store: _counts(store)[window])

    def first(self, users: list[str]) -> npt.NDArray[np.int32]:
        """Of each user the first window with a row; the newest of all where there is none."""

        def found(store: Segments) -> npt.NDArray[np.int32]:
            newest = max(self._chain)
            known, entries = store.get(USERS, hash_names(users), newest)
            return np.where(known, entries["first"], np.int32(newest))

        return self._found(found)

    def _found(self, ask: Callable[[Segments], T]) -> T:
        """What an index that is up to date answers; a damaged one is made again."""
        try:
            return ask(self._caught_up())
        except IntegrityError:
            (self._folder / MANIFEST).unlink()
            return ask(self._caught_up())

    def _caught_up(self) -> Segments:
        store = Segments(self._folder, {USERS: entry_type([("first", "<i4")])}, keep=0, chain=self._chain.get)
        counts = _counts(store)
        for window in self._chain:
            if store.newest is not None and window <= store.newest:
                continue
            hashes = hash_names(self._read(window).unique().drop_null().to_pylist())
            new = hashes if store.newest is None else hashes[~store.get(USERS, hashes, store.newest)[0]]
            entries = np.zeros(len(new), dtype=store.tables[USERS])
            entries["key"], entries["first"] = new, window
            counts[window] = max(counts.values(), default=0) + len(new)
            store.put([(window, {USERS: entries})], {USERS: counts})
        return store


def _counts(store: Segments) -> dict[int, int]:
    return {int(window): int(count) for window, count in store.notes.get(USERS, {}).items()}
