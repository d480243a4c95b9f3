"""A look at a source before there is a contract: some of its rows, from all over it, columns as they came."""

import difflib
import gzip
import io
import math
import posixpath
import re
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import sqlalchemy as sa

from flywheel.errors import SourceError
from flywheel.sections import SourceConfig
from flywheel.sources.files import reading
from flywheel.sources.readers import Progress, Reader, read_csv, read_jsonl
from flywheel.sources.source import RESERVED, UNREADABLE
from flywheel.sources.sql import SqlSource, _array, _url, talking

ROWS = b"flywheel.rows"  # metadata of a sample: how many rows the whole source has, about
PART = b"flywheel.part"  # metadata of a sample: "spread" from the first row to the last, or only the "head"
TEXTS: dict[str, Reader] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_csv),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), read_jsonl),
}
SPOTS = 20
UNPACKED = 256 << 20  # bytes of a gzip that are unpacked to look at; of a larger one, only its head is seen
_VALUE = r"[-+]?[\d.]+([eE][-+]?\d+)?|\d{4}-\d\d-\d\d.*|"  # what a column is never called

Seen = tuple[pa.Table, int, bool]  # rows, how many there are in all, and whether the last was within reach


def read_sample(
    url: str, root: Path, *, table: str | None = None, query: str | None = None, rows: int = 20_000
) -> pa.Table:
    """At most `rows` rows, in runs of neighbours from about 20 places between the first row and the last.

    Columns of text files are strings, lists of JSON are lists of strings; Parquet and SQL keep their types. The
    schema's metadata says how many rows the whole has, about (`ROWS`), and which part was seen (`PART`).

    Raises:
        SourceError: there is nothing to read, or it cannot be read; names the file and what is near it.
    """
    if SourceConfig.model_construct(url=url).is_sql:
        sample, total, whole = _read_sql(url, root, table=table, query=query, rows=rows)
    else:
        sample, total, whole = _read_files(url, root, rows)
    if not sample.num_rows:
        raise SourceError(f"{hide(url)} has no rows", where=hide(url), next="flywheel init DIR --from ANOTHER")
    sample = _thin(sample, rows)
    part = b"spread" if whole else b"head"
    return sample.replace_schema_metadata({ROWS: str(max(total, sample.num_rows)), PART: part})


def total_rows(sample: pa.Table) -> int:
    """How many rows the whole source has, about; those of the sample if it doesn't say."""
    return int((sample.schema.metadata or {}).get(ROWS, sample.num_rows))


def sees_whole_range(sample: pa.Table) -> bool:
    """Whether the sample reaches from the first row of the source to its last."""
    return bool((sample.schema.metadata or {}).get(PART, b"spread") == b"spread")


def hide(url: str) -> str:
    """A URL without the user and password in it.

    >>> hide("postgresql://me:secret@host/db")
    'postgresql://…@host/db'
    """
    return re.sub(r"//[^@/]*@", "//…@", url)


def _read_files(url: str, root: Path, rows: int) -> Seen:
    fs, paths = _find(url, root)
    chosen = [paths[k] for k in _evenly(len(paths), SPOTS)]
    each = [_read_file(fs, path, math.ceil(rows / len(chosen))) for path in chosen]
    shares = sum(fs.size(path) for path in chosen) / max(1, sum(fs.size(path) for path in paths))
    total = round(sum(found for _, found, _ in each) / max(shares, 1e-9))
    return _concat([found for found, _, _ in each]), total, len(each) > 1 or each[0][2]


def _find(url: str, root: Path) -> tuple[Any, list[str]]:
    """The file system and the files that a URL or glob means, in order of name."""
    with reading(url):
        fs, path = fsspec.url_to_fs(url if "://" in url else str(root / Path(url).expanduser()))
        if fs.isdir(path):
            raise SourceError(f"{url} is a folder", where=path, next=f"name its files: {url.rstrip('/')}/*.csv")
        pattern = re.search(r"[*?\[]", path) and not fs.isfile(path)
        paths = [name for name in (sorted(fs.glob(path)) if pattern else [path]) if fs.isfile(name)]
        if not paths:
            what = f"no file matches {url}" if pattern else f"there is no file {url}"
            raise SourceError(what, where=path, why=_near(fs, path))
    return fs, paths


def _near(fs: Any, path: str) -> str:
    folder, name = posixpath.split(path)
    if not fs.isdir(folder):
        return f"there is no folder {folder} either"
    names = sorted(posixpath.basename(found) for found in fs.ls(folder, detail=False))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    return f"the nearest names there: {', '.join(near)}" if near else "the folder is empty"


