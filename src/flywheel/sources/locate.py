"""Where a workspace's rows come from."""

from datetime import datetime
from pathlib import Path

from flywheel.config import Config
from flywheel.sources.files import FileSource
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_database import FILE
from flywheel.sources.inbox_source import InboxSource
from flywheel.sources.source import Source
from flywheel.sources.sql import SqlSource


def locate(config: Config, root: Path, *, until: datetime) -> tuple[Source, ...]:
    """The source of `[source]`, if there is one, and the inbox of a workspace that serves, once there is one.

    `until` is the watermark: of the inbox and of a SQL source without a cursor, what is dated before it is read.

    Raises:
        InboxUnavailable: the inbox cannot be reached.
    """
    found: list[Source] = []
    if config.source is not None:
        given = config.source
        found.append(
            SqlSource(given, config.contract.timestamp, root, until) if given.is_sql else FileSource(given.url, root)
        )
    url = config.inbox.url if config.inbox else None
    if config.serve and (url or (root / FILE).exists()):
        found.append(InboxSource(Inbox.open(url, root), config, until))
    return tuple(found)
