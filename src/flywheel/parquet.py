"""Parquet as Flywheel keeps it: equal tables make equal bytes, and wrong bytes are not read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.errors import DataError, IntegrityError

ROW_GROUP = 131_072
RESTORE = "dvc checkout data.dvc"


def write(path: Path, table: pa.Table, note: Mapping[str, str] | None = None) -> None:
    """Write a table, the same bytes however it is chunked and whatever its dictionaries hold besides.

    Each page carries its checksum; `note` goes into the file's metadata. To be called through
    `fingerprint.atomic_write`.
    """
    noted = canonical(table).replace_schema_metadata(note)
    pq.write_table(noted, path, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True)


def read(
    path: Path, columns: Sequence[str] | None = None, *, maybe: Sequence[str] = (), next: str = RESTORE
) -> pa.Table:
    """Read a file, all columns or those named, in that order, then those of `maybe` that it has.

    Page checksums are verified.

    Raises:
        IntegrityError: the file is missing, truncated or corrupted; `next` is the command that helps.
        DataError: it has no such column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            present = file.schema_arrow.names
            more = [c for c in maybe if c in present]
            table = file.read(columns=None if columns is None else [c for c in [*columns, *more] if c in present])
        table.validate(full=True)
    except FileNotFoundError:
        raise IntegrityError(f"{path.name} is missing", where=str(path), next=next) from None
    except (OSError, ValueError, pa.ArrowException, MemoryError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise IntegrityError(f"{path.name} cannot be read", where=str(path), why=why, next=next) from None
    missing = [column for column in columns or () if column not in present]
    if missing:
        why = f"it has: {', '.join(present)}"
        raise DataError(f"{path.name} has no column {', '.join(missing)}", where=str(path), why=why)
    return table if columns is None else table.select(list(dict.fromkeys([*columns, *more])))


def canonical(table: pa.Table) -> pa.Table:
    """The same table in one chunk, without metadata, its dictionaries in order of first appearance."""
    columns = []
    for column, field in zip(table.itercolumns(), table.schema, strict=True):
        if pa.types.is_dictionary(field.type):
            plain = column.cast(field.type.value_type).combine_chunks()
            columns.append(plain.dictionary_encode().cast(field.type))
        elif pa.types.is_list(field.type):  # what a list's values are called depends on whether it was read or made
            columns.append(column.combine_chunks().cast(pa.list_(field.type.value_type)))
        else:
            columns.append(column.combine_chunks())
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))
