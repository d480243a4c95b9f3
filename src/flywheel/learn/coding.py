"""Key columns as codes: over a block of windows, equal keys have equal codes, and each window knows which occur in it.

Few of a block's keys occur in any one window, so rows are coded against the window's own keys first, in tables that
fit a processor's cache; what is left to do per block is done per key.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel.schema import KNOWN_SINCE
from flywheel.sections import Counter
from flywheel.segments import Keys, hash_names

Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Tally = tuple[Codes, Floats, Floats]
DENSE_PAIRS = 1 << 20  # pairs possible in a window, and in a block, up to which they are numbered by a table
DENSE_BLOCK = 1 << 26


@dataclass(frozen=True)
class Places:
    """The keys that occur in one window: `distinct`, ascending codes of the block, and where each row's is in it.

    The place of a row whose key is null is `len(distinct)`.
    """

    distinct: Codes
    place: Codes


@dataclass(frozen=True)
class Coded:
    """A column, or the keys of a counter, over a block of windows: code i stands for `hashes[i]`.

    A list-valued one has `offsets` per window: row i of a window owns the places `offsets[i]:offsets[i + 1]`.
    """

    hashes: Keys
    windows: list[Places]
    offsets: list[npt.NDArray[np.int64]] | None = None


def mix(a: Keys, b: Keys) -> Keys:
    """Hash of a pair of keys, not symmetric (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = a * np.uint64(0x9E3779B97F4A7C15) + b
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def code_column(windows: list[pa.Table], name: str) -> Coded:
    """Code a column over a block of windows: equal values, equal codes; only values that occur get one."""
    arrays = [table.column(name).combine_chunks() for table in windows]
    offsets = None
    if pa.types.is_list(arrays[0].type):
        offsets = [_offsets(array) for array in arrays]
        arrays = [pc_dictionary(array.flatten()) for array in arrays]
    chunks = arrays if _one_dictionary(arrays) else pa.chunked_array(arrays).unify_dictionaries().chunks or arrays
    values = max((chunk.dictionary for chunk in chunks), key=len)
    windows = [_places(_indices(chunk), len(values)) for chunk in chunks]
    seen, distinct = _renumber([places.distinct for places in windows], len(values))
    coded = [Places(codes, places.place) for codes, places in zip(distinct, windows, strict=True)]
    return Coded(hash_names(values.take(pa.array(seen)).to_pylist()), coded, offsets)


def _one_dictionary(arrays: list[pa.DictionaryArray]) -> bool:
    """Whether all share the memory of one dictionary, as the parts of one table do."""
    shared = set()
    for array in arrays:
        values = array.dictionary
        memory = tuple(buffer.address if buffer else 0 for buffer in values.buffers())
        shared.add((array.type, values.offset, len(values), memory))
    return len(shared) == 1


def _indices(array: pa.DictionaryArray) -> Codes:
    indices = array.indices.fill_null(-1) if array.indices.null_count else array.indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int32)


def _places(codes: Codes, size: int) -> Places:
    """Find the distinct codes of a window, each less than `size`; null is -1."""
    rows = codes.astype(np.intp)
    flags = np.zeros(size + 1, dtype=bool)
    flags[rows] = True  # null lands in the extra place
    flags[size] = False
    distinct = np.flatnonzero(flags)
    place = np.empty(size + 1, dtype=np.int32)
    place[distinct] = np.arange(len(distinct), dtype=np.int32)
    place[size] = len(distinct)
    return Places(distinct.astype(np.int32), place[rows])


def pc_dictionary(array: pa.Array) -> pa.DictionaryArray:
    """Dictionary-encode strings that are not yet."""
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _offsets(array: pa.ListArray) -> npt.NDArray[np.int64]:
    lengths = np.nan_to_num(array.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)])


def code_counter(counter: Counter, columns: dict[str, Coded], rows: list[int]) -> Coded:
    """Code the keys of a counter over a block of windows; only keys that occur get a code.

    Args:
        counter: which columns make the key.
        columns: those columns, coded.
        rows: the number of rows of each window.
    """
    if not counter.key:
        one = np.zeros(1, dtype=np.int32)
        return Coded(np.zeros(1, np.uint64), [Places(one, np.zeros(n, dtype=np.int32)) for n in rows])
    offsets = next((columns[c].offsets for c in counter.key if columns[c].offsets is not None), None)
    coded: Coded | None = None
    for name in counter.key:
        column = columns[name]
        if offsets is not None and column.offsets is None:
            column = Coded(column.hashes, [_spread(p, o) for p, o in zip(column.windows, offsets, strict=True)])
        coded = column if coded is None else _cross(coded, column)
    assert coded is not None
    return Coded(coded.hashes, coded.windows, offsets)


