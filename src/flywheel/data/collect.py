"""Events become the rows of a window: once each, labelled by what was known at its close, every one accounted for."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.config import Config
from flywheel.content import plain
from flywheel.data.quarantine import as_given, as_rejected, distinct_rejected, in_order
from flywheel.errors import DataError, SourceError
from flywheel.schema import NAME, REJECTED, TIME, event_schema, row_schema
from flywheel.sections import Attributes
from flywheel.windows import Windows

Known = Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]
Positions = npt.NDArray[np.int64]
OTHER_CONTENT = "same event id, other content"


@dataclass(frozen=True)
class Counts:
    """What became of the events collected: `collected = rows + duplicate + quarantined + unlabelled + late`."""

    collected: int
    rows: int
    duplicate: int
    quarantined: int
    unlabelled: int
    late: int


@dataclass(frozen=True)
class Collected:
    """A window as it closes, before its rows are validated.

    `rows` has `row_schema` and is sorted by (ts, event_id); `origin` says for each of them `source` and `row`.
    `rejected` has `REJECTED`. `collected` and `duplicate` count events and rejected rows.
    """

    rows: pa.Table
    origin: pa.Table
    rejected: pa.Table
    collected: int
    duplicate: int


def close(
    window: int,
    config: Config,
    *,
    events: pa.Table,
    rejected: pa.Table,
    known: Known,
    attributes: Sequence[pa.Table] = (),
) -> Collected:
    """Deduplicate, label and join what a window consumes. Pure; the order of events and of rejected rows is nothing.

    Args:
        window: the index of the window that closes.
        config: the windows, with the waits that decide what was known at the close; the contract, the reading of
            silence, and the attribute tables' columns.
        events: with `event_schema`; those dated before the window are late.
        rejected: with `REJECTED`, to be quarantined with this window.
        known: event ids to whether the dataset holds them already.
        attributes: one table for each of `config.attributes`, in their order.

    Raises:
        DataError: an event is dated after the window.
        SourceError: a key is twice in an attribute table.
    """
    grid = config.windows.grid
    _check_dates(events, window, grid)
    first, conflicts = _distinct(events, config, known)
    refused = _refused(events, conflicts, config)
    bad = distinct_rejected(pa.concat_tables([rejected.select(REJECTED.names).cast(REJECTED), refused]))
    rows = _sorted(events.take(pa.array(first)), config)
    origin = rows.select(["source", "row"])
    rows = labelled(rows, window, grid, config)
    for spec, table in zip(config.attributes, attributes, strict=True):
        rows = _joined(rows, spec, table)
    rows = rows.append_column("late", pc.less(rows["ts"], _moment(grid.start(window))))
    collected = events.num_rows + rejected.num_rows
    duplicate = collected - rows.num_rows - bad.num_rows
    return Collected(
        _one_encoding(rows.select(row_schema(config).names), row_schema(config)), origin, bad, collected, duplicate
    )


def ledger(collected: Collected, quarantined: Collection[int] = ()) -> Counts:
    """The counts of a window once the rows at these positions are quarantined as well."""
    gone = np.zeros(collected.rows.num_rows, dtype=bool)
    gone[list(quarantined)] = True
    late = _flags(collected.rows["late"])
    silent = _flags(collected.rows["label"].is_null())
    return Counts(
        collected=collected.collected,
        rows=int((~gone & ~late & ~silent).sum()),
        duplicate=collected.duplicate,
        quarantined=collected.rejected.num_rows + int(gone.sum()),
        unlabelled=int((~gone & ~late & silent).sum()),
        late=int((~gone & late).sum()),
    )


def quarantine(collected: Collected, reasons: Mapping[int, Sequence[str]], config: Config) -> pa.Table:
    """All that a window quarantines, with `REJECTED`: what was rejected before, and its rows at these positions."""
    at = pa.array(sorted(reasons), pa.int64())
    rows = collected.rows.take(at)
    origin = collected.origin.take(at)
    sentences = [list(reasons[position]) for position in at.to_pylist()]
    more = as_rejected(rows, origin, sentences, config)
    return in_order(pa.concat_tables([collected.rejected, more]))


def _check_dates(events: pa.Table, window: int, grid: Windows) -> None:
    latest = pc.max(events["ts"]).as_py()
    if latest is not None and latest >= grid.end(window):
        what = f"an event of {latest.isoformat()} is offered to window {grid.name(window)}"
        raise DataError(what, why=f"the window ends at {grid.end(window).isoformat()}")


def _distinct(events: pa.Table, config: Config, known: Known) -> tuple[Positions, Positions]:
    """Positions of the events that stay, and of those that contradict one: same id, other content.

    Of equal events the first by (source, row) is meant; of contradicting ones the first by (ts, source, row) stays.
    """
    new = np.flatnonzero(~_flags(known(_chunked(events["event_id"]))))
    codes = _chunked(events["event_id"]).combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(codes[new], minlength=1)
    several = new[counts[codes[new]] > 1]
    if not len(several):
        return new, several
    single = new[counts[codes[new]] == 1]
    stay, contradict = _settled(events.take(pa.array(several)), codes[several], config)
    return np.concatenate([single, several[stay]]), several[contradict]


def _settled(events: pa.Table, ids: Positions, config: Config) -> tuple[Positions, Positions]:
    roles = [name for name in event_schema(config).names if name not in ("event_id", "source", "row")]
    content = np.zeros(len(ids), dtype=np.int64)
    for name in roles:
        ranks = _ranks(events[name])
        content = np.unique(content * (int(ranks.max()) + 1) + ranks, return_inverse=True)[1]
    order = np.lexsort((content, _ranks(events["row"]), _ranks(events["source"]), _ranks(events["ts"]), ids))
    pairs = ids[order] * (int(content.max()) + 1) + content[order]
    exemplars = order[np.sort(np.unique(pairs, return_index=True)[1])]
    if config.contract.event_id is None:
        return exemplars, exemplars[:0]  # the id is a hash: other content under it is another event
    first = np.unique(ids[exemplars], return_index=True)[1]
    return exemplars[first], np.delete(exemplars, first)


def _ranks(column: pa.ChunkedArray) -> Positions:
    """Equal values, equal numbers; the numbers follow the values' order, whatever order the rows are in."""
    ranks: Positions = pc.rank(plain(column), tiebreaker="dense").to_numpy().astype(np.int64)
    return ranks


