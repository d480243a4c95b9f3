"""What was known when each decision was made: counters per key, folded window by window and looked up.

`fold` moves counters past one window; `lookup` turns counters into feature columns. The offline matrix and the
ranker call these two and nothing else, so what is served is what was trained.

A counter remembers per key, and per half-life `h`, a decayed count `n` and a decayed sum of labels `s`. Decay is
counted in windows and applied when a key is read: `n · 2^(-age / h)`. The mean a model sees is shrunk towards the
mean of the counter it backs off to: `(s + m · prior) / (n + m)` (an empirical-Bayes estimate with a fixed prior
weight `m`, `features.smoothing`).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel.config import Config, Counter
from flywheel.segments import Entries, Keys, entry_type, hash_names

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Spec:
    """The columns of the matrix and how they are made, from the config alone."""

    config: Config

    @cached_property
    def counters(self) -> tuple[Counter, ...]:
        """The global counter, with every half-life in use, then those of the config."""
        lives = {h for c in self.config.features.counters for h in c.half_lives} | {None}
        ordered = sorted(lives, key=lambda h: math.inf if h is None else h.total_seconds())
        return (
            Counter.model_construct(key=(), half_lives=tuple(ordered), backoff=None),
            *self.config.features.counters,
        )

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """For each counter the position of the one it backs off to; -1 for the global one."""
        names = [c.name for c in self.counters]
        return (-1, *(names.index(c.backoff) if c.backoff else 0 for c in self.counters[1:]))

    @cached_property
    def tables(self) -> dict[str, np.dtype[np.void]]:
        """The record stored per key of each counter: when first and last seen, then n and s per half-life."""
        return {
            table(i): entry_type([("first", "<i4"), ("last", "<i4"), ("acc", "<f8", (2 * len(c.half_lives),))])
            for i, c in enumerate(self.counters)
        }

    def decay(self, counter: int, span: int) -> Floats:
        """Decay by age in windows, shape (span + 1, half-lives).

        Scalar powers: vectorised ones may differ in the last bit with the length of the array.
        """
        every = self.config.windows.every
        rates = [0.0 if h is None else every / h for h in self.counters[counter].half_lives]
        return np.array([[math.exp2(-age * rate) for rate in rates] for age in range(span + 1)])

    @cached_property
    def prior(self) -> float:
        """What a mean leans on before anything is known."""
        return 0.5 if self.config.contract.kind == "binary" else 0.0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns of the matrix that Flywheel makes, in order: counters, numeric, categorical context."""
        columns = []
        for counter in self.counters[1:]:
            for h in counter.model_dump()["half_lives"]:
                columns += [f"{counter.name}__count_{h}", f"{counter.name}__mean_{h}"]
            columns += [f"{counter.name}__since_first", f"{counter.name}__since_last"]
        return (*columns, *self.config.numeric, *self.config.categorical)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """XGBoost's type of each column: `q` a number, `c` a code."""
        plain = len(self.names) - len(self.config.categorical)
        return ("q",) * plain + ("c",) * len(self.config.categorical)


def table(counter: int) -> str:
    """The name under which a counter is stored: its position, for a key may hold any character."""
    return f"counter{counter}"


@dataclass(frozen=True)
class Column:
    """One column of a block of windows, coded: `hashes[codes]` are the values, -1 is null.

    A list-valued column has `offsets` per window: row i of a window owns `codes[offsets[i]:offsets[i + 1]]`.
    """

    hashes: Keys
    codes: list[Codes]
    offsets: list[npt.NDArray[np.int64]] | None = None


@dataclass(frozen=True)
class Coded:
    """The keys of one counter over a block of windows."""

    hashes: Keys
    codes: list[Codes]
    offsets: list[npt.NDArray[np.int64]] | None