def _spread(places: Places, offsets: npt.NDArray[np.int64]) -> Places:
    """Give every value of a list its row's place; some keys of `distinct` may then own none."""
    return Places(places.distinct, np.repeat(places.place, np.diff(offsets)))


def _cross(a: Coded, b: Coded) -> Coded:
    """Code pairs, window by window first: few of a block's keys occur in each."""
    width = max(len(b.hashes), 1)
    local = [_pairs(x, y) for x, y in zip(a.windows, b.windows, strict=True)]
    codes = [
        x.distinct[pairs[0]].astype(np.int64) * width + y.distinct[pairs[1]]
        for x, y, (pairs, _) in zip(a.windows, b.windows, local, strict=True)
    ]
    seen, distinct = _renumber(codes, len(a.hashes) * width)
    windows = [Places(d, place) for d, (_, place) in zip(distinct, local, strict=True)]
    return Coded(mix(a.hashes[seen // width], b.hashes[seen % width]), windows)


def _pairs(a: Places, b: Places) -> tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]], Codes]:
    """The pairs that occur in a window, as positions in both `distinct`, ascending; and the place of each row's."""
    width = len(b.distinct) + 1
    size = (len(a.distinct) + 1) * width
    rows = a.place.astype(np.intp) * width + b.place
    if size > max(DENSE_PAIRS, 16 * len(rows)):
        present, inverse = np.unique(rows, return_inverse=True)
        filled = (present // width < len(a.distinct)) & (present % width < len(b.distinct))
        rank = np.where(filled, np.cumsum(filled) - 1, filled.sum()).astype(np.int32)
        return np.divmod(present[filled], width), rank[inverse]
    flags = np.zeros(size, dtype=bool)
    flags[rows] = True
    _null(flags, width, False)
    present = np.flatnonzero(flags)
    place = np.empty(size, dtype=np.int32)
    place[present] = np.arange(len(present), dtype=np.int32)
    _null(place, width, len(present))
    return np.divmod(present, width), place[rows]


def _null(pairs: npt.NDArray[Any], width: int, value: int) -> None:
    """Set the pairs of which either half is null: the last row and the last column."""
    grid = pairs.reshape(-1, width)
    grid[-1] = value
    grid[:, -1] = value


def _renumber(codes: list[npt.NDArray[Any]], size: int) -> tuple[npt.NDArray[np.int64], list[Codes]]:
    """The codes less than `size` that occur anywhere, ascending; and per window the position of each among them."""
    if size > DENSE_BLOCK:
        seen, inverse = np.unique(np.concatenate(codes), return_inverse=True)
        return seen, np.split(inverse.astype(np.int32), np.cumsum([len(c) for c in codes])[:-1])
    present = np.zeros(size, dtype=bool)
    for window in codes:
        present[window] = True
    seen = np.flatnonzero(present)
    position = np.empty(size, dtype=np.int32)
    position[seen] = np.arange(len(seen), dtype=np.int32)
    return seen, [position[window] for window in codes]


def tally(coded: Coded, position: int, labels: Floats, labelled: npt.NDArray[np.bool_]) -> Tally:
    """What a window's labelled rows say of its keys: which of `distinct` have one, their number, their label sums."""
    places = coded.windows[position]
    place = places.place
    if coded.offsets is not None:
        lengths = np.diff(coded.offsets[position])
        labels, labelled = np.repeat(labels, lengths), np.repeat(labelled, lengths)
    if not labelled.all():
        place, labels = place[labelled], labels[labelled]
    size = len(places.distinct)
    if size == 1 and len(place) and not place.any():
        return np.zeros(1, np.int32), np.array([len(place)], np.float64), np.array([labels.sum()])
    counts = np.bincount(place, minlength=size)[:size]
    sums = np.bincount(place, weights=labels, minlength=size)[:size]
    taught = np.flatnonzero(counts)
    return taught.astype(np.int32), counts[taught].astype(np.float64), sums[taught].astype(np.float64)


def known(table: pa.Table) -> npt.NDArray[np.bool_] | None:
    """Which rows of a window were known when it closed; None where all were.

    The others, which a backfill gave back, are looked up like the rest and teach nothing here: the window that
    collected them holds them too, late, and folds them. So nobody's features know them any earlier than before.
    """
    if KNOWN_SINCE.name not in table.column_names:
        return None
    then: npt.NDArray[np.bool_] = table.column(KNOWN_SINCE.name).is_null().to_numpy()
    return then


def those(places: Places, rows: npt.NDArray[np.bool_]) -> Places:
    """The keys of some of a window's rows."""
    held = np.unique(places.place[rows])
    held = held[held < len(places.distinct)]
    return Places(places.distinct[held], np.searchsorted(held, places.place[rows]).astype(np.int32))