def _refused(events: pa.Table, at: Positions, config: Config) -> pa.Table:
    rows = events.take(pa.array(at))
    return as_rejected(rows, rows.select(["source", "row"]), [[OTHER_CONTENT]] * len(at), config)


def _sorted(events: pa.Table, config: Config) -> pa.Table:
    """By (ts, event_id), which no two rows share; an id that two hashes made is told apart by a suffix."""
    ordered = events.take(pc.sort_indices(events, [("ts", "ascending"), ("event_id", "ascending")])).combine_chunks()
    if config.contract.event_id is not None or not ordered.num_rows:
        return ordered
    ids = ordered["event_id"].combine_chunks()
    again = pc.equal(ids[1:], ids[:-1])
    if not pc.any(again).as_py():
        return ordered
    return _told_apart(ordered, config)


def _told_apart(ordered: pa.Table, config: Config) -> pa.Table:
    contents = [json.dumps(row, sort_keys=True) for row in as_given(ordered, config)]
    ids = ordered["event_id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda k: (ordered["ts"][k].as_py(), ids[k], contents[k]))
    seen: dict[str, int] = {}
    unique = []
    for k in order:
        seen[ids[k]] = seen.get(ids[k], 0) + 1
        unique.append(ids[k] if seen[ids[k]] == 1 else f"{ids[k]}~{seen[ids[k]]}")
    place = ordered.schema.get_field_index("event_id")
    return ordered.take(pa.array(order)).set_column(place, ordered.schema.field(place), pa.array(unique))


def labelled(rows: pa.Table, window: int, grid: Windows, config: Config) -> pa.Table:
    """The label known when the window closed; else silence, known at that very moment or not at all."""
    closing = _moment(grid.closes_at(window))
    known = pc.and_(rows["label"].is_valid(), pc.less_equal(rows["label_ts"], closing)).fill_null(False)
    silence = pa.scalar(0.0 if config.windows.silence == 0 else None, pa.float64())
    heard = closing if config.windows.silence == 0 else pa.scalar(None, TIME)
    for name, otherwise in (("label", silence), ("label_ts", heard)):
        column = pc.if_else(known, rows[name], otherwise)
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _joined(rows: pa.Table, spec: Attributes, table: pa.Table) -> pa.Table:
    keys = plain(table[spec.column]).cast(pa.string())
    counts = pc.value_counts(keys.drop_null())
    twice = [entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1]
    if twice:
        what = f"{spec.url} has {spec.column} {twice[0]!r:.80} twice"
        raise SourceError(what, where=spec.url, why="each key may stand there once", next="remove one of the two rows")
    found = pc.index_in(plain(rows[spec.key]), value_set=keys, skip_nulls=True)
    for name in (*spec.numeric, *spec.categorical, *spec.lists):
        rows = rows.append_column(name, plain_or_list(table[name]).take(found))
    return rows


def plain_or_list(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, strings without dictionary, lists as they are."""
    return column.combine_chunks() if pa.types.is_list(column.type) else plain(column)


def _one_encoding(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Names numbered in order of appearance, so that equal rows are equal bytes whatever order they came in."""
    columns = []
    for field in schema:
        column = plain_or_list(rows[field.name])
        columns.append(column.dictionary_encode() if field.type == NAME else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _flags(mask: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    whole = _chunked(mask).combine_chunks().fill_null(False)
    array: npt.NDArray[np.bool_] = whole.to_numpy(zero_copy_only=False)
    return array


def _moment(at: datetime) -> pa.Scalar:
    return pa.scalar(at, TIME)