def mix(a: Keys, b: Keys) -> Keys:
    """Hash of a pair of keys, not symmetric (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(0x9E3779B97F4A7C15) + b
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def code_column(windows: list[pa.Table], name: str) -> Column:
    """Code a column over a block of windows: equal values, equal codes."""
    arrays = [table.column(name).combine_chunks() for table in windows]
    offsets = None
    if pa.types.is_list(arrays[0].type):
        offsets = [_offsets(array) for array in arrays]
        arrays = [pc_dictionary(array.flatten()) for array in arrays]
    chunked = pa.chunked_array(arrays, type=arrays[0].type).unify_dictionaries()
    chunks = chunked.chunks or arrays
    codes = [np.asarray(chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32) for chunk in chunks]
    values = max((chunk.dictionary for chunk in chunks), key=len).to_pylist()
    return Column(hash_names(values), codes, offsets)


def pc_dictionary(array: pa.Array) -> pa.DictionaryArray:
    """Dictionary-encode strings that are not yet."""
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _offsets(array: pa.ListArray) -> npt.NDArray[np.int64]:
    lengths = np.nan_to_num(array.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)])


def code_counter(counter: Counter, columns: dict[str, Column], rows: list[int]) -> Coded:
    """Code the keys of a counter over a block of windows.

    Args:
        counter: which columns make the key.
        columns: those columns, coded.
        rows: the number of rows of each window.
    """
    if not counter.key:
        return Coded(np.zeros(1, np.uint64), [np.zeros(n, np.int32) for n in rows], None)
    offsets = next((columns[c].offsets for c in counter.key if columns[c].offsets is not None), None)
    hashes, codes = np.zeros(1, np.uint64), None
    for name in counter.key:
        column = columns[name]
        spread = column.codes if offsets is None or column.offsets is not None else _spread(column.codes, offsets)
        hashes, codes = (column.hashes, spread) if codes is None else _cross(hashes, codes, column.hashes, spread)
    assert codes is not None
    return Coded(hashes, codes, offsets)


def _spread(codes: list[Codes], offsets: list[npt.NDArray[np.int64]]) -> list[Codes]:
    return [np.repeat(c, np.diff(o)) for c, o in zip(codes, offsets, strict=True)]


def _cross(a: Keys, a_codes: list[Codes], b: Keys, b_codes: list[Codes]) -> tuple[Keys, list[Codes]]:
    """Code pairs; only pairs that occur get a code."""
    width = max(len(b), 1)
    pairs = [
        np.where((x < 0) | (y < 0), -1, x.astype(np.int64) * width + y) for x, y in zip(a_codes, b_codes, strict=True)
    ]
    present = np.zeros(max(len(a), 1) * width + 1, dtype=bool) if len(a) * width <= 1 << 27 else None
    if present is None:
        seen = np.unique(np.concatenate([np.unique(p) for p in pairs]))
        seen = seen[seen >= 0]
        codes = [np.where(p < 0, -1, np.searchsorted(seen, p)).astype(np.int32) for p in pairs]
    else:
        for p in pairs:
            present[p] = True
        present[-1] = False  # where null pairs, coded -1, have landed
        seen = np.flatnonzero(present)
        place = np.full(len(present), -1, dtype=np.int32)
        place[seen] = np.arange(len(seen), dtype=np.int32)
        codes = [place[p] for p in pairs]
    return mix(a[seen // width], b[seen % width]), codes


def touched(codes: Codes, size: int) -> tuple[Codes, Codes]:
    """The distinct codes that occur, ascending, without null; and per code its place among them, null last."""
    flags = np.zeros(size + 1, dtype=bool)
    flags[codes] = True  # null, -1, lands in the extra place
    flags[size] = False
    distinct = np.flatnonzero(flags).astype(np.int32)
    place = np.full(size + 1, len(distinct), dtype=np.int32)
    place[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, place[codes]


def fold(
    entries: Entries, known: npt.NDArray[np.bool_], window: int, seen: tuple[Floats, Floats], decay: Floats
) -> Entries:
    """Move the counters of the keys seen in a window past it.

    Args:
        entries: the counters of those keys before, shape (u,).
        known: which of them had been seen before, shape (u,).
        window: the window's index.
        seen: per key the number of labelled rows in the window and the sum of their labels, each shape (u,).
        decay: from `Spec.decay`.

    Returns:
        The counters as of the window, shape (u,); keys without a labelled row stay as they were.
    """
    counts, sums = seen
    moved = entries.copy()
    lives = decay.shape[1]
    faded = decay[np.where(known, window - entries["last"], 0)]
    moved["acc"][:, :lives] = entries["acc"][:, :lives] * faded + counts[:, None]
    moved["acc"][:, lives:] = entries["acc"][:, lives:] * faded + sums[:, None]
    moved["first"] = np.where(known, entries["first"], window)
    moved["last"] = window
    return moved


def means(
    entries: Entries, ages: npt.NDArray[np.int32], prior: Floats, decay: Floats, smoothing: float
) -> tuple[Floats, Floats]:
    """Decayed counts and smoothed means, each shape (u, half-lives), of counters last moved `ages` windows ago.

    `prior`, shape (u, half-lives), is what each mean leans on.
    """
    lives = decay.shape[1]
    faded = decay[ages]
    counts = entries["acc"][:, :lives] * faded
    sums = entries["acc"][:, lives:] * faded
    return counts, (sums + smoothing * prior) / (counts + smoothing)


def lookup(entries: Entries, known: npt.NDArray[np.bool_], at: int, counts: Floats, smoothed: Floats) -> Matrix:
    """The feature columns of a counter's keys, shape (u + 1, 2 · half-lives + 2); the last row is the null key's.

    Columns: per half-life count and mean; windows since first and since last seen (NaN where never seen).
    """
    lives = counts.shape[1]
    out = np.full((len(entries) + 1, 2 * lives + 2), np.nan, dtype=np.float32)
    out[:-1, 0 : 2 * lives : 2] = counts
    out[:-1, 1 : 2 * lives : 2] = smoothed
    out[:-1, 2 * lives] = np.where(known, at - entries["first"], np.nan)
    out[:-1, 2 * lives + 1] = np.where(known, at - entries["last"], np.nan)
    return out


def prior_columns(child: Counter, parent: Counter) -> list[int]:
    """For each half-life of `child` the column of `parent`'s that its mean leans on: the same, else the longest."""
    same = {h: i for i, h in enumerate(parent.half_lives)}
    longest = max(
        range(len(parent.half_lives)), key=lambda i: (parent.half_lives[i] is None, parent.half_lives[i] or 0)
    )
    return [same.get(h, longest) for h in child.half_lives]
