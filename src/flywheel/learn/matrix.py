"""The feature matrix of each window, cached under the address of everything it was made from.

A file is called `<window>-<address>-<checksum>.npy`: the address covers the dataset up to the window, the config
that features depend on and the code that makes them, and the checksum the bytes. A file whose bytes do not fit its
name is not believed and made again.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from flywheel.config import Config
from flywheel.errors import DataError, IntegrityError
from flywheel.learn import coding, custom, features, state
from flywheel.learn.custom import Custom
from flywheel.learn.features import Matrix, Spec, States
from flywheel.segments import MANIFEST, Entries, Keys, Segments, as_bytes

Read = Callable[[int, list[str]], pa.Table]
BLOCK_ROWS = 10_000_000  # rows whose keys are held in memory at once: about 16 bytes each per counter
TURN_WINDOWS = 7  # a wheel turned weekly with daily windows serves from a state so much older


@dataclass(frozen=True)
class Recipe:
    """How the columns of a matrix are made, and what they are called."""

    spec: Spec
    custom: Custom

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return (*self.spec.names, *self.custom.names)

    @property
    def types(self) -> tuple[str, ...]:
        """XGBoost's type of each column."""
        return (*self.spec.types, *("q",) * len(self.custom.names))

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the config, the code and the functions that make the columns."""
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (coding, features, state, custom))
        config = self.spec.config.fingerprint("contract", "attributes", "windows", "features")
        return hashlib.sha256(b"\0".join([code, config.encode(), self.custom.fingerprint.encode()])).hexdigest()[:12]


def recipe(config: Config, root: Path) -> Recipe:
    """The recipe of the workspace at `root`.

    Raises:
        ConfigError: its features.py cannot be imported, or names a column that is there already.
    """
    own = custom.load(root)
    made = Recipe(Spec(config), own)
    twice = sorted({name for name in made.names if made.names.count(name) > 1})
    if twice:
        raise DataError(
            f"the column {twice[0]} is made twice",
            where=custom.FILE,
            next=f"rename {twice[0]} in {custom.FILE}",
        )
    return made


@dataclass(frozen=True, eq=False)
class Known:
    """The state that a ranker serves from: counters by table as sorted keys and entries, and each name's number."""

    window: int
    counters: dict[str, tuple[Keys, Entries]]
    vocabularies: dict[str, dict[int, int]]


