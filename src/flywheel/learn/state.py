"""Counters carried through the windows: one pass folds them and looks features up as of the right window.

A block is any run of consecutive windows: one, when a turn closes one more; all of history, when it is built for
the first time. Within a block keys have dense codes and counters live in plain arrays; between blocks they live in
`Segments`. Both give the same bits, for the arithmetic per key is the same.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel.learn import coding, features
from flywheel.learn.coding import Coded, Codes, Places
from flywheel.learn.features import Floats, Matrix, Spec, States
from flywheel.segments import Entries, Segments

VOCABULARY = "vocabulary"
THREAD_ROWS = 50_000  # of a window; in a smaller one threads wait for each other longer than they help
Vocabularies = dict[str, dict[int, tuple[int, int]]]
Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass
class Counters:
    """The counters of one key over a block, dense: place i belongs to `coded.hashes[i]`."""

    coded: Coded
    decay: Floats
    entries: Entries
    known: npt.NDArray[np.bool_]
    dirty: npt.NDArray[np.bool_]

    def take(self, codes: npt.NDArray[Any]) -> tuple[Entries, npt.NDArray[np.bool_]]:
        """Copies of some keys' entries, and which of them are known."""
        return self.entries.take(codes), self.known.take(codes)

    def fold(self, position: int, window: int, labels: Floats, labelled: npt.NDArray[np.bool_]) -> None:
        """Move the counters past one window; only its labelled rows teach, late ones included."""
        if self.coded.offsets is not None:
            lengths = np.diff(self.coded.offsets[position])
            labels, labelled = np.repeat(labels, lengths), np.repeat(labelled, lengths)
        places = self.coded.windows[position]
        taught, counts, sums = coding.tally(places, labels, labelled)
        codes = places.distinct[taught].astype(np.intp)
        entries, known = self.take(codes)
        features.fold(entries, known, window, (counts, sums), self.decay)
        whole = f"V{entries.itemsize}"  # NumPy copies an entry at once if it knows nothing of its fields
        self.entries.view(whole)[codes] = entries.view(whole)
        self.known[codes] = True
        self.dirty[codes] = True

    def snapshot(self) -> Entries:
        """The entries moved since the last snapshot."""
        moved = self.entries.take(np.flatnonzero(self.dirty))
        self.dirty[:] = False
        return moved


def key_columns(spec: Spec) -> list[str]:
    """The columns of a window that folding and looking up need, label and lateness included."""
    keys = dict.fromkeys(c for counter in spec.counters for c in counter.key)
    return list(dict.fromkeys([*keys, *spec.config.numeric, *spec.config.categorical, "label", "late"]))


def advance(
    store: Segments, spec: Spec, windows: Mapping[int, pa.Table], asked: Mapping[int, int | States]
) -> Iterator[tuple[int, Matrix]]:
    """Fold every window newer than the store, and look up the features of the windows asked for.

    Args:
        store: the counters so far; they are moved to the newest of `windows` once the iterator is exhausted.
        spec: what to count.
        windows: consecutive windows by index, from `store.newest + 1` or, where older ones are asked for, before.
        asked: window → the state window that its rows were served from, one for all or one each, as `served_from` says.

    Yields:
        Window and matrix, float32 of shape (rows, len(spec.names)), in the order in which the last state is reached.
    """
    order = sorted(windows)
    tables = [windows[w] for w in order]
    start = order[0] - 1 if store.newest is None else store.newest
    span = order[-1] - int(store.notes.get("first", order[0])) + 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        columns = _code(spec, tables, pool.map)
        vocabularies = _vocabularies(spec, store, order, columns, [coding.known(table) for table in tables])
        rows = [len(t) for t in tables]
        counters = list(
            pool.map(
                lambda i: _dense(store, spec, i, coding.code_counter(spec.counters[i], columns, rows), span),
                range(len(spec.counters)),
            )
        )
        block = _Block(spec, store, order, tables, counters, columns, vocabularies)
        waiting = sorted((int(at), window) for window, states in asked.items() for at in np.unique(states))
        snapshots: list[tuple[int, dict[str, Entries]]] = []
        for at in range(start, order[-1] + 1):
            if at > start:
                block.fold(at, _spread(pool, windows[at]))
                if at >= order[-1] - store.keep:
                    snapshots.append((at, {features.table(i): c.snapshot() for i, c in enumerate(counters)}))
            while waiting and waiting[0][0] <= at:
                known, window = waiting.pop(0)
                yield from block.part(window, known, asked[window], _spread(pool, windows[window]))
    if snapshots:
        store.put(snapshots, {VOCABULARY: vocabularies, "first": store.notes.get("first", order[0])})


