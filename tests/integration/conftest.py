from collections.abc import Callable

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def inbox_url(request: pytest.FixtureRequest) -> str | None:
    """Where an empty inbox is to be made: in a file, and on a server."""
    if request.param == "sqlite":
        return None
    make: Callable[[], str] = request.getfixturevalue("fresh_schema")
    return make()
