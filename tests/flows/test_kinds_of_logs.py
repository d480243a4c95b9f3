"""Every kind of log that a product may have goes from `flywheel init` to a generation."""

import csv
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows import inspect, starting
from flywheel.data import collect, dataset
from flywheel.errors import ConfigError, SourceError
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.records import Generation
from flywheel.sources import attributes
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell

POLICY = {name: world.QUICK[name] for name in ("train", "exam", "gate")}
GRID = {"every": "3d"}


def ratings(rows: int = 3000) -> list[dict[str, Any]]:
    """A month of ratings from 1 to 5, which depend on user, item and hour, in order of time."""
    rng = np.random.default_rng(7)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    taste, quality = rng.normal(size=60), rng.normal(size=25)
    made = []
    for number in range(rows):
        user, item, hour = int(rng.integers(60)), int(rng.integers(25)), int(rng.integers(24))
        at = start + timedelta(days=30 * number / rows, minutes=hour)
        liked = 3 + taste[user] + quality[item] + (0.5 if hour > 18 else 0) + rng.normal(0, 0.4)
        made.append(
            {
                "when": at.isoformat(),
                "who": f"u{user}",
                "what": f"i{item}",
                "rating": int(np.clip(round(liked), 1, 5)),
                "hour": hour,
                "mood": ["calm", "wild"][hour % 2],
                "tags": "|".join(sorted({f"t{item % 5}", f"t{hour % 3}"})),
            }
        )
    return made


