"""What a request says, column by column, and the keys that this makes: hashed as the offline matrix hashes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.events import Candidate, Request, Value
from flywheel.learn import coding
from flywheel.segments import Keys, hash_names


class Given:
    """What a request says of each column: one value for all candidates, or one each."""

    def __init__(self, request: Request, candidates: Sequence[Candidate]) -> None:
        self._request, self.candidates = request, candidates
        self._differing = set[str]().union(*(candidate.attributes for candidate in candidates))

    def values(self, name: str) -> Sequence[Value]:
        """The values of a column, `user` and `item` among them."""
        if name == "item":
            return [candidate.item for candidate in self.candidates]
        if name == "user":
            return [self._request.user]
        shared = plain(self._request.context.get(name))
        if name not in self._differing:
            return [shared]
        return [
            plain(candidate.attributes[name]) if name in candidate.attributes else shared
            for candidate in self.candidates
        ]


def plain(value: Value) -> Value:
    """A value as it will stand in its row: an empty name is none; names of a list are trimmed, empty ones dropped."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, list):
        return [name for given in value if (name := given.strip())] or None
    return value


@dataclass(frozen=True)
class Hashed:
    """A column, or the keys of a counter, over a request: one for all candidates, one each, or a list each.

    Row i of lists owns `keys[offsets[i]:offsets[i + 1]]`; `null` says which keys are none, if any is.
    """

    keys: Keys
    null: npt.NDArray[np.bool_] | None = None
    offsets: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """1, or the number of candidates."""
        return len(self.keys) if self.offsets is None else len(self.offsets) - 1


def names(values: Sequence[Value]) -> Hashed:
    """The hashes of names; what is no name is null."""
    known = [value for value in values if isinstance(value, str)]
    if len(known) == len(values):
        return Hashed(hash_names(known))
    null = np.array([not isinstance(value, str) for value in values])
    keys = np.zeros(len(values), dtype=np.uint64)
    keys[~null] = hash_names(known)
    return Hashed(keys, null)


def lists(values: Sequence[Value]) -> Hashed:
    """The hashes of lists of names; what is no list is empty."""
    known = [value if isinstance(value, list) else [] for value in values]
    offsets = np.zeros(len(known) + 1, dtype=np.int64)
    np.cumsum([len(several) for several in known], out=offsets[1:])
    return Hashed(hash_names([name for several in known for name in several]), offsets=offsets)


def crossed(columns: Sequence[Hashed]) -> Hashed:
    """The keys of a counter from the columns that make them, as `coding.code_counter` has them."""
    if len(columns) == 1:
        return columns[0]
    rows = max(column.rows for column in columns)
    offsets = next((column.offsets for column in columns if column.offsets is not None), None)
    if offsets is not None and len(offsets) - 1 < rows:  # one list for all
        offsets = np.arange(rows + 1) * offsets[1]
    shape = Hashed(np.empty(rows if offsets is None else offsets[-1], np.uint64), offsets=offsets)
    keys = spread(columns[0].keys, columns[0], shape)
    for column in columns[1:]:
        keys = coding.mix(keys, spread(column.keys, column, shape))
    nulls = [spread(column.null, column, shape) for column in columns if column.null is not None]
    null = np.logical_or.reduce(np.broadcast_arrays(keys > 0, *nulls)[1:]) if nulls else None
    return Hashed(keys, null, offsets)


def spread(lines: npt.NDArray[Any], own: Hashed, shape: Hashed) -> npt.NDArray[Any]:
    """Give each key of `shape` its line of `own`'s; a single one is left to be broadcast."""
    if own.offsets is not None:
        return lines if own.rows == shape.rows else np.concatenate([lines] * shape.rows)
    if shape.offsets is None or own.rows == 1:
        return lines
    return np.repeat(lines, np.diff(shape.offsets), axis=0)
