"""The feature matrix of each window, cached under the address of everything it was made from.

A file is called `<window>-<address>-<checksum>.npy`: the address covers the dataset up to the window, the config
that features depend on and the code that makes them, and the checksum the bytes. A file whose bytes do not fit its
name is not believed and made again.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from flywheel import exchange
from flywheel.config import Config
from flywheel.errors import DataError, IntegrityError
from flywheel.learn import block, coding, custom, features, state
from flywheel.learn.custom import Custom
from flywheel.learn.features import Matrix, Spec, States
from flywheel.segments import MANIFEST, Entries, Keys, Segments, as_bytes, load

Read = Callable[[int, list[str]], pa.Table]
Advance = Callable[..., Any]  # does for a cache what `Cache.advance` does
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
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (block, coding, features, state, custom))
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

    def build(
        self,
        windows: list[int],
        progress: Callable[[int], None] = lambda _: None,
        advance: Advance | None = None,
    ) -> None:
        """Make the matrices of `windows` that are missing, and bring the counters up to the newest closed window.

        A cache that is damaged is dropped and built again from the dataset. `advance` does it elsewhere than here.
        """
        go = Cache.advance if advance is None else advance
        try:
            go(self, self._missing(windows), progress, fresh=False)
        except (IntegrityError, LookupError):
            go(self, self._missing(windows), progress, fresh=True)

    def _missing(self, windows: list[int]) -> list[int]:
        folder = self.folder / "features"
        made = {path.stem.rpartition("-")[0] for path in (*folder.glob("*.npy"), *exchange.names(folder))}
        return [w for w in windows if self.stem(w) not in made]

    def drop(self, windows: list[int]) -> None:
        """Forget the matrices of some windows."""
        for path in (path for window in windows if (path := self._find(window)) is not None):
            path.unlink(missing_ok=True)
            exchange.drop(path)

    def load(self, window: int) -> Matrix:
        """The matrix of a window, float32 of shape (rows, len(recipe.names)); made again if it is damaged."""
        path = self._find(window)
        matrix = None if path is None else _read(path)
        if matrix is None:
            self.drop([window])
            self.build([window])
            path = self._find(window)
            assert path is not None
            matrix = load(path)
        return matrix

    def vocabulary(self, upto: int) -> dict[str, int]:
        """How many names of each categorical column were known as of window `upto`: codes from there on are new."""
        notes = self.store().notes.get(state.VOCABULARY, {})
        return {name: sum(w <= upto for _, w in numbers.values()) for name, numbers in notes.items()}

    def known(self, at: int | None = None) -> Known | None:
        """What is known as of a window, without one the newest folded; None while nothing is. Not while one is built.

        Raises:
            IntegrityError: the counters are damaged, or were replaced meanwhile.
            LookupError: the window is not folded yet, or so old that it is not kept apart any more.
        """
        store = self.store()
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

    def served_from(self, window: int) -> int | States:
        """The states that a window's rows are looked up as of."""
        grid = self.recipe.spec.config.windows.grid
        try:
            table = self.read(window, ["ts", "state"])
        except DataError:  # written before anybody was served
            return window - grid.lag
        ts, logged = (table.column(name).combine_chunks().cast(pa.int64()) for name in ("ts", "state"))
        known = logged.is_valid().to_numpy(zero_copy_only=False)
        return features.served_from(window, grid, ts.to_numpy(), logged.fill_null(0).to_numpy(), known)

    def advance(self, missing: Sequence[int], progress: Callable[[int], None], *, fresh: bool) -> None:
        """Fold every window that is not yet, and make matrices that are missing; `fresh` begins with no counters."""
        if fresh:
            self.forget()
        asked = {w: self.served_from(w) for w in missing}
        keep = self.kept({w: int(np.min(states)) for w, states in asked.items()}) if fresh else 0
        store = self.store(keep)
        for run in self.runs(store, missing, lambda window: self.read(window, ["label"]).num_rows):
            tables = {w: self.read(w, self.columns(asked=w in asked)) for w in run}
            states = {w: asked[w] for w in run if w in asked}
            for window, matrix in state.advance(store, self.recipe.spec, tables, states):
                self.write(window, matrix, tables[window])
                progress(len(matrix))

    def todo(self, store: Segments, missing: Sequence[int]) -> list[int]:
        """The windows from the first that is missing or not yet folded to the newest closed one."""
        newest = -(1 << 62) if store.newest is None else store.newest
        return [w for w in self.chain if w > newest or (missing and w >= missing[0])]

    def runs(self, store: Segments, missing: Sequence[int], rows: Callable[[int], int]) -> Iterator[list[int]]:
        """The same, cut where the keys of so many rows are held at once; an older window than the store's is no end."""
        newest = -(1 << 62) if store.newest is None else store.newest
        run: list[int] = []
        held = 0
        for window in self.todo(store, missing):
            run.append(window)
            held += rows(window)
            if held >= BLOCK_ROWS and window > newest:
                yield run
                run, held = [], 0
        if run:
            yield run

    def columns(self, *, asked: bool) -> list[str]:
        """The columns to read of a window; its own functions may ask for any that is known at the time."""
        needed = state.key_columns(self.recipe.spec)
        if not (asked and self.recipe.custom.names):
            return needed
        return list(dict.fromkeys([*needed, *self.recipe.spec.offered]))

    def _own(self, table: pa.Table) -> Matrix:
        return self.recipe.custom.matrix(table.select(self.recipe.spec.offered).to_pandas())

    @property
    def counters(self) -> Path:
        """Where the counters are."""
        return self.folder / "state" / self.recipe.fingerprint

    def store(self, keep: int = 0) -> Segments:
        """The counters; at least `keep` windows of them are kept apart."""
        keep = max(keep, self.recipe.spec.config.windows.grid.lag + TURN_WINDOWS)
        return Segments(self.counters, self.recipe.spec.tables, keep=keep, chain=self.chain.get)

    def forget(self) -> None:
        """Begin the counters again with nothing in them."""
        (self.counters / MANIFEST).unlink(missing_ok=True)

    def kept(self, oldest: dict[int, int]) -> int:
        """How many windows to keep apart so that the oldest state that each window asks for is."""
        first = min(self.chain, default=0)
        return max((w - max(at, first) for w, at in oldest.items()), default=0)

    def stem(self, window: int) -> str:
        """What the files of a window are called after: its name, and the address of all that they are made from."""
        address = hashlib.sha256(f"{self.recipe.fingerprint}/{self.chain[window]}".encode()).hexdigest()[:12]
        return f"{self.recipe.spec.config.windows.grid.name(window)}-{address}"

    def _find(self, window: int) -> Path | None:
        stem = self.stem(window)
        if stem not in self._files or not self._files[stem].exists():
            self._files.clear()  # and listed again, all at once: a glob for each window costs the windows squared
            self._files.update(
                (path.stem.rpartition("-")[0], path) for path in (self.folder / "features").glob("*.npy")
            )
        elsewhere = exchange.names(self.folder / "features", f"{stem}-") if stem not in self._files else ()
        return next(iter(elsewhere), self._files.get(stem))

    def write(self, window: int, matrix: Matrix, table: pa.Table) -> None:
        """Keep the matrix of a window's rows, with its own functions' columns."""
        if self.recipe.custom.names:
            matrix = np.hstack([matrix, self._own(table)])
        matrix = np.ascontiguousarray(matrix)
        folder = self.folder / "features"
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{self.stem(window)}.{secrets.token_hex(4)}.partial"  # two workers may make the same
        with partial.open("wb") as stream:
            np.save(stream, matrix)
        path = folder / f"{self.stem(window)}-{_checksum(matrix)}.npy"
        partial.replace(path)
        exchange.send([path], anew=True)


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
    exchange.bring([path])
    try:
        matrix: Matrix = load(path)
    except (OSError, ValueError, EOFError):
        return None
    return matrix if path.stem.endswith(_checksum(matrix)) else None
