"""Where a workspace's rows come from."""

from datetime import datetime
from pathlib import Path

from flywheel.config import Config
from flywheel.sources.files import FileSource
from flywheel.sources.source import Source
from flywheel.sources.sql import SqlSource


def locate(config: Config, root: Path, *, until: datetime) -> tuple[Source, ...]:
    """The source of `[source]`, if there is one; `until`, the watermark, bounds a SQL source without a cursor."""
    found: list[Source] = []
    if config.source is not None:
        given = config.source
        found.append(
            SqlSource(given, config.contract.timestamp, root, until) if given.is_sql else FileSource(given.url, root)
        )
    return tuple(found)