@dataclass(frozen=True)
class Cache:
    """The matrices and counters of one recipe over one dataset.

    Args:
        folder: `.flywheel`, all of which may be deleted.
        recipe: how columns are made.
        chain: the address of the dataset up to each closed window, by index, oldest first.
        read: gives some columns of a closed window.
    """

    folder: Path
    recipe: Recipe
    chain: dict[int, str]
    read: Read
    _files: dict[str, Path] = field(default_factory=dict, init=False, repr=False, compare=False)

    def build(self, windows: list[int], progress: Callable[[int], None] = lambda _: None) -> None:
        """Make the matrices of `windows` that are missing, and bring the counters up to the newest closed window.

        A cache that is damaged is dropped and built again from the dataset.
        """
        asked = {w: self._served_from(w) for w in windows if self._find(w) is None}
        try:
            self._advance(self._store(), asked, progress)
        except (IntegrityError, LookupError):
            asked = {w: states for w, states in asked.items() if self._find(w) is None}
            self._advance(self._fresh_store(asked), asked, progress)

    def load(self, window: int) -> Matrix:
        """The matrix of a window, float32 of shape (rows, len(recipe.names)); made again if it is damaged."""
        path = self._find(window)
        matrix = None if path is None else _read(path)
        if matrix is None:
            if path is not None:
                path.unlink()
            self.build([window])
            path = self._find(window)
            assert path is not None
            matrix = np.load(path, allow_pickle=False)
        return matrix

    def vocabulary(self, upto: int) -> dict[str, int]:
        """How many names of each categorical column were known as of window `upto`: codes from there on are new."""
        notes = self._store().notes.get(state.VOCABULARY, {})
        return {name: sum(w <= upto for _, w in numbers.values()) for name, numbers in notes.items()}

    def known(self, at: int | None = None) -> Known | None:
        """What is known as of a window, without one the newest folded; None while nothing is. Not while one is built.

        Raises:
            IntegrityError: the counters are damaged, or were replaced meanwhile.
            LookupError: the window is not folded yet, or so old that it is not kept apart any more.
        """
        store = self._store()
        if store.newest is None:
            if at is None:
                return None
            raise LookupError("no window is folded yet")
        at = store.newest if at is None else at
        if at < int(store.notes["first"]):
            return None
        if not store.newest - store.keep <= at <= store.newest:
            raise LookupError(f"the state as of window {at} is not kept apart")
        vocabularies = {
            column: {int(key): number for key, (number, window) in numbers.items() if window <= at}
            for column, numbers in store.notes.get(state.VOCABULARY, {}).items()
        }
        return Known(at, {name: _as_of(store, name, at) for name in store.tables}, vocabularies)

    def _served_from(self, window: int) -> int | States:
        """The states that a window's rows are looked up as of."""
        grid = self.recipe.spec.config.windows.grid
        try:
            table = self.read(window, ["ts", "state"])
        except DataError:  # written before anybody was served
            return window - grid.lag
        ts, logged = (table.column(name).combine_chunks().cast(pa.int64()) for name in ("ts", "state"))
        known = logged.is_valid().to_numpy(zero_copy_only=False)
        return features.served_from(window, grid, ts.to_numpy(), logged.fill_null(0).to_numpy(), known)

    def _advance(self, store: Segments, asked: dict[int, int | States], progress: Callable[[int], None]) -> None:
        for block in self._blocks(store, list(asked)):
            tables = {w: self.read(w, self._columns(w in asked)) for w in block}
            states = {w: asked[w] for w in block if w in asked}
            for window, matrix in state.advance(store, self.recipe.spec, tables, states):
                self._write(
                    window,
                    np.hstack([matrix, self._own(tables[window])]) if self.recipe.custom.names else matrix,
                )
                progress(len(matrix))

    def _blocks(self, store: Segments, missing: list[int]) -> Iterator[dict[int, None]]:
        """Runs of consecutive windows, from the first that is missing or not yet folded to the newest closed one."""
        newest = -(1 << 62) if store.newest is None else store.newest
        todo = [w for w in self.chain if w > newest or (missing and w >= missing[0])]
        block: dict[int, None] = {}
        rows = 0
        for window in todo:
            block[window] = None
            rows += self.read(window, ["label"]).num_rows
            if rows >= BLOCK_ROWS and window > newest:
                yield block
                block, rows = {}, 0
        if block:
            yield block

    def _columns(self, asked: bool) -> list[str]:
        """The columns to read of a window; its own functions may ask for any that is known at the time."""
        needed = state.key_columns(self.recipe.spec)
        if not (asked and self.recipe.custom.names):
            return needed
        return list(dict.fromkeys([*needed, *self.recipe.spec.offered]))

    def _own(self, table: pa.Table) -> Matrix:
        return self.recipe.custom.matrix(table.select(self.recipe.spec.offered).to_pandas())

    def _store(self, keep: int = 0) -> Segments:
        folder = self.folder / "state" / self.recipe.fingerprint
        keep = max(keep, self.recipe.spec.config.windows.grid.lag + TURN_WINDOWS)
        return Segments(folder, self.recipe.spec.tables, keep=keep, chain=self.chain.get)

    def _fresh_store(self, asked: dict[int, int | States]) -> Segments:
        """A store with nothing in it, which will keep apart the oldest state that is asked for."""
        (self.folder / "state" / self.recipe.fingerprint / MANIFEST).unlink(missing_ok=True)
        first = min(self.chain, default=0)
        return self._store(max((w - max(int(np.min(states)), first) for w, states in asked.items()), default=0))

    def _stem(self, window: int) -> str:
        address = hashlib.sha256(f"{self.recipe.fingerprint}/{self.chain[window]}".encode()).hexdigest()[:12]
        return f"{self.recipe.spec.config.windows.grid.name(window)}-{address}"

    def _find(self, window: int) -> Path | None:
        stem = self._stem(window)
        if stem not in self._files or not self._files[stem].exists():
            self._files.clear()  # and listed again, all at once: a glob for each window costs the windows squared
            self._files.update(
                (path.stem.rpartition("-")[0], path) for path in (self.folder / "features").glob("*.npy")
            )
        return self._files.get(stem)

    def _write(self, window: int, matrix: Matrix) -> None:
        matrix = np.ascontiguousarray(matrix)
        folder = self.folder / "features"
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{self._stem(window)}.partial"
        with partial.open("wb") as stream:
            np.save(stream, matrix)
        partial.replace(folder / f"{self._stem(window)}-{_checksum(matrix)}.npy")


def _as_of(store: Segments, table: str, at: int) -> tuple[Keys, Entries]:
    """The keys of a table that were known as of a window, ascending, and their entries."""
    keys, entries = store.merged(table)
    if at == store.newest:
        return keys, entries
    known, entries = store.get(table, keys, at)
    return keys[known], entries[known]


def _checksum(matrix: Matrix) -> str:
    return xxhash.xxh3_64_hexdigest(as_bytes(matrix))


def _read(path: Path) -> Matrix | None:
    """A cached matrix, or None where the bytes are not those that the name promises."""
    try:
        matrix: Matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return matrix if path.stem.endswith(_checksum(matrix)) else None
