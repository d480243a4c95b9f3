"""Files as a source: CSV, JSONL and Parquet, gzipped or not, one or a glob, wherever fsspec reads.

A file is known by its name, its size and a fingerprint of its head and tail. Of a text file that only grew, the
rows after those taken are read; any other change makes it a new delivery as a whole.
"""

import gzip
import io
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
import xxhash

from flywheel.errors import SourceError
from flywheel.sources.readers import Progress, Reader, read_csv, read_jsonl, read_parquet
from flywheel.sources.source import Mark, delivery_name

_EDGE = 64 << 10
_READERS: dict[str, Reader] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_csv),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), read_jsonl),
    **dict.fromkeys((".parquet", ".pq"), read_parquet),
}


class NoFileError(SourceError):
    """No file has the name, or matches the pattern."""


@dataclass(frozen=True)
class FileSource:
    """Every file that `url` names, in the order of their names; a relative one is read from `root`."""

    url: str
    root: Path

    def deliveries(self, marks: Sequence[Mark]) -> Iterator["FileDelivery"]:
        """Files that are new, replaced or longer than their marks say.

        Raises:
            SourceError: nothing matches, or it cannot be reached.
        """
        filesystem, paths, base = self._paths()
        for path in paths:
            label = posixpath.relpath(path, base)
            with reading(label):
                found = _Bytes(filesystem, path)
            own = [mark for mark in marks if mark.get("kind") == "file" and mark["label"] == label]
            if any((mark["size"], mark["fingerprint"]) == (found.size, found.fingerprint) for mark in own):
                continue
            yield FileDelivery(label, found, _grown_from(found, own))

    def again(self, mark: Mark, rows: int, marks: Sequence[Mark]) -> "FileDelivery":
        """The delivery that left a mark, to be read once more; `rows` is how many it had, `marks` those of all.

        Raises:
            SourceError: the file is gone, or does not begin with what was read then.
        """
        filesystem, paths, base = self._paths()
        path = next((path for path in paths if posixpath.relpath(path, base) == mark["label"]), None)
        if path is None:
            raise SourceError(f"{mark['label']} is gone", where=self.url)
        with reading(mark["label"]):
            found = _Bytes(filesystem, path)
        same = (mark["size"], mark["fingerprint"]) == (found.size, found.fingerprint)
        if not same and (found.reader is read_parquet or not found.begins_with(mark)):
            raise SourceError(f"{mark['label']} was rewritten since", where=self.url)
        own = [one for one in marks if one.get("kind") == "file" and one["label"] == mark["label"]]
        earlier = (one for one in own if one["rows"] == mark["rows"] - rows and one["bytes"] < mark["bytes"])
        before = next((one for one in earlier if found.begins_with(one)), None) if mark["rows"] > rows else None
        return FileDelivery(mark["label"], found, before, upto=None if same else mark)

    def _paths(self) -> tuple[Any, list[str], str]:
        local = "://" not in self.url and "::" not in self.url
        url = str(self.root / Path(self.url).expanduser()) if local else self.url
        with reading(self.url):
            filesystem, path = fsspec.core.url_to_fs(url)
            exact = filesystem.exists(path)
            paths = [path] if exact else sorted(filesystem.glob(path)) if any(c in path for c in "*?[") else []
            if exact and filesystem.isdir(path):
                raise SourceError(
                    f"{self.url} is a folder", where=self.url, next=f"name its files: {self.url.rstrip('/')}/*.csv"
                )
            paths = [name for name in paths if filesystem.isfile(name)]
        if not paths:
            what = f"no file matches {self.url}" if any(c in self.url for c in "*?[") else f"{self.url} does not exist"
            raise NoFileError(
                what,
                where=self.url,
                why=f"read from {self.root}" if local else "",
                next="edit source.url in flywheel.toml",
            )
        return filesystem, paths, _fixed_folder(path)


def _fixed_folder(path: str) -> str:
    """The folder that no wildcard is in: names below it are the same on every machine."""
    folder = posixpath.dirname(path)
    while any(c in folder for c in "*?["):
        folder = posixpath.dirname(folder)
    return folder


class _Bytes:
    """A file's bytes, decompressed, with what it is known by."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self.size: int = filesystem.size(path)
        with filesystem.open(path, "rb") as raw:
            head = raw.read(_EDGE)
            raw.seek(max(0, self.size - _EDGE))
            self.fingerprint = xxhash.xxh3_128_hexdigest(head + raw.read(_EDGE))
        self.zipped = head[:2] == b"\x1f\x8b"
        self.reader = _reader(path, head)

    def begins_with(self, mark: Mark) -> bool:
        """Whether it still begins with the bytes that left a mark."""
        with reading(mark["label"]), self.open() as raw:
            return _Counted(raw).skip(mark["bytes"]) == str(mark["digest"])

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        with self._filesystem.open(self._path, "rb") as raw:
            if not self.zipped:
                yield raw
                return
            with gzip.open(raw, "rb") as unzipped:
                yield cast(IO[bytes], unzipped)


def _reader(path: str, head: bytes) -> Reader:
    """By the name's ending, else by the first bytes."""
    ending = posixpath.splitext(path.lower().removesuffix(".gz"))[1]
    if ending in _READERS:
        return _READERS[ending]
    if head[:4] == b"PAR1":
        return read_parquet
    return read_jsonl if head[:1] == b"{" else read_csv