def _spread(pool: ThreadPoolExecutor, window: pa.Table) -> Spread:
    """In threads, where a window is large enough for them."""
    return pool.map if len(window) >= THREAD_ROWS else map


def _code(spec: Spec, tables: list[pa.Table], spread: Spread) -> dict[str, Coded]:
    keys = [c for counter in spec.counters for c in counter.key]
    names = list(dict.fromkeys([*keys, *spec.config.categorical]))
    return dict(zip(names, spread(lambda name: coding.code_column(tables, name), names), strict=True))


def _dense(store: Segments, spec: Spec, counter: int, coded: Coded, span: int) -> Counters:
    """The counters of a block's keys as the store has them."""
    if store.newest is None:
        entries = np.zeros(len(coded.hashes), dtype=store.tables[features.table(counter)])
        known = np.zeros(len(entries), dtype=bool)
    else:
        known, entries = store.get(features.table(counter), coded.hashes, store.newest)
    entries["key"] = coded.hashes
    return Counters(coded, spec.decay(counter, span), entries, known, np.zeros(len(entries), dtype=bool))


def _vocabularies(
    spec: Spec,
    store: Segments,
    order: list[int],
    columns: dict[str, Coded],
    known: list[npt.NDArray[np.bool_] | None],
) -> Vocabularies:
    """Number the names of each categorical column in the order in which windows bring them, first come first kept.

    Returns:
        Per column: name's hash → (number, window that brought it).
    """
    limit = spec.config.features.max_categories
    found: Vocabularies = {}
    for name in spec.config.categorical:
        stored = store.notes.get(VOCABULARY, {}).get(name, {})
        numbers = {int(key): (int(number), int(window)) for key, (number, window) in stored.items()}
        hashes = columns[name].hashes
        new = ~np.isin(hashes, np.array(list(numbers), dtype=np.uint64))
        for window, all_places, then in zip(order, columns[name].windows, known, strict=True):
            places = all_places if then is None else coding.those(all_places, then)
            if len(numbers) >= limit or not new[places.distinct].any():
                continue
            for code in _in_order_of_appearance(places):
                if new[code] and len(numbers) < limit:
                    numbers[int(hashes[code])] = (len(numbers), window)
                    new[code] = False
        found[name] = numbers
    return found


def _in_order_of_appearance(places: Places) -> Codes:
    first = _some_row(places, slice(None, None, -1))
    return places.distinct[np.argsort(first)]


def _some_row(places: Places, order: slice = slice(None)) -> npt.NDArray[np.intp]:
    """For each distinct key a row (or value of a list) where it occurs: the last one in this order."""
    row = np.zeros(len(places.distinct) + 1, dtype=np.intp)
    row[places.place[order]] = np.arange(len(places.place))[order]
    return row[:-1]


