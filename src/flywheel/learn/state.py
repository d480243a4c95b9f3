"""Counters carried through the windows: one pass folds them and looks features up as of the right window.

A block is any run of consecutive windows: one, when a turn closes one more; all of history, when it is built for
the first time. Within a block keys have dense codes and counters live in plain arrays; between blocks they live in
`Segments`. Both give the same bits, for the arithmetic per key is the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel.learn import features
from flywheel.learn.features import Coded, Codes, Column, Floats, Matrix, Spec
from flywheel.segments import Entries, Segments

VOCABULARY = "vocabulary"


@dataclass
class Counters:
    """The counters of one key over a block, dense: place i belongs to `coded.hashes[i]`."""

    coded: Coded
    entries: Entries
    known: npt.NDArray[np.bool_]
    dirty: npt.NDArray[np.bool_]


def key_columns(spec: Spec) -> list[str]:
    """The columns of a window that folding and looking up need, label and lateness included."""
    keys = dict.fromkeys(c for counter in spec.counters for c in counter.key)
    return list(dict.fromkeys([*keys, *spec.config.numeric, *spec.config.categorical, "label", "late"]))


def advance(
    store: Segments, spec: Spec, windows: Mapping[int, pa.Table], asked: Mapping[int, int]
) -> Iterator[tuple[int, Matrix]]:
    """Fold every window newer than the store, and look up the features of the windows asked for.

    Args:
        store: the counters so far; they are moved to the newest of `windows` once the iterator is exhausted.
        spec: what to count.
        windows: consecutive windows by index, from `store.newest + 1` or, where older ones are asked for, before.
        asked: window → the state window its decisions could have been served from.

    Yields:
        Window and matrix, float32 of shape (rows, len(spec.names)), in the order in which states are reached.
    """
    order = sorted(windows)
    tables = [windows[w] for w in order]
    position = {w: i for i, w in enumerate(order)}
    start = order[0] - 1 if store.newest is None else store.newest
    columns = _code(spec, tables)
    vocabularies = _vocabularies(spec, store, order, columns)
    rows = [len(t) for t in tables]
    counters = [_dense(store, i, features.code_counter(c, columns, rows), start) for i, c in enumerate(spec.counters)]
    span = max(order[-1], *asked, order[0]) - order[0] + 1 if store.newest is None else _span(store, order)
    decays = [spec.decay(i, span) for i in range(len(counters))]
    look = _Look(spec, store, counters, decays, columns, vocabularies)

    if store.newest is None:
        asked = {window: max(at, start) for window, at in asked.items()}  # before all data nothing is known
    for window, at in sorted(asked.items()):
        if at < start:
            yield window, look.matrix(tables[position[window]], position[window], at, dense=False)
    waiting = sorted((at, window) for window, at in asked.items() if at >= start)
    snapshots: list[tuple[int, dict[str, Entries]]] = []
    for at in range(start, order[-1] + 1):
        if at > start:
            _fold(counters, decays, tables[position[at]], position[at], at)
            if at >= order[-1] - store.keep:
                snapshots.append((at, _snapshot(counters)))
        while waiting and waiting[0][0] == at:
            window = waiting.pop(0)[1]
            yield window, look.matrix(tables[position[window]], position[window], at, dense=True)
    if snapshots:
        store.put(snapshots, {VOCABULARY: vocabularies, "first": store.notes.get("first", order[0])})


def _span(store: Segments, order: list[int]) -> int:
    return max(order) - int(store.notes["first"]) + 1


def _code(spec: Spec, tables: list[pa.Table]) -> dict[str, Column]:
    names = dict.fromkeys(c for counter in spec.counters for c in counter.key)
    return {
        name: features.code_column(tables, name)
        for name in [*names, *(c for c in spec.config.categorical if c not in names)]
    }


def _dense(store: Segments, counter: int, coded: Coded, at: int) -> Counters:
    """Bring the counters of a block's keys in from the store."""
    if store.newest is None:
        entries = np.zeros(len(coded.hashes), dtype=store.tables[features.table(counter)])
        known = np.zeros(len(entries), dtype=bool)
    else:
        known, entries = store.get(features.table(counter), coded.hashes, at)
    entries["key"] = coded.hashes
    return Counters(coded, entries, known, np.zeros(len(entries), dtype=bool))


def _fold(counters: list[Counters], decays: list[Floats], table: pa.Table, position: int, window: int) -> None:
    """Move the counters past one window; only its labelled rows teach, late ones included."""
    labels = table.column("label").to_numpy()
    labelled = ~np.isnan(labels)
    for counter, decay in zip(counters, decays, strict=True):
        codes, values, taught = counter.coded.codes[position], labels, labelled
        if counter.coded.offsets is not None:
            lengths = np.diff(counter.coded.offsets[position])
            values, taught = np.repeat(labels, lengths), np.repeat(labelled, lengths)
        if not taught.all():
            codes, values = codes[taught], values[taught]
        distinct, place = features.touched(codes, len(counter.entries))
        counts = np.bincount(place, minlength=len(distinct))[: len(distinct)].astype(np.float64)
        sums: Floats = np.bincount(place, weights=values, minlength=len(distinct))[: len(distinct)].astype(np.float64)
        before, known = counter.entries[distinct], counter.known[distinct]
        counter.entries[distinct] = features.fold(before, known, window, (counts, sums), decay)
        counter.known[distinct] = True
        counter.dirty[distinct] = True


def _snapshot(counters: list[Counters]) -> dict[str, Entries]:
    taken = {features.table(i): c.entries[c.dirty] for i, c in enumerate(counters)}
    for counter in counters:
        counter.dirty[:] = False
    return taken


