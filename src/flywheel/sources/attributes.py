"""Attribute tables: small files, read whole and typed as the config says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flywheel.errors import SourceError
from flywheel.schema import NAME
from flywheel.sections import Attributes
from flywheel.sources.columns import Parsed, flags, lists, names, numbers
from flywheel.sources.files import FileSource
from flywheel.sources.source import RESERVED, UNREADABLE


def read_attributes(spec: Attributes, root: Path) -> pa.Table:
    """The table of one `[[attributes]]`: its key as strings, its numbers, names and lists.

    Raises:
        SourceError: the file or a column is missing, a value is not what the config says, or a key is empty or twice.
    """
    tables, row = [], 1
    for delivery in FileSource(spec.url, root).deliveries(()):
        for batch in delivery.batches():
            tables.append(_typed(batch, spec, row))
            row += batch.num_rows
    if not tables:
        return pa.table(
            {name: pa.nulls(0, pa.string()) for name in (spec.column, *spec.numeric, *spec.categorical, *spec.lists)}
        )
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    counts = pc.value_counts(table[spec.column])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        what = f"{spec.url} has {spec.column} {twice[0]['values'].as_py()!r:.80} twice"
        raise SourceError(what, where=spec.url, why="each key may stand there once", next="remove one of the two rows")
    return table


def _typed(batch: pa.RecordBatch, spec: Attributes, first_row: int) -> pa.Table:
    wanted = (spec.column, *spec.numeric, *spec.categorical, *spec.lists)
    if UNREADABLE in batch.schema.names:
        raise SourceError(f"{spec.url} has a row that cannot be read", where=spec.url, why=batch[UNREADABLE][0].as_py())
    missing = [name for name in wanted if name not in batch.schema.names]
    if missing:
        has = ", ".join(name for name in batch.schema.names if name not in RESERVED)
        fix = "name the right column in [[attributes]] of flywheel.toml"
        raise SourceError(
            f"{spec.url} has no column {missing[0]!r}", where=spec.url, why=f"it has: {has[:300]}", next=fix
        )
    parsed = {name: numbers(batch[name], name) for name in spec.numeric}
    parsed |= {name: names(batch[name], name) for name in (spec.column, *spec.categorical)}
    parsed |= {name: lists(batch[name], name, separator) for name, separator in spec.lists.items()}
    for name in wanted:
        _check(parsed[name], batch[name], spec.url, first_row)
    if (keys := parsed[spec.column].values).null_count:
        where = f"{spec.url}, row {first_row + flags(keys.is_null()).argmax()}"
        raise SourceError(f"{spec.column} is empty", where=where, next="give the row a key, or remove it")
    columns = {name: parsed[name].values for name in wanted}
    return pa.table(columns | {name: columns[name].cast(NAME) for name in spec.categorical})


def _check(parsed: Parsed, raw: pa.Array, url: str, first_row: int) -> None:
    for fault in parsed.faults:
        at = int(fault.rows.argmax())
        raise SourceError(fault.says(raw[at].as_py()), where=f"{url}, row {first_row + at}", next="correct the row")