@dataclass(frozen=True)
class _Block:
    """A run of windows with the counters of every key in them; each counter can be moved and asked by itself."""

    spec: Spec
    store: Segments
    order: list[int]
    tables: list[pa.Table]
    counters: list[Counters]
    columns: dict[str, Coded]
    vocabularies: Vocabularies
    parts: dict[int, Matrix] = field(default_factory=dict)

    def fold(self, window: int, spread: Spread) -> None:
        """Move every counter past a window."""
        position = window - self.order[0]
        labels = self.tables[position].column("label").to_numpy()
        labelled = ~np.isnan(labels)
        if (known := coding.known(self.tables[position])) is not None:
            labelled &= known
        list(spread(lambda counter: counter.fold(position, window, labels, labelled), self.counters))

    def part(self, window: int, at: int, states: int | States, spread: Spread) -> Iterator[tuple[int, Matrix]]:
        """Look up a window's rows that were served from state `at`; yield the window once that is the last of them."""
        made = self.matrix(window, at, spread)
        if np.ndim(states):
            rows = states == at
            whole = self.parts.setdefault(window, made)
            whole[rows] = made[rows]
            made = whole
        if at == np.max(states):
            yield window, self.parts.pop(window, made)

    def matrix(self, window: int, at: int, spread: Spread) -> Matrix:
        """The matrix of a window, from the counters as of window `at`."""
        position = window - self.order[0]
        out = np.empty((len(self.tables[position]), len(self.spec.names)), dtype=np.float32)
        # The global mean is what others lean on; as a column it would only tell the window's date.
        means = {0: self._look(0, position, at, {})[1]}
        families = [(lambda f=f: self._family(f, out, position, at, dict(means))) for f in self.spec.families]
        list(spread(lambda part: part(), [*families, lambda: self._context(out, position, at)]))
        return out

    def _family(self, family: tuple[int, ...], out: Matrix, position: int, at: int, means: dict[int, Floats]) -> None:
        for i in family:
            values, means[i] = self._look(i, position, at, means)
            coded = self.counters[i].coded
            place = coded.windows[position].place
            column = self.spec.first_column[i]
            if coded.offsets is None:
                _scatter(values, place, out, column)
            else:
                averaged = features.average(values.take(place, axis=0), coded.offsets[position])
                out[:, column : column + values.shape[1]] = averaged

    def _look(self, i: int, position: int, at: int, means: dict[int, Floats]) -> tuple[Matrix, Floats]:
        counter = self.counters[i]
        entries, known = self._entries(i, counter.coded.windows[position].distinct, at)
        prior = self._prior(i, position, means)
        return features.lookup(entries, known, at, prior, counter.decay, self.spec.config.features.smoothing)

    def _entries(self, i: int, codes: Codes, at: int) -> tuple[Entries, npt.NDArray[np.bool_]]:
        """Counters as of a window: those in hand, or older ones from the store."""
        counter = self.counters[i]
        if self.store.newest is None or at >= self.store.newest:
            return counter.take(codes)
        if at < self.store.notes["first"]:
            return np.zeros(len(codes), dtype=counter.entries.dtype), np.zeros(len(codes), dtype=bool)
        oldest = self.store.oldest_readable()
        if oldest is None or at < oldest:
            raise LookupError(f"the state as of window {at} is no longer kept")
        known, entries = self.store.get(features.table(i), counter.coded.hashes[codes], at)
        return entries, known

    def _prior(self, i: int, position: int, means: dict[int, Floats]) -> Floats:
        """The mean that each of the counter's keys leans on, shape (half-lives, u) or (half-lives, 1)."""
        child = self.spec.counters[i]
        parent = self.spec.parents[i]
        if parent < 0:
            return np.full((len(child.half_lives), 1), self.spec.prior)
        columns = features.prior_columns(child, self.spec.counters[parent])
        if parent == 0:
            return means[0][columns]
        own, above = self.counters[i].coded, self.counters[parent].coded
        row = _some_row(own.windows[position])
        if own.offsets is not None and above.offsets is None:
            row = np.searchsorted(own.offsets[position], row, side="right") - 1
        leaned: Floats = means[parent][columns].take(above.windows[position].place.take(row), axis=1)
        return leaned

    def _context(self, out: Matrix, position: int, at: int) -> None:
        """Numbers as they are, and names as the numbers that they had by then; one that had none is missing."""
        config = self.spec.config
        column = len(self.spec.names) - len(config.numeric) - len(config.categorical)
        for name in config.numeric:
            out[:, column] = self.tables[position].column(name).to_numpy()
            column += 1
        for name in config.categorical:
            coded, numbers = self.columns[name], self.vocabularies[name]
            places = coded.windows[position]
            keys = [int(key) for key in coded.hashes[places.distinct]]
            known = [numbers.get(key, (np.nan, at)) for key in keys]
            number = [number if since <= at else np.nan for number, since in known]
            out[:, column] = np.array([*number, np.nan], dtype=np.float32).take(places.place)
            column += 1


def _scatter(values: Matrix, place: Codes, out: Matrix, column: int) -> None:
    """Write the line of `values` at each row's place into `out`, from `column` on; as whole lines, which is fast."""
    if len(out):
        line = f"V{values.strides[0]}"
        target = np.ndarray(len(out), line, out.data, column * out.itemsize, out.strides[:1])
        target[:] = values.view(line)[:, 0].take(place)