def _vocabularies(
    spec: Spec, store: Segments, order: list[int], columns: dict[str, Column]
) -> dict[str, dict[int, tuple[int, int]]]:
    """Number the names of each categorical column in the order in which windows bring them, first come first kept.

    Returns:
        Per column: name's hash → (number, window that brought it).
    """
    limit = spec.config.features.max_categories
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for name in spec.config.categorical:
        stored = store.notes.get(VOCABULARY, {}).get(name, {})
        numbers = {int(key): (int(number), int(window)) for key, (number, window) in stored.items()}
        column = columns[name]
        for window, codes in zip(order, column.codes, strict=True):
            for code in _in_order_of_appearance(codes):
                key = int(column.hashes[code])
                if key not in numbers and len(numbers) < limit:
                    numbers[key] = (len(numbers), window)
        found[name] = numbers
    return found


def _in_order_of_appearance(codes: Codes) -> Codes:
    distinct, first = np.unique(codes, return_index=True)
    ordered: Codes = distinct[np.argsort(first)]
    return ordered[ordered >= 0]


@dataclass(frozen=True)
class _Look:
    """Looks the rows of a window up: the columns of every counter, then context."""

    spec: Spec
    store: Segments
    counters: list[Counters]
    decays: list[Floats]
    columns: dict[str, Column]
    vocabularies: dict[str, dict[int, tuple[int, int]]]

    def matrix(self, table: pa.Table, position: int, at: int, *, dense: bool) -> Matrix:
        """The matrix of the window at `position`, from the counters as of window `at`."""
        out = np.empty((len(table), len(self.spec.names)), dtype=np.float32)
        column = 0
        means: list[Floats] = []
        places: list[Codes] = []
        for i, counter in enumerate(self.counters):
            codes = counter.coded.codes[position]
            distinct, place = features.touched(codes, len(counter.entries))
            entries, known = self._entries(i, distinct, at, dense=dense)
            prior = self._prior(i, distinct, place, means, places, position)
            ages = np.where(known, at - entries["last"], 0)
            counts, smoothed = features.means(entries, ages, prior, self.decays[i], self.spec.config.features.smoothing)
            means.append(smoothed)
            places.append(place)
            if i == 0:
                continue  # the global mean is what others lean on; as a column it would only tell the window's date
            block = features.lookup(entries, known, at, counts, smoothed)
            offsets = None if counter.coded.offsets is None else counter.coded.offsets[position]
            out[:, column : column + block.shape[1]] = (
                block[place] if offsets is None else _average(block[place], offsets)
            )
            column += block.shape[1]
        self._context(out, column, table, position)
        return out

    def _entries(self, i: int, distinct: Codes, at: int, *, dense: bool) -> tuple[Entries, npt.NDArray[np.bool_]]:
        counter = self.counters[i]
        if dense:
            return counter.entries[distinct], counter.known[distinct]
        if at < self.store.notes["first"]:
            return np.zeros(len(distinct), dtype=counter.entries.dtype), np.zeros(len(distinct), dtype=bool)
        oldest = self.store.oldest_readable()
        if oldest is None or at < oldest:
            raise LookupError(f"the state as of window {at} is no longer kept")
        known, entries = self.store.get(features.table(i), counter.coded.hashes[distinct], at)
        return entries, known

    def _prior(
        self, i: int, distinct: Codes, place: Codes, means: list[Floats], places: list[Codes], position: int
    ) -> Floats:
        """The mean that each of the counter's keys leans on, shape (u, half-lives)."""
        child = self.spec.counters[i]
        parent = self.spec.parents[i]
        if parent < 0:
            return np.full((len(distinct), len(child.half_lives)), self.spec.prior)
        columns = features.prior_columns(child, self.spec.counters[parent])
        if parent == 0:
            return (
                np.broadcast_to(means[0][0, columns], (len(distinct), len(columns)))
                if len(distinct)
                else np.empty((0, len(columns)))
            )
        example = np.zeros(len(distinct) + 1, dtype=np.int64)  # any row where the key occurs
        example[place] = np.arange(len(place))
        example = example[:-1]
        own, parents = self.counters[i].coded.offsets, self.counters[parent].coded.offsets
        if own is not None and parents is None:
            example = np.searchsorted(own[position], example, side="right") - 1
        leaned: Floats = means[parent][places[parent][example]][:, columns]
        return leaned

    def _context(self, out: Matrix, column: int, table: pa.Table, position: int) -> None:
        for name in self.spec.config.numeric:
            out[:, column] = table.column(name).to_numpy()
            column += 1
        for name in self.spec.config.categorical:
            coded, numbers = self.columns[name], self.vocabularies[name]
            number = np.array(
                [numbers.get(int(key), (np.nan, 0))[0] for key in coded.hashes] + [np.nan], dtype=np.float32
            )
            out[:, column] = number[coded.codes[position]]
            column += 1


def _average(values: Matrix, offsets: npt.NDArray[np.int64]) -> Matrix:
    """Average the columns over the values that each row owns; NaN where it owns none that is known."""
    out = np.full((len(offsets) - 1, values.shape[1]), np.nan, dtype=np.float32)
    filled = np.diff(offsets) > 0
    if not filled.any():
        return out
    known = ~np.isnan(values)
    starts = offsets[:-1][filled]
    sums = np.add.reduceat(np.where(known, values, 0), starts, axis=0)
    counts = np.add.reduceat(known, starts, axis=0, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[filled] = sums / counts
    return out
