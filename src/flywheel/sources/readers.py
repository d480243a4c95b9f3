"""Streams of bytes become raw batches: CSV and JSONL line by line, Parquet by row group, all in bounded memory.

CSV cells and JSON values arrive as the text they were, so that "007" stays what it is and a value retyped in row
900,000 is one bad row, not a dead reader. A line that cannot be read at all becomes a row with `UNREADABLE` set.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from flywheel.errors import SourceError
from flywheel.sources.source import LINE, ROW, UNREADABLE

BLOCK = 8 << 20
_ENCODED = b"\xef\xbb\xbf"


@dataclass
class Progress:
    """How far a reader has come: rows read, good or not, bytes unpacked (ahead of the rows), and the columns seen."""

    rows: int = 0
    bytes: int = 0
    columns: list[str] = field(default_factory=list)
    separator: str = ","


Broken = tuple[int, str, str]  # row number, reason, the line
Reader = Callable[[IO[bytes], Progress, str], Iterator[pa.RecordBatch]]


def read_csv(stream: IO[bytes], progress: Progress, label: str) -> Iterator[pa.RecordBatch]:
    """Read CSV parted by comma, semicolon or tab; the header is read unless `progress` already has it."""
    if not progress.columns:
        _read_header(stream, progress, label)
    if not progress.columns:
        return
    broken: list[Broken] = []
    for batch in _open_csv(stream, progress, broken) or ():
        if batch.num_rows:
            yield from _numbered(batch, broken, progress)
    if broken:
        progress.rows += len(broken)
        yield unreadable(broken)


def _header(stream: IO[bytes]) -> str:
    """The first record, which may hold quoted line ends."""
    head = stream.readline().removeprefix(_ENCODED)
    while head.count(b'"') % 2 and (more := stream.readline()):
        head += more
    return head.decode("utf-8").rstrip("\r\n")


def _read_header(stream: IO[bytes], progress: Progress, label: str) -> None:
    header = _header(stream)
    progress.separator = max(",;\t", key=header.count)
    progress.columns = next(csv.reader([header], delimiter=progress.separator), [])
    twice = sorted({name for name in progress.columns if progress.columns.count(name) > 1})
    if twice:
        what = f"{label} has two columns called {', '.join(map(repr, twice))}"
        raise SourceError(what, where=f"{label}, header", next="rename one of them")


def _open_csv(stream: IO[bytes], progress: Progress, broken: list[Broken]) -> pa.csv.CSVStreamingReader | None:
    before = progress.rows

    def note(row: pa.csv.InvalidRow) -> str:
        reason = f"the row has {row.actual_columns} fields and the header {row.expected_columns}"
        broken.append((before + row.number, reason, row.text))
        return "skip"

    try:
        return pa.csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            pa.csv.ReadOptions(column_names=progress.columns, block_size=BLOCK, use_threads=False),
            pa.csv.ParseOptions(delimiter=progress.separator, newlines_in_values=True, invalid_row_handler=note),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(progress.columns, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return None
        raise


def _numbered(batch: pa.RecordBatch, broken: list[Broken], progress: Progress) -> Iterator[pa.RecordBatch]:
    """The batch, with its row numbers where rows among them were unreadable; then those."""
    skipped = [row for row, _, _ in broken]
    reach = np.arange(progress.rows + 1, progress.rows + 1 + batch.num_rows + len(skipped))
    rows = reach[~np.isin(reach, skipped)][: batch.num_rows]
    progress.rows = int(rows[-1])
    passed = [row for row in broken if row[0] <= progress.rows]
    broken[:] = [row for row in broken if row[0] > progress.rows]
    yield batch.append_column(ROW, pa.array(rows)) if passed else batch
    if passed:
        yield unreadable(passed)


def read_jsonl(stream: IO[bytes], progress: Progress, label: str) -> Iterator[pa.RecordBatch]:
    """Read one JSON object per line, strictly: NaN and Infinity are no JSON. A key once seen may be left out later."""
    rest = b""
    while block := stream.read(BLOCK):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from read_objects(lines, progress)
        if len(rest) > 8 * BLOCK:
            raise SourceError(
                f"{label} is not JSON lines",
                where=f"{label}, row {progress.rows + 1}",
                why="the row does not end",
                next="write one object per line",
            )
    yield from read_objects([rest], progress)


def read_objects(lines: Iterable[bytes], progress: Progress) -> Iterator[pa.RecordBatch]:
    """Read JSON objects, one a piece of text, as `read_jsonl` does."""
    good: list[dict[str, Any]] = []
    good_rows: list[int] = []
    broken: list[Broken] = []
    for line in lines:
        if not line.strip():
            continue
        progress.rows += 1
        value = _parse_line(line.removeprefix(_ENCODED) if progress.rows == 1 else line)
        if isinstance(value, dict):
            good.append(value)
            good_rows.append(progress.rows)
        else:
            broken.append((progress.rows, value, line.decode("utf-8", "backslashreplace")))
    if good:
        yield _table(good, good_rows if broken else None, progress)
    if broken:
        yield unreadable(broken)


def _parse_line(line: bytes) -> dict[str, Any] | str:
    """The object, or why it is none."""
    try:
        value = json.loads(line.decode("utf-8"), parse_float=str, parse_int=str, parse_constant=_refuse)
    except UnicodeDecodeError:
        return "the row is not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"the row is not strict JSON: {str(error)[:100]}"
    if not isinstance(value, dict):
        return "the row is not a JSON object"
    if b"\\u0000" in line and any(name.startswith("\0") for name in value):
        return "the name of a column begins with a NUL character"
    if b"\\ud" in line or b"\\uD" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return "the row holds half of a surrogate pair"
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _table(objects: list[dict[str, Any]], rows: list[int] | None, progress: Progress) -> pa.RecordBatch:
    progress.columns = list(dict.fromkeys([*progress.columns, *(key for value in objects for key in value)]))
    arrays = [_strings([value.get(name) for value in objects]) for name in progress.columns]
    names = list(progress.columns)
    if rows is not None:
        arrays, names = [*arrays, pa.array(rows, pa.int64())], [*names, ROW]
    return pa.record_batch(arrays, names=names)


def _strings(values: list[Any]) -> pa.Array:
    """Strings; lists of strings as soon as one value is a list."""
    if any(isinstance(value, list) for value in values):
        nested = [value if isinstance(value, list) else None if value is None else [value] for value in values]
        return pa.array([None if v is None else [_word(part) for part in v] for v in nested], pa.list_(pa.string()))
    return pa.array([_word(value) for value in values], pa.string())


def _word(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def unreadable(broken: list[Broken]) -> pa.RecordBatch:
    """A batch of rows that could not be read."""
    numbers, reasons, lines = zip(*broken, strict=True)
    arrays = [pa.array(numbers, pa.int64()), pa.array(reasons, pa.string()), pa.array(lines, pa.string())]
    return pa.record_batch(arrays, names=[ROW, UNREADABLE, LINE])


def read_parquet(stream: IO[bytes], progress: Progress, label: str) -> Iterator[pa.RecordBatch]:
    """Read Parquet by row group, 64 Ki rows at a time."""
    del label
    with pa.parquet.ParquetFile(stream) as file:
        progress.columns = list(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=1 << 16):
            progress.rows += batch.num_rows
            yield batch
