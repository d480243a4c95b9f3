"""One Prefect API for all flow tests: booted once, migrated once, quiet."""

import os
from collections.abc import Iterator

import pytest

from flywheel.integrations.prefect_api import History, boot, ready


@pytest.fixture(scope="session", autouse=True)
def prefect_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Flows called in a test, and commands started by one, record here instead of booting an API each."""
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    with ready(boot(tmp_path_factory.mktemp("prefect"))) as history:
        assert history.url is not None, history.note
        os.environ["PREFECT_API_URL"] = history.url
        yield history
    os.environ.clear()
    os.environ.update(before)
