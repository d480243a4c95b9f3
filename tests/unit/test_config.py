"""What a config may say, and what of it may be told."""

from typing import Any

import pytest

from flywheel.config import parse
from flywheel.errors import ConfigError
from flywheel.schema import SERVED
from flywheel.sections import BY_THE_RANKER

SERVING: dict[str, Any] = {
    "product": {"name": "shop"},
    "contract": {"timestamp": "ts", "label": "bought"}
    | {role: role for role in ("user", "item", "request", "event_id", "label_time", "position", "propensity")},
    "windows": {"every": "1d", "attribution": "6h", "silence": 0},
    "serve": {},
}


def test_no_password_is_told() -> None:
    url = "postgresql+psycopg://who:se@cret@host:5432/db"
    config = parse(SERVING | {"inbox": {"url": url}, "source": {"url": url, "table": "log"}})
    assert config.inbox is not None
    assert config.inbox.url == url
    assert "cret" not in config.told.model_dump_json()
    assert config.told.inbox is not None
    assert config.told.inbox.url == "postgresql+psycopg://who@host:5432/db"


def test_a_url_without_a_password_is_told_as_it_is() -> None:
    config = parse(SERVING | {"source": {"url": "log/a:b@c.csv"}})
    assert config.told == config


def test_rows_must_come_from_somewhere() -> None:
    with pytest.raises(ConfigError, match=r"add a \[source\] to read, or \[serve\]"):
        parse({key: value for key, value in SERVING.items() if key != "serve"})


def test_whoever_serves_names_what_is_logged() -> None:
    contract = {key: value for key, value in SERVING["contract"].items() if key not in ("propensity", "request")}
    with pytest.raises(ConfigError, match="name columns for request, propensity"):
        parse(SERVING | {"contract": contract})


def test_whoever_serves_looks_no_table_up() -> None:
    table = {"url": "items.csv", "key": "item", "column": "id"}
    with pytest.raises(ConfigError, match="send them with the candidates"):
        parse(SERVING | {"attributes": [table]})


def test_no_context_takes_a_name_that_the_ranker_logs_under() -> None:
    assert {field.name for field in SERVED} == set(BY_THE_RANKER)
    for name in BY_THE_RANKER:
        with pytest.raises(ConfigError, match=f"context may not be called {name}: the ranker logs"):
            parse(SERVING | {"contract": SERVING["contract"] | {"categorical": [name]}})
