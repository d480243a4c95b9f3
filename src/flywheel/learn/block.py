"""A run of windows with the counters of every key in them, dense: folded, and looked up, window by window."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel.learn import coding, features
from flywheel.learn.coding import Coded, Codes, Places, Tally
from flywheel.learn.features import Floats, Matrix, Spec, States
from flywheel.segments import Entries, Segments

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

    def fold(self, position: int, window: int, tally: Tally) -> None:
        """Move the counters past one window, of which `tally` says what its labelled rows teach."""
        taught, counts, sums = tally
        codes = self.coded.windows[position].distinct[taught].astype(np.intp)
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


def code(spec: Spec, tables: list[pa.Table], spread: Spread = map) -> tuple[dict[str, Coded], list[Coded]]:
    """Code the columns of a run of windows that keys are made of, and the keys of each counter."""
    keys = [c for counter in spec.counters for c in counter.key]
    names = list(dict.fromkeys([*keys, *spec.config.categorical]))
    columns = dict(zip(names, spread(lambda name: coding.code_column(tables, name), names), strict=True))
    rows = [len(t) for t in tables]
    return columns, list(spread(lambda counter: coding.code_counter(counter, columns, rows), spec.counters))


def tallied(table: pa.Table, coded: Sequence[Coded], position: int, spread: Spread = map) -> Iterable[Tally]:
    """What a window teaches each counter: its labelled rows do, late ones included, if they were known at its close."""
    labels = table.column("label").to_numpy()
    labelled = ~np.isnan(labels)
    if (known := coding.known(table)) is not None:
        labelled &= known
    return spread(lambda keys: coding.tally(keys, position, labels, labelled), coded)


def some_row(places: Places, order: slice = slice(None)) -> npt.NDArray[np.intp]:
    """For each distinct key a row (or value of a list) where it occurs: the last one in this order."""
    row = np.zeros(len(places.distinct) + 1, dtype=np.intp)
    row[places.place[order]] = np.arange(len(places.place))[order]
    return row[:-1]


@dataclass(frozen=True)
class Block:
    """A run of windows with the counters of every key in them; each counter can be moved and asked by itself.

    Without a store the counters are as of what is asked for.
    """

    spec: Spec
    store: Segments | None
    order: list[int]
    tables: list[pa.Table]
    counters: list[Counters]
    columns: dict[str, Coded]
    vocabularies: Vocabularies
    parts: dict[int, Matrix] = field(default_factory=dict)

    def fold(self, window: int, spread: Spread) -> None:
        """Move every counter past a window."""
        position = window - self.order[0]
        tallies = tallied(self.tables[position], [c.coded for c in self.counters], position, spread)
        moved = zip(self.counters, tallies, strict=True)
        list(spread(lambda pair: pair[0].fold(position, window, pair[1]), moved))

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
        entries, known = self.entries(i, counter.coded.windows[position].distinct, at)
        prior = self._prior(i, position, means)
        return features.lookup(entries, known, at, prior, counter.decay, self.spec.config.features.smoothing)

    def entries(self, i: int, codes: Codes, at: int) -> tuple[Entries, npt.NDArray[np.bool_]]:
        """Counters as of a window: those in hand, or older ones from the store."""
        counter = self.counters[i]
        if self.store is None or self.store.newest is None or at >= self.store.newest:
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
        row = some_row(own.windows[position])
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
