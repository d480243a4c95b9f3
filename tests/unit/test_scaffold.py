import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flywheel.config import Config, load, parse
from flywheel.errors import ConfigError
from flywheel.scaffold import render, write_config, write_ignored, write_workspace
from flywheel.sections import Section

SMALL: dict[str, Any] = {
    "product": {"name": "shop"},
    "source": {"url": "log.csv"},
    "contract": {"timestamp": "ts", "label": "rating >= 4"},
    "windows": {"every": "7d"},
}
LARGE: dict[str, Any] = {
    "product": {"name": "shop"},
    "source": {"url": "postgresql://host/db", "query": "select * from \"log\"\nwhere x > '0'", "cursor": "id"},
    "contract": {
        "timestamp": 'the "time" # of it',
        "label": "state == 'sold'",
        "user": "naïve\\user",
        "numeric": [f"a rather long column name, number {k}" for k in range(9)],
        "categorical": ["with ] bracket", "emoji 🎈"],
        "lists": {"genres of it": "|", "tags": ";"},
        "naive_timestamps": "utc",
    },
    "attributes": [
        {"url": "items.csv", "key": "item", "column": "item_id", "categorical": ["brand"], "lists": {"kinds": ","}},
        {"url": "users.csv", "key": "user", "column": "user_id", "numeric": ["age"]},
    ],
    "windows": {
        "every": "90s",
        "attribution": "36h",
        "lateness": "5m",
        "silence": 0,
        "origin": "2020-01-01T03:00:00+02:00",
    },
    "features": {
        "smoothing": 3.5,
        "counters": [{"key": ["user"], "half_lives": ["6h", "forever"]}, {"key": ["user", "tags"], "backoff": "user"}],
    },
    "train": {"params": {"max_depth": 3, "tree_method": "hist", "eta": 0.1}, "seed": 7},
    "exam": {"windows": 3, "rows": 10},
    "gate": {"metric": "log_loss", "margin": 0.0},
    "max_quarantined": 0.5,
}

SERVING: dict[str, Any] = {
    "product": {"name": "shop"},
    "inbox": {"url": "postgresql://host/db"},
    "contract": {"timestamp": "ts", "label": "bought"}
    | {role: role for role in ("user", "item", "request", "event_id", "label_time", "position", "propensity")},
    "windows": {"every": "1d", "attribution": "6h", "silence": 0},
    "serve": {"explore": 0.2},
}


@pytest.mark.parametrize("values", [SMALL, LARGE, SERVING])
def test_what_is_written_reads_back_the_same(values: dict[str, Any], tmp_path: Path) -> None:
    config = parse(values)
    write_config(tmp_path, config)
    assert load(tmp_path) == config


@pytest.mark.parametrize("values", [SMALL, LARGE, SERVING])
def test_every_shown_default_may_be_uncommented(values: dict[str, Any]) -> None:
    config = parse(values)
    lines = render(config).splitlines()
    shown = [k for k, line in enumerate(lines) if line.startswith("# ") and " = " in line and "..." not in line]
    shown = [k for k in shown if lines[k].removeprefix("# ").split(" = ")[0].isidentifier()]
    named = ("url", "key", "column", "categorical")  # of the example of an attribute table
    shown = [k for k in shown if not ("attributes" not in values and lines[k].removeprefix("# ").startswith(named))]
    shown = [k for k in shown if not lines[k].startswith("# metric")]
    assert len(shown) > 10
    for k in shown:
        lines[k] = lines[k].removeprefix("# ")
    assert parse(tomllib.loads("\n".join(lines))) == config


@pytest.mark.parametrize("values", [LARGE, SERVING])
def test_every_comment_is_a_description_of_the_config(values: dict[str, Any]) -> None:
    text = render(parse(values))
    for name, field in Config.model_fields.items():
        value = getattr(parse(values), name)
        if value is None:
            assert f"[{name}]" not in text
            continue
        if isinstance(value, Section):
            said = [inner.description or "" for inner in type(value).model_fields.values()]
            assert all(said), f"[{name}] has a key without a description"
            assert all(line in text for line in said if line != "what is remembered, and by which key")
            assert f"# {(type(value).__doc__ or '').strip()}\n[{name}]" in text
        elif name != "attributes":
            assert field.description
            assert field.description in text


def test_what_matters_is_there_and_what_does_not_is_not() -> None:
    text = render(parse(SMALL))
    assert '\nattribution = "0d"' in text
    assert "\nwindows = 1 " in text
    assert "cursor" not in text  # a file has none
    assert "# margin = 0.002" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_no_workspace_is_written_over(tmp_path: Path) -> None:
    write_config(tmp_path, parse(SMALL))
    before = (tmp_path / "flywheel.toml").read_bytes()
    with pytest.raises(ConfigError, match="is a workspace already"):
        write_workspace(tmp_path, parse(LARGE), {"events": {"name": "events"}})
    with pytest.raises(ConfigError, match="is a workspace already"):
        write_config(tmp_path, parse(LARGE))
    assert (tmp_path / "flywheel.toml").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flywheel.toml"]


def test_a_workspace_has_its_files_and_the_config_comes_last(tmp_path: Path) -> None:
    suite = {"name": "events", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "naïve"}}]}
    root = tmp_path / "new" / "shop"
    written = write_workspace(root, parse(SMALL), {"events": suite})
    assert [str(path.relative_to(root)) for path in written] == [
        ".gitignore",
        "expectations/events.json",
        "flywheel.toml",
    ]
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == [".gitignore", "events.json", "flywheel.toml"]
    text = written[1].read_text(encoding="utf-8")
    assert json.loads(text) == suite
    assert "naïve" in text  # to be read and edited by hand


def test_a_suite_that_is_no_strict_json_leaves_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_workspace(tmp_path, parse(SMALL), {"events": {"min": float("nan")}})
    assert not (tmp_path / "flywheel.toml").exists()


def test_ignored_lines_are_added_once_and_none_is_lost(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n/inbox/", encoding="utf-8")
    write_ignored(tmp_path)
    path = write_ignored(tmp_path)
    assert path.read_text(encoding="utf-8") == "*.log\n/inbox/\n/.flywheel/\n/mlruns/\n"


def test_an_origin_is_written_as_a_time() -> None:
    text = render(parse(LARGE))
    found = tomllib.loads(text)["windows"]["origin"]
    assert isinstance(found, datetime)
    assert found.astimezone(UTC) == datetime(2020, 1, 1, 1, tzinfo=UTC)