def write(path: Path, rows: list[dict[str, Any]], *, leave_out: tuple[str, ...] = ()) -> Path:
    kept = [{name: value for name, value in row.items() if name not in leave_out} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(kept)
    return path


def generation(root: Path, source: str, counters: list[dict[str, Any]], **given: Any) -> tuple[Workspace, Generation]:
    """Init, look at every row, one turn: the generation."""
    starting.start(root, source, {"timestamp": "when", **given})
    ws = world.amend(root, windows=GRID, features={"counters": counters}, **POLICY)
    with ready(Booting(fault="a test needs no history")):
        turned = world.turning.turn(ws.root, datetime(2026, 2, 10, tzinfo=UTC), trigger="test")
    assert turned.generation == 1, turned
    assert dataset.totals(ws.ledger()).collected == dataset.totals(ws.ledger()).rows
    return ws, inspect.generations(ws)[0]


def test_a_label_may_be_a_number(tmp_path: Path) -> None:
    source = write(tmp_path / "ratings.csv", ratings())
    ws, made = generation(
        tmp_path / "ws",
        str(source),
        [{"key": ["user"]}, {"key": ["item"]}],
        label="rating",
        kind="number",
        user="who",
        item="what",
    )
    assert (ws.config.contract.kind, ws.config.metric) == ("number", "rmse")
    assert {"rmse", "mae", "r2"} <= set(made.metrics)
    assert made.verdict == "promote", made.reason
    assert made.metrics["rmse"] < made.baseline["rmse"]
    assert made.difference is not None
    assert made.difference.estimate == pytest.approx(made.baseline["rmse"] - made.metrics["rmse"])
    assert made.reason.startswith("RMSE ")


def test_a_label_may_be_a_comparison(tmp_path: Path) -> None:
    rows = ratings()
    source = write(tmp_path / "ratings.csv", rows)
    ws, made = generation(
        tmp_path / "ws",
        str(source),
        [{"key": ["user"]}, {"key": ["item"]}],
        label="rating >= 4",
        user="who",
        item="what",
    )
    labels = pa.chunked_array(
        dataset.read_window(ws.data, line.window, ["label"])["label"].chunk(0) for line in ws.ledger()
    )
    assert pc.sum(labels).as_py() == sum(row["rating"] >= 4 for row in rows)
    assert made.metrics["auc"] > 0.8


@pytest.mark.parametrize(
    ("left_out", "counters"),
    [
        (("who",), [{"key": ["item"]}]),
        (("what",), [{"key": ["user"]}]),
        (("who", "what"), [{"key": ["mood"]}]),
    ],
)
def test_a_log_may_lack_users_items_or_both(
    tmp_path: Path, left_out: tuple[str, ...], counters: list[dict[str, Any]]
) -> None:
    source = write(tmp_path / "log.csv", ratings(), leave_out=left_out)
    roles = {role: name for role, name in (("user", "who"), ("item", "what")) if name not in left_out}
    ws, made = generation(tmp_path / "ws", str(source), counters, label="rating >= 4", **roles)
    assert ws.config.contract.user == roles.get("user")
    assert ws.config.contract.item == roles.get("item")
    assert made.train_users == (60 if "user" in roles else 0)
    assert made.verdict in ("promote", "keep", "reject")


def test_a_column_may_hold_lists_in_jsonl(tmp_path: Path) -> None:
    rows = [{**row, "tags": row["tags"].split("|")} for row in ratings()]
    source = write(tmp_path / "log.jsonl", rows)
    ws, _ = generation(
        tmp_path / "ws",
        str(source),
        [{"key": ["user"]}, {"key": ["tags"]}, {"key": ["user", "tags"], "backoff": "user"}],
        label="rating >= 4",
        user="who",
        item="what",
    )
    stored = dataset.read_window(ws.data, ws.ledger()[0].window, ["tags"])["tags"]
    assert stored[0].as_py() in [sorted(row["tags"]) for row in rows]
    assert any(name.startswith("tags__") for name in ws.recipe.names)


def test_an_attribute_table_joins_as_windows_close(tmp_path: Path) -> None:
    source = write(tmp_path / "log.csv", ratings())
    root = tmp_path / "ws"
    starting.start(root, str(source), {"timestamp": "when", "label": "rating >= 4", "user": "who", "item": "what"})
    items = [{"id": f"i{n}", "year": 1990 + n, "studio": f"s{n % 4}"} for n in range(24)]  # i24 is not in it
    write(root / "items.csv", items)
    table = {"url": "items.csv", "key": "item", "column": "id", "numeric": ["year"], "categorical": ["studio"]}
    ws = Workspace.open(root)
    held = ws.config.model_dump(mode="json", exclude_none=True)
    counters = [{"key": ["user"]}, {"key": ["studio"]}]
    ws = world.rewrite(
        root, {**held, "attributes": [table], "windows": GRID, "features": {"counters": counters}, **POLICY}
    )
    with ready(Booting(fault="a test needs no history")):
        assert world.turning.turn(root, datetime(2026, 2, 10, tzinfo=UTC), trigger="test").generation == 1
    rows = dataset.read_window(ws.data, ws.ledger()[0].window, ["item", "year", "studio"]).to_pylist()
    assert {row["item"]: (row["year"], row["studio"]) for row in rows} == {
        **{item["id"]: (float(item["year"]), item["studio"]) for item in items},
        "i24": (None, None),
    }
    write(root / "items.csv", [*items, items[0]])
    with pytest.raises(SourceError, match=r"items\.csv has id 'i0' twice") as caught:
        collect._joined(
            dataset.read_window(ws.data, ws.ledger()[0].window, ["item"]),
            ws.config.attributes[0],
            attributes.read_attributes(ws.config.attributes[0], root),
        )
    world.told_well(f"flywheel: {caught.value}\n")


@pytest.mark.slow
def test_a_database_goes_from_init_to_generations_by_command(tmp_path: Path, shell: Shell) -> None:
    rows = ratings()
    with sqlite3.connect(tmp_path / "shop.db") as database:
        columns = ", ".join(f'"{name}"' for name in rows[0])
        database.execute(f"CREATE TABLE ratings (id INTEGER PRIMARY KEY, {columns})")
        marks = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO ratings ({columns}) VALUES ({marks})", [tuple(row.values()) for row in rows])
    database.close()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    options = ("--timestamp", "when", "--label", "rating >= 4", "--user", "who", "--item", "what", "--event-id", "id")
    done = shell.run(tmp_path, "init", "shop", "--from", url, "--table", "ratings", *options)
    assert (done.code, done.err) == (0, ""), done.said
    world.amend(
        tmp_path / "shop", windows=GRID, features={"counters": [{"key": ["user"]}, {"key": ["item"]}]}, **POLICY
    )
    done = shell.run(tmp_path / "shop", "backfill", "--every", "12d", "--to", "2026-02-10", "--json")
    assert done.code == 0, done.said
    assert all(line.startswith("generations ") for line in done.err.splitlines())
    listed = json.loads(shell.run(tmp_path / "shop", "generations", "--json").out)
    assert len(listed) >= 2
    assert {
        "generation",
        "as_of",
        "train_rows",
        "train_users",
        "exam_rows",
        "metrics",
        "verdict",
        "reason",
        "alias",
        "dataset",
    } <= set(listed[0])
    assert listed[-1]["metrics"]["auc"] > 0.75
    assert dataset.totals(Workspace.open(tmp_path / "shop").ledger()).rows == len(rows)


@pytest.mark.parametrize(
    ("rows", "given", "says"),
    [
        ([], {}, "events.csv"),
        ([{"when": "2026-01-05T00:00:00Z", "rating": 5}] * 30, {}, "rating"),
        ([{"when": "soon", "rating": n % 2} for n in range(30)], {}, "when"),
        ([{"when": "2026-01-05T00:00:00Z", "rating": n % 2} for n in range(30)], {"label": "liked"}, "liked"),
    ],
)
def test_init_says_why_it_cannot_tell(
    tmp_path: Path, rows: list[dict[str, Any]], given: dict[str, Any], says: str
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("when,rating\n" + "".join(f"{row['when']},{row['rating']}\n" for row in rows))
    with pytest.raises((ConfigError, SourceError)) as caught:
        starting.start(tmp_path / "ws", str(path), {"timestamp": "when", "label": "rating", **given})  # type: ignore[typeddict-item]
    world.told_well(f"flywheel: {caught.value}\n")
    assert says in str(caught.value)
    assert not (tmp_path / "ws").exists()
