"""Which kind of source the config names."""

from datetime import datetime
from pathlib import Path

from flywheel.config import Config
from flywheel.sources.files import FileSource
from flywheel.sources.source import Source
from flywheel.sources.sql import SqlSource


def locate(config: Config, root: Path, *, until: datetime) -> Source:
    """The source of `[source]`; `until`, the watermark, bounds a SQL source without a cursor."""
    if config.source.is_sql:
        return SqlSource(config.source, config.contract.timestamp, root, until)
    return FileSource(config.source.url, root)
