"""The protocol every source follows: it yields deliveries, and a delivery yields raw rows once.

A source is asked for what it holds beyond the marks of earlier deliveries. A mark is a small JSON object that the
source itself wrote when a delivery was read to its end, and that only it reads again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from flywheel.schema import SERVED

Mark = dict[str, Any]

# Columns that a reader may add to a raw batch. Their names hold a NUL, so that no file can bring them.
ROW = "\0row"  # int64: the row's number, where rows between were unreadable
UNREADABLE = "\0unreadable"  # string: why the row could not be read at all; null where it could
LINE = "\0line"  # string: such a row as it stood
LOGGED = {  # what the ranker logged with what it showed: typed, so never read from text
    f"\0{field.name}": pa.field(field.name, getattr(field.type, "value_type", field.type)) for field in SERVED
}
RESERVED = (ROW, UNREADABLE, LINE, *LOGGED)


class Delivery(Protocol):
    """Rows that arrived together."""

    @property
    def name(self) -> str:
        """Stable, unique and safe as a file name: a hash."""

    @property
    def label(self) -> str:
        """What people call it: a file's name, or a database and table; the same on every machine."""

    @property
    def first_row(self) -> int:
        """The number of its first row, from 1."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its raw rows, in bounded memory.

        Raises:
            SourceError: naming the delivery, and after which row it could not be read.
        """

    def mark(self) -> Mark:
        """What to remember of it, once `batches` has been exhausted."""


class Source(Protocol):
    """Somewhere that rows come from."""

    def deliveries(self, marks: Sequence[Mark]) -> Iterator[Delivery]:
        """What has not been taken yet, given the marks of all that has. Read each to its end before the next."""


def delivery_name(*parts: object) -> str:
    """A file-safe name made from what tells one delivery from another.

    >>> delivery_name("../../etc/passwd", 3)
    'b0a5d7f942d1f68c'
    """
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
