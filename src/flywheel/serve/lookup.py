"""The features of a request, from a snapshot: to the last bit what the offline matrix has for its state.

Whatever does not depend on the request is looked up when a snapshot is loaded: per counter a table with the columns
of each key, of a key never seen, and of none. A request takes lines from it; only a mean that leans on that of
another key is made as its line is taken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flywheel.errors import IntegrityError
from flywheel.events import Candidate, Request, Value
from flywheel.learn import features
from flywheel.learn.features import Floats, Matrix, Spec
from flywheel.segments import Entries, Keys
from flywheel.serve import given
from flywheel.serve.given import Given, Hashed
from flywheel.serve.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

    from flywheel.learn.custom import Custom

LARGEST = np.array([2**64 - 1], dtype=np.uint64)  # stands behind the keys of a table, so that a search ends on one


@dataclass(frozen=True)
class Leaning:
    """What a mean that leans on another key's is made of: which of its means, and counts and sums, a line a key."""

    on: list[int]
    counts: Floats
    sums: Floats


@dataclass(frozen=True)
class Table:
    """A counter as of a state, a line a key; the last but one is that of an unknown key, the last that of none.

    `means` are unrounded, shape (keys + 2, half-lives).
    """

    keys: Keys
    columns: Matrix
    means: Floats
    leaning: Leaning | None


