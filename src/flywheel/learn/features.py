"""What was known when each decision was made: counters per key, folded window by window and looked up.

`fold` moves counters past one window; `lookup` turns counters into feature columns, and `average` those of a list's
values into one row's. The offline matrix and the ranker call these and nothing else, so what is served is what was
trained; `digest` tells whether it is.

A counter remembers per key, and per half-life `h`, a decayed count `n` and a decayed sum of labels `s`. Decay is
counted in windows and applied when a key is read: `n · 2^(-age / h)`. The mean a model sees is shrunk towards the
mean of the counter it backs off to: `(s + m · prior) / (n + m)` (an empirical-Bayes estimate with a fixed prior
weight `m`, `features.smoothing`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xxhash

from flywheel.config import Config
from flywheel.sections import Counter
from flywheel.segments import Entries, Keys, entry_type
from flywheel.windows import Windows

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
States = npt.NDArray[np.int64]
_MICROSECOND = timedelta(microseconds=1)


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
    def families(self) -> tuple[tuple[int, ...], ...]:
        """The counters but the global one, those that lean on each other together, each after what it leans on."""
        roots: dict[int, list[int]] = {}
        home: dict[int, int] = {}
        for i, parent in enumerate(self.parents[1:], start=1):
            home[i] = home.get(parent, i)
            roots.setdefault(home[i], []).append(i)
        return tuple(tuple(family) for family in roots.values())

    @cached_property
    def first_column(self) -> tuple[int, ...]:
        """For each counter the first of its columns in the matrix; the global one has none."""
        widths = [2 * len(c.half_lives) + 2 for c in self.counters[1:]]
        return (-1, *(sum(widths[:i]) for i in range(len(widths))))

    @cached_property
    def tables(self) -> dict[str, np.dtype[np.void]]:
        """The record stored per key of each counter: when first and last seen, then n and s per half-life."""
        return {
            table(i): entry_type([("first", "<i4"), ("last", "<i4"), ("acc", "<f8", (2 * len(c.half_lives),))])
            for i, c in enumerate(self.counters)
        }

    def decay(self, counter: int, span: int) -> Floats:
        """Decay by age in windows, shape (half-lives, span + 1).

        Scalar powers: vectorised ones may differ in the last bit with the length of the array.
        """
        every = self.config.windows.every
        rates = [0.0 if h is None else every / h for h in self.counters[counter].half_lives]
        return np.array([[math.exp2(-age * rate) for age in range(span + 1)] for rate in rates])

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

    @cached_property
    def offered(self) -> tuple[str, ...]:
        """The columns that a workspace's own functions may ask for: what is known when a row is decided.

        Where the ranker decides, slot and propensity are what comes of it.
        """
        roles = ("user", "item", "request", *(() if self.config.serve else ("position", "propensity")))
        return ("ts", *(r for r in roles if getattr(self.config.contract, r)), *self.config.context)


def table(counter: int) -> str:
    """The name under which a counter is stored: its position, for a key may hold any character."""
    return f"counter{counter}"


def served_from(
    window: int, grid: Windows, ts: npt.NDArray[np.int64], logged: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]
) -> int | States:
    """The state window that each row of a window is looked up as of: the logged one, else window − lag.

    A logged state that could not have been closed by then is not believed; the newest that could stands in for it.

    Args:
        window: the window's index.
        grid: when windows may close.
        ts: when each row happened, microseconds since 1970, shape (rows,).
        logged: the state that each row was served from, shape (rows,).
        known: where one was logged, shape (rows,).

    Returns:
        One for all rows, or one each, shape (rows,).
    """
    waits = grid.origin - datetime(1970, 1, 1, tzinfo=UTC) + grid.attribution + grid.lateness
    closed = (ts - waits // _MICROSECOND) // (grid.every // _MICROSECOND) - 1
    states = np.where(known, np.minimum(logged, closed), window - grid.lag)
    distinct = np.unique(states)
    return states if len(distinct) > 1 else int(distinct[0]) if len(distinct) else window - grid.lag


def fold(
    entries: Entries, known: npt.NDArray[np.bool_], window: int, seen: tuple[Floats, Floats], decay: Floats
) -> None:
    """Move counters past a window, in place.

    Args:
        entries: the counters of the keys that have labelled rows in the window, shape (u,).
        known: which of them had been seen before, shape (u,).
        window: the window's index.
        seen: per key the number of labelled rows in the window and the sum of their labels, each shape (u,).
        decay: from `Spec.decay`.
    """
    ages = _ages(entries, known, window)
    for i, fade in enumerate(decay):
        faded = fade.take(ages)
        for column, more in zip((i, i + len(decay)), seen, strict=True):
            entries["acc"][:, column] = entries["acc"][:, column] * faded + more
    entries["first"][~known] = window
    entries["last"] = window


def _ages(entries: Entries, known: npt.NDArray[np.bool_], at: int) -> npt.NDArray[np.int32]:
    ages: npt.NDArray[np.int32] = (at - entries["last"]) * known
    return ages


def lookup(
    entries: Entries, known: npt.NDArray[np.bool_], at: int, prior: Floats, decay: Floats, smoothing: float
) -> tuple[Matrix, Floats]:
    """What a counter's keys look like as of window `at`.

    Args:
        entries: the counters of those keys, shape (u,).
        known: which of them had been seen by then, shape (u,).
        at: the window's index.
        prior: what each mean leans on, shape (half-lives, u) or (half-lives, 1).
        decay: from `Spec.decay`.
        smoothing: how many rows `prior` is worth.

    Returns:
        The feature columns, shape (u + 1, 2 · half-lives + 2): per half-life count and mean; windows since first and
        since last seen, NaN where never seen. The last row is the null key's, all NaN. And the means, unrounded,
        shape (half-lives, u).
    """
    out = np.empty((len(entries) + 1, 2 * len(decay) + 2), dtype=np.float32)
    means = np.empty((len(decay), len(entries)))
    for i, (counts, sums) in enumerate(faded(entries, known, at, decay)):
        means[i] = shrunk(counts, sums, prior[i], smoothing)
        out[:-1, 2 * i], out[:-1, 2 * i + 1] = counts, means[i]
    for column, end in ((-2, "first"), (-1, "last")):
        out[:-1, column] = at - entries[end]
        out[:-1, column][~known] = np.nan
    out[-1] = np.nan
    return out, means


def faded(entries: Entries, known: npt.NDArray[np.bool_], at: int, decay: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Count and sum of labels of each key as of window `at`, per half-life; arguments as for `lookup`."""
    ages = _ages(entries, known, at)
    for i, fade in enumerate(decay):
        left = fade.take(ages)
        yield entries["acc"][:, i] * left, entries["acc"][:, i + len(decay)] * left


