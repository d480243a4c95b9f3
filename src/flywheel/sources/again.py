"""Deliveries that were consumed, read once more from where they came: to close their windows by other rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flywheel.config import Config
from flywheel.errors import FlywheelError, SourceError
from flywheel.sources.files import FileDelivery, FileSource
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_source import InboxSource
from flywheel.sources.source import Delivery
from flywheel.sources.spool import Taken
from flywheel.windows import EPOCH, Windows

REPLAYED = Path("inbox") / "replay"


def reread(taken: Sequence[Taken], every: Sequence[Taken], config: Config, root: Path) -> dict[str, Delivery | str]:
    """Each delivery of `taken` by its name, to be read again; or why it cannot be.

    Args:
        taken: what to read again.
        every: all deliveries of the inbox: where one begins is written in the mark of the one before.
        config: where rows come from.
        root: what relative paths are read from.
    """
    found: dict[str, Delivery | str] = {}
    for one in taken:
        try:
            found[one.name] = _again(one, every, config, root)
        except FlywheelError as error:
            found[one.name] = error.what
    return found


def arrivals(lines: Mapping[int, Sequence[str]]) -> dict[str, int]:
    """The window by whose closing each delivery had come, from the shards that windows consumed."""
    first: dict[str, int] = {}
    for window in sorted(lines, reverse=True):
        first |= {shard.partition("/")[0]: window for shard in lines[window]}
    return first


def consumed_by(taken: Taken, arrived: int, grid: Windows) -> dict[int, dict[str, int]]:
    """The shards of a delivery by the window that consumes each, with their rows: its own, or the first to close."""
    found: dict[int, dict[str, int]] = {}
    for shard, rows in taken.shards.items():
        dated = shard.rpartition("/")[2]
        window = arrived if dated == "undated" else max(arrived, grid.parse(dated))
        found.setdefault(window, {})[shard] = rows
    return found


def _again(one: Taken, every: Sequence[Taken], config: Config, root: Path) -> Delivery:
    marks = [known.mark for known in every]
    kind = one.mark.get("kind")
    if kind == "file":
        return _file(one, every, config, root)
    if kind in ("inbox", "inbox rows") and config.serve:
        return InboxSource(Inbox.open(config.inbox_url, root), config, EPOCH).again(one.mark, marks)
    raise SourceError(f"{one.label} cannot be asked for the same rows again")


def _file(one: Taken, every: Sequence[Taken], config: Config, root: Path) -> FileDelivery:
    marks = [known.mark for known in every]
    replayed = root / REPLAYED / one.mark["label"]
    urls = [config.source.url] if config.source and not config.source.is_sql else []
    urls += [str(replayed)] if replayed.exists() else []
    why = f"{one.label} is gone"
    for url in urls:
        try:
            delivery = FileSource(url, root).again(one.mark, one.rows, marks)
        except SourceError as error:
            why = error.what
            continue
        delivery.name = one.name
        return delivery
    raise SourceError(why)