def _read_file(fs: Any, path: str, rows: int) -> Seen:
    name, size = posixpath.basename(path), int(fs.size(path))
    if size == 0:
        raise SourceError(f"{name} is empty", where=path, why="it holds no byte")
    with reading(name), fs.open(path, "rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if head == b"PAR1" or name.endswith((".parquet", ".pq")):
            return _read_parquet(stream, rows)
        text, lines, whole = _unpack(stream, rows, size) if head[:2] == b"\x1f\x8b" else _lines(stream, rows)
        table = _parse(text, name, path)
        return table, round(lines * table.num_rows / _count(text)), whole


def _unpack(stream: IO[bytes], rows: int, size: int) -> tuple[bytes, int, bool]:
    unpacked, lines = io.BytesIO(), 1
    with gzip.GzipFile(fileobj=stream) as packed:
        while (chunk := packed.read(1 << 20)) and unpacked.tell() < UNPACKED:
            unpacked.write(chunk)
            lines += chunk.count(b"\n")
    consumed, whole = stream.tell(), not chunk
    text, _, _ = _lines(unpacked, rows)
    return text, lines if whole else round(lines * size / consumed), whole


def _lines(stream: IO[bytes], rows: int) -> tuple[bytes, int, bool]:
    """About `rows` whole lines of a text, its first line first, and how many lines it has in all."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(1 << 20)
    length = len(head) / max(1, head.count(b"\n"))
    if size <= max(4 << 20, length * rows * 1.5):
        text = head + stream.read()
        return text, _count(text), True
    span = math.ceil(length * (rows / SPOTS + 2))
    pieces = [_piece(stream, (size - span) * spot // (SPOTS - 1), span) for spot in range(SPOTS)]
    return b"".join(pieces), round(size / length), True


def _count(text: bytes) -> int:
    """How many lines a text has."""
    return text.count(b"\n") + (not text.endswith(b"\n"))


def _piece(stream: IO[bytes], start: int, span: int) -> bytes:
    stream.seek(start)
    piece = stream.read(span)
    begin = piece.find(b"\n") + 1 if start else 0
    return piece[begin : piece.rfind(b"\n") + 1]


def _parse(text: bytes, name: str, path: str) -> pa.Table:
    """The readable rows of a text; its format by the name's ending, else by what it begins with."""
    ending = posixpath.splitext(name.lower().removesuffix(".gz"))[1]
    reader = TEXTS.get(ending, read_jsonl if text[:1] == b"{" else read_csv)
    if b"\0" in text[:4096]:
        why = f"it reads {', '.join([*TEXTS, '.parquet'])}, and .gz of text"
        raise SourceError(f"Flywheel does not know the format of {name}", where=path, why=why)
    progress = Progress()
    batches = list(reader(io.BytesIO(text), progress, name))
    if reader is read_csv:
        _check_header(progress.columns, path)
    good = [batch for batch in batches if UNREADABLE not in batch.schema.names]
    if not good and batches:
        why = f"{batches[0][UNREADABLE][0]}, in row 1"
        raise SourceError(f"no row of {name} can be read", where=path, why=why)
    kept = [batch.select([c for c in batch.schema.names if c not in RESERVED]) for batch in good]
    return _concat([pa.table(batch) for batch in kept]) if kept else pa.table({})


def _check_header(names: list[str], path: str) -> None:
    values = [name for name in names if re.fullmatch(_VALUE, name.strip())]
    if 2 * len(values) >= max(1, len(names)):
        where, why = f"{path}, line 1", f"its first line is {', '.join(names)[:60]!r}"
        raise SourceError(
            f"{posixpath.basename(path)} has no header", where=where, why=why, next="write column names there"
        )


def _read_parquet(stream: IO[bytes], rows: int) -> Seen:
    file = pyarrow.parquet.ParquetFile(stream)
    groups = _evenly(file.num_row_groups, SPOTS)
    each = [_thin(file.read_row_group(group), math.ceil(rows / len(groups))) for group in groups]
    return pa.concat_tables(each) if each else file.schema_arrow.empty_table(), file.metadata.num_rows, True


def _read_sql(url: str, root: Path, *, table: str | None, query: str | None, rows: int) -> Seen:
    if (table is None) == (query is None):
        what = "a SQL source needs either a table or a query"
        raise SourceError(what, where=hide(url), next="flywheel init DIR --from URL --table NAME")
    config = SourceConfig(url=url, table=table, query=query, cursor=None)
    page, label = max(1, rows // SPOTS), table or "the query"
    with talking(label), sa.create_engine(_url(url, root)).connect() as connection:
        source = SqlSource(config, "", root)._selection(connection, label)
        total = connection.execute(sa.select(sa.func.count()).select_from(source)).scalar_one()
        starts = [spot * page for spot in _evenly(math.ceil(total / page), SPOTS)]
        pages = [connection.execute(sa.select(source).limit(page).offset(start)).all() for start in starts]
    columns = zip(*(record for found in pages for record in found), strict=True)
    arrays = {name: _array(list(column)) for name, column in zip(source.c.keys(), columns, strict=False)}
    return pa.table(arrays), total, True


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of the first `count` numbers, evenly spread, the first and the last among them.

    >>> _evenly(9, 3)
    [0, 4, 8]
    """
    return list(range(count)) if count <= most else [k * (count - 1) // (most - 1) for k in range(most)]


def _thin(table: pa.Table, rows: int) -> pa.Table:
    """At most `rows` rows, in runs from evenly spread places."""
    if table.num_rows <= rows:
        return table
    runs = min(SPOTS, rows)
    length = rows // runs
    starts = [(table.num_rows - length) * k // max(1, runs - 1) for k in range(runs)]
    return pa.concat_tables([table.slice(start, length) for start in starts])


def _concat(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.concat_tables([_as_text(table) for table in tables], promote_options="permissive")


def _as_text(table: pa.Table) -> pa.Table:
    return pa.table(
        {
            name: pa.array([None if v is None else str(v) for v in table[name].to_pylist()], pa.string())
            for name in table.column_names
        }
    )