def shrunk(counts: Floats, sums: Floats, prior: Floats, smoothing: float) -> Floats:
    """The mean label that counts and sums tell, leaning on `prior` as on `smoothing` rows more."""
    means: Floats = (sums + smoothing * prior) / (counts + smoothing)
    return means


def average(values: Matrix, offsets: npt.NDArray[np.int64]) -> Matrix:
    """Average the columns over the values that each row owns; NaN where it owns none that is known.

    Row i owns the lines `offsets[i]:offsets[i + 1]` of `values`.
    """
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


def digest(matrix: Matrix) -> Keys:
    """The XXH3-64 of each row's float32 values, shape (rows,); a NaN is a NaN, and −0 is 0.

    >>> one, other = digest(np.array([[0.0, np.nan], [-0.0, -np.nan]], np.float32)).tolist()
    >>> one == other
    True
    """
    canonical = np.where(np.isnan(matrix), np.float32(np.nan), matrix + np.float32(0))
    hashes = (xxhash.xxh3_64_intdigest(row) for row in np.ascontiguousarray(canonical, np.float32))
    return np.fromiter(hashes, dtype=np.uint64, count=len(matrix))


def prior_columns(child: Counter, parent: Counter) -> list[int]:
    """For each half-life of `child` the one of `parent`'s that its mean leans on: the same, else the longest."""
    same = {h: i for i, h in enumerate(parent.half_lives)}
    longest = max(
        range(len(parent.half_lives)), key=lambda i: (parent.half_lives[i] is None, parent.half_lives[i] or 0)
    )
    return [same.get(h, longest) for h in child.half_lives]
