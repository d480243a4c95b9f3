"""Late rows go back to the window that they are dated in.

A row that came late is held by the window that collected it, marked `late`: there it moves the state, from when it
became known, and is no training row. A backfill gives its own window a second look: the row is put beside its peers,
with the label that was known when that window closed, and `known_since` names the window that collected it. It is
trained on and examined on like its peers; it is not folded there, so no feature of anybody knows it any earlier, and
the state is the same to the last bit as before. Where it was collected, nothing changes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.config import Config
from flywheel.content import plain
from flywheel.data.collect import labelled
from flywheel.schema import KNOWN_SINCE, NAME
from flywheel.windows import Windows

Late = dict[int, pa.Table]  # by the window that collected them


def homes(late: pa.Table, grid: Windows) -> dict[int, list[str]]:
    """The event ids of late rows (`event_id, ts, late`) by the window that each is dated in."""
    found: dict[int, list[str]] = {}
    for row in late.filter(late["late"]).select(["event_id", "ts"]).to_pylist():
        found.setdefault(grid.index(row["ts"]), []).append(row["event_id"])
    return found


def own(rows: pa.Table) -> pa.Table:
    """The rows of a window without those that were given back to it."""
    if KNOWN_SINCE.name not in rows.column_names:
        return rows
    return rows.filter(rows[KNOWN_SINCE.name].is_null()).drop_columns([KNOWN_SINCE.name])


def candidates(window: int, rows: pa.Table, late: Late, config: Config) -> pa.Table:
    """The late rows dated in a window, as it would have had them in time; with `known_since`, in order.

    Args:
        window: the index of the window that they go back to.
        rows: its own rows; a row that is among them is not given back.
        late: rows of later windows, which hold their own rows and others.
        config: by which what was known when the window closed is told.
    """
    grid, held, parts = config.windows.grid, rows["event_id"], []
    first, last = (pa.scalar(at, rows.schema.field("ts").type) for at in (grid.start(window), grid.end(window)))
    for since, table in sorted(late.items()):
        dated = pc.and_(pc.greater_equal(table["ts"], first), pc.less(table["ts"], last))
        fresh = pc.invert(pc.is_in(table["event_id"], value_set=held.combine_chunks()))
        mine = _fitted(table.filter(pc.and_(pc.and_(dated, table["late"]), fresh)), rows.schema)
        parts.append(mine.append_column(KNOWN_SINCE, pa.array([since] * mine.num_rows, KNOWN_SINCE.type)))
    known_since = pa.schema([*rows.schema, KNOWN_SINCE])
    found = labelled(pa.concat_tables([known_since.empty_table(), *parts]), window, grid, config)
    late_at = found.schema.get_field_index("late")
    found = found.set_column(late_at, rows.schema.field("late"), pa.array(np.zeros(len(found), dtype=bool)))
    return _ordered(found)


def together(rows: pa.Table, given_back: pa.Table) -> pa.Table:
    """A window's own rows and those that were given back, by (ts, event_id); without any, the rows as they were."""
    if not given_back.num_rows:
        return rows
    own_ones = rows.append_column(KNOWN_SINCE, pa.nulls(rows.num_rows, KNOWN_SINCE.type))
    return _ordered(pa.concat_tables([own_ones, given_back]))


def twice(late: Sequence[str], rows: pa.Table) -> set[str]:
    """Ids of late rows that their own window now has itself: mended there, they were sent again in vain."""
    held = pa.array(list(late), pa.string())
    return set(held.filter(pc.is_in(held, value_set=rows["event_id"].combine_chunks())).to_pylist())


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with these columns: one that it was written without is null."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
        elif field.type == NAME:
            columns.append(pa.chunked_array([plain(table[field.name]).dictionary_encode()], NAME))
        else:
            columns.append(table[field.name].cast(field.type))
    return pa.table(columns, schema=schema)


def _ordered(rows: pa.Table) -> pa.Table:
    return rows.unify_dictionaries().combine_chunks().sort_by([("ts", "ascending"), ("event_id", "ascending")])