class Lookup:
    """Makes the matrix of a request.

    Raises:
        ConfigError: the workspace's own functions cannot be read.
        IntegrityError: other columns are made than the model has.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.spec = Spec(snapshot.config)
        config, counters = snapshot.config, self.spec.counters
        self._vocabularies = {name: snapshot.vocabularies.get(name, {}) for name in config.categorical}
        self._hashed = tuple(dict.fromkeys([*(n for counter in counters for n in counter.key), *config.categorical]))
        self._tables: list[Table] = []
        for i in range(len(counters)):
            stored = snapshot.counters.get(features.table(i)) or _nothing(self.spec.tables[features.table(i)])
            self._tables.append(self._table(i, *stored, snapshot.state))
        self._custom = _custom(snapshot.custom) if snapshot.custom else None
        made = (*self.spec.names, *(self._custom.names if self._custom else ()))
        self._width = len(made)
        if made != snapshot.names:
            odd = ", ".join(sorted(set(made) ^ set(snapshot.names))) or "none, but their order"
            raise IntegrityError(
                f"generation {snapshot.generation} has other columns than are made", why=f"in one list only: {odd}"
            )

    def matrix(
        self, request: Request, candidates: Sequence[Candidate], decision_id: str | None, now: int | None
    ) -> Matrix:
        """The features of each candidate, float32 of shape (candidates, columns).

        A candidate's attribute stands before the context of the same name. What is missing, or of another kind than
        the contract says, is null. Only a workspace's own functions see decision and time.

        Raises:
            DataError: one of these functions fails.
        """
        if not candidates:
            return np.empty((0, self._width), dtype=np.float32)
        asked = Given(request, candidates)
        matrix = self._matrix(asked)
        if self._custom is None:
            return matrix
        return np.hstack([matrix, self._custom.values(self._frame(asked, decision_id, now).to_pandas())])

    def _matrix(self, asked: Given) -> Matrix:
        config = self.spec.config
        columns = {
            name: (given.lists if name in config.lists else given.names)(asked.values(name)) for name in self._hashed
        }
        out = np.empty((len(asked.candidates), len(self.spec.names)), dtype=np.float32)
        looked: dict[int, tuple[Hashed, Floats]] = {}
        for i, counter in enumerate(self.spec.counters[1:], start=1):
            key = given.crossed([columns[name] for name in counter.key])
            looked[i] = key, self._look(i, key, looked, out)
        column = len(self.spec.names) - len(config.numeric) - len(config.categorical)
        for name in config.numeric:
            out[:, column] = [_number(value) for value in asked.values(name)]
            column += 1
        for name, numbers in self._vocabularies.items():
            codes = np.array([numbers.get(key, np.nan) for key in columns[name].keys.tolist()], dtype=np.float32)
            if columns[name].null is not None:
                codes[columns[name].null] = np.nan
            out[:, column] = codes
            column += 1
        return out

    def _frame(self, asked: Given, decision_id: str | None, now: int | None) -> "pa.Table":
        """The rows that this request would become, with what their decision is made from."""
        import pyarrow as pa

        from flywheel.schema import row_schema

        rows = len(asked.candidates)
        kinds = {
            "ts": int,
            **dict.fromkeys(self.spec.config.lists, list),
            **dict.fromkeys(self.spec.config.numeric, int | float),
        }
        schema = row_schema(self.spec.config)
        columns = {}
        for name in self.spec.offered:
            values = [now] if name == "ts" else [decision_id] if name == "request" else asked.values(name)
            kept = [value if isinstance(value, kinds.get(name, str)) else None for value in values]
            columns[name] = pa.array(kept * (rows // len(kept)), schema.field(name).type)
        return pa.table(columns)

    def _look(self, i: int, key: Hashed, looked: dict[int, tuple[Hashed, Floats]], out: Matrix) -> Floats:
        """Write a counter's columns into `out`; the means of its keys, unrounded, shape (keys, half-lives)."""
        table = self._tables[i]
        place = table.keys.searchsorted(key.keys)
        place[table.keys.take(place) != key.keys] = len(table.keys) - 1
        if key.null is not None:
            place[key.null] = len(table.keys)
        columns = table.columns.take(place, axis=0)
        if table.leaning is None:
            means = table.means.take(place, axis=0)
        else:
            parent, above = looked[self.spec.parents[i]]
            prior = given.spread(above, parent, key)[:, table.leaning.on]
            counts, sums = table.leaning.counts.take(place, axis=0), table.leaning.sums.take(place, axis=0)
            means = features.shrunk(counts, sums, prior, self.spec.config.features.smoothing)
            columns[:, 1 : 2 * means.shape[1] : 2] = means
        if key.offsets is not None:
            columns = features.average(columns, key.offsets)
        first = self.spec.first_column[i]
        out[:, first : first + columns.shape[1]] = columns
        return means

    def _table(self, i: int, keys: Keys, stored: Entries, state: int) -> Table:
        counters, parent = self.spec.counters, self.spec.parents[i]
        entries = np.zeros(len(keys) + 1, dtype=stored.dtype)
        entries[:-1] = stored
        known = np.arange(len(entries)) < len(keys)
        decay = self.spec.decay(i, int(state - stored["last"].min()) if len(keys) else 0)
        prior = np.full((len(decay), 1), self.spec.prior)
        on = features.prior_columns(counters[i], counters[max(parent, 0)])
        if parent == 0:
            prior = self._tables[0].means[:1].T[on]  # its one key, or while that is unknown what it leans on
        columns, means = features.lookup(entries, known, state, prior, decay, self.spec.config.features.smoothing)
        leaning = None
        if parent > 0:
            counts, sums = zip(*features.faded(entries, known, state, decay), strict=True)
            leaning = Leaning(on, _lines(counts), _lines(sums))
        return Table(np.concatenate([keys, LARGEST]), columns, _lines(means), leaning)


def _nothing(entry: np.dtype[np.void]) -> tuple[Keys, Entries]:
    assert entry.names is not None
    return np.empty(0, np.uint64), np.empty(0, [(name, entry[name]) for name in entry.names[1:]])


def _custom(text: str) -> "Custom":
    from flywheel.learn import custom  # pandas, for those who need it

    return custom.from_text(text)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _lines(moments: Floats | Iterable[Floats]) -> Floats:
    """A line a key from an array a half-life; one more, that of no key, is NaN."""
    lines = np.array([*moments]).T
    padded = np.concatenate([lines, np.full((1, lines.shape[1]), np.nan)])
    return np.ascontiguousarray(padded)  # else taking a few lines copies all of them first