class _Counted(io.RawIOBase):
    """A stream that remembers how much of it was read, the hash of that, and whether it ended with a line.

    With `most`, it ends after so many bytes.
    """

    def __init__(self, stream: IO[bytes], progress: Progress | None = None, most: int | None = None) -> None:
        self._stream, self._hash, self._progress = stream, xxhash.xxh3_128(), progress or Progress()
        self._most = most
        self.ended = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(self._least(len(buffer)))
        buffer[: len(block)] = block
        return self._note(block)

    def readline(self, size: int | None = -1) -> bytes:
        line = self._stream.readline(self._least(size if size is not None else -1))
        self._note(line)
        return line

    def read(self, size: int | None = -1) -> bytes:
        block = self._stream.read(self._least(size if size is not None else -1))
        self._note(block)
        return block

    def _least(self, size: int) -> int:
        left = size if self._most is None else max(0, self._most - self._progress.bytes)
        return left if size < 0 else min(size, left)

    def _note(self, block: bytes) -> int:
        if block:
            self._hash.update(block)
            self._progress.bytes += len(block)
            self.ended = block[-1:] == b"\n"
        return len(block)

    def skip(self, count: int) -> str:
        """Read `count` bytes, and give the hash of them."""
        while count > 0 and (block := self.read(min(count, 1 << 20))):
            count -= len(block)
        return self.digest

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _grown_from(found: _Bytes, marks: Sequence[Mark]) -> Mark | None:
    """The longest mark whose bytes the file still begins with."""
    if found.reader is read_parquet:
        return None
    text = [mark for mark in marks if mark["bytes"] and mark["ended"] and mark["columns"]]
    longest_first = sorted(text, key=lambda mark: int(mark["bytes"]), reverse=True)
    return next((mark for mark in longest_first if found.begins_with(mark)), None)


class FileDelivery:
    """One file, or what it grew by; with a mark `upto`, no more of it than left that."""

    def __init__(self, label: str, found: _Bytes, grown_from: Mark | None = None, *, upto: Mark | None = None) -> None:
        self.label, self._found, self._before, self._upto = label, found, grown_from, upto
        self.name = delivery_name("file", label, found.size, found.fingerprint)
        self.first_row = (grown_from["rows"] if grown_from else 0) + 1
        self._mark: Mark = {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its raw rows, in bounded memory; see `Delivery`."""
        before = self._before
        progress = Progress()
        if before:
            progress = Progress(before["rows"], 0, list(before["columns"]), before["separator"])
        with reading(self.label, progress), self._found.open() as raw:
            if self._found.reader is read_parquet:
                yield from read_parquet(raw, progress, self.label)
                self._mark = self._marked(progress, "", ended=False)
                return
            counted = _Counted(raw, progress, self._upto["bytes"] if self._upto else None)
            counted.skip(before["bytes"] if before else 0)
            yield from self._found.reader(counted, progress, self.label)  # type: ignore[arg-type]
            self._mark = self._marked(progress, counted.digest, ended=counted.ended)

    def mark(self) -> Mark:
        """What to remember of the file; empty until it has been read to its end."""
        return self._mark

    def _marked(self, progress: Progress, digest: str, *, ended: bool) -> Mark:
        found = {"kind": "file", "label": self.label, "size": self._found.size, "fingerprint": self._found.fingerprint}
        consumed = {"bytes": progress.bytes, "digest": digest, "ended": ended}
        return found | consumed | {"rows": progress.rows, "columns": progress.columns, "separator": progress.separator}


@contextmanager
def reading(label: str, progress: Progress | None = None) -> Iterator[None]:
    """Whatever a file may do to its reader becomes a SourceError that says which file, and after which row."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what, why = f"{label} is cut short or damaged", f"gzip: {error}"
    except pa.ArrowException as error:
        what, why = f"{label} cannot be read", " ".join(str(error).split())[:200]
    except UnicodeDecodeError as error:
        what, why = f"{label} is not UTF-8", str(error)[:200]
    except (OSError, ImportError, ValueError) as error:
        what, why = f"{label} cannot be read", " ".join(str(error).split())[:200]
    else:
        return
    where = label
    if progress is not None:
        where += f", after row {progress.rows}"
        where += f", within its first {progress.bytes} bytes unpacked" if progress.bytes else ""
    raise SourceError(
        what, where=where, why=why, next="restore the file and run the same command again; nothing of it was kept"
    )
