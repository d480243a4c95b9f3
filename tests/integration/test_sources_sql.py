from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flywheel import config
from flywheel.errors import SourceError
from flywheel.sections import SourceConfig
from flywheel.sources.files import FileSource
from flywheel.sources.locate import locate
from flywheel.sources.source import Mark
from flywheel.sources.spool import Spool
from flywheel.sources.sql import SqlSource

ODD = 'when "it" was'  # a column's name that has to be quoted


def database(root: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{root / 'shop.db'}")


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


@pytest.fixture
def shop(tmp_path: Path) -> sa.Engine:
    engine = database(tmp_path)
    execute(
        engine,
        f"""CREATE TABLE "odd events" (n INTEGER, "{ODD.replace('"', '""')}" TEXT, y)""",
        """INSERT INTO "odd events" VALUES
           (1, '2024-01-01T10:00:00Z', 1), (2, '2024-01-02T10:00:00Z', 'x'), (3, '2024-01-03T10:00:00Z', NULL)""",
    )
    return engine


def source(root: Path, until: str = "2024-02-01", **values: Any) -> SqlSource:
    values = {"url": "sqlite:///shop.db"} | values
    timestamp = values.pop("timestamp", ODD)
    return SqlSource(SourceConfig(**values), timestamp, root, datetime.fromisoformat(until).replace(tzinfo=UTC))


def read(from_: SqlSource, marks: list[Mark]) -> list[dict[str, Any]]:
    """The rows of every new delivery; their marks are added to those given."""
    rows = []
    for delivery in from_.deliveries(list(marks)):
        for batch in delivery.batches():
            rows += batch.to_pylist()
        marks.append(delivery.mark())
    return rows


def test_a_table_is_read_up_to_until_and_each_row_once(shop: sa.Engine, tmp_path: Path) -> None:
    marks: list[Mark] = []
    rows = read(source(tmp_path, "2024-01-03", table="odd events"), marks)
    assert rows == [
        {"n": 1, ODD: "2024-01-01T10:00:00Z", "y": "1"},
        {"n": 2, ODD: "2024-01-02T10:00:00Z", "y": "x"},
    ]
    assert read(source(tmp_path, "2024-01-03", table="odd events"), marks) == []
    assert [row["n"] for row in read(source(tmp_path, table="odd events"), marks)] == [3]
    assert [mark["rows"] for mark in marks] == [2, 3]


def test_a_growing_column_is_read_beyond_its_mark(shop: sa.Engine, tmp_path: Path) -> None:
    marks: list[Mark] = []
    assert len(read(source(tmp_path, table="odd events", cursor="n"), marks)) == 3
    assert read(source(tmp_path, table="odd events", cursor="n"), marks) == []
    execute(shop, """INSERT INTO "odd events" VALUES (4, '2023-01-01T00:00:00Z', 0)""")
    assert [row["n"] for row in read(source(tmp_path, table="odd events", cursor="n"), marks)] == [4]


def test_a_query_may_hold_what_looks_like_a_parameter(shop: sa.Engine, tmp_path: Path) -> None:
    query = """SELECT n, "when ""it"" was" AS at, 'a:b' AS tag FROM "odd events" WHERE n < 3;"""
    rows = read(source(tmp_path, query=query, timestamp="at"), [])
    assert [(row["n"], row["tag"]) for row in rows] == [(1, "a:b"), (2, "a:b")]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("TEXT", ("2024-01-01 23:59:59.9", "2024-01-02 00:00:00")),
        ("TEXT", ("2024-01-01", "2024-01-02")),
        ("TEXT", ("2024-01-01T23:59:59+00:00", "2024-01-02T00:00:00+00:00")),
        ("INTEGER", (1704153599, 1704153600)),
        ("INTEGER", (1704153599999, 1704153600000)),
        ("REAL", (1704153599.9, 1704153600.0)),
        ("DATETIME", ("2024-01-01 23:59:59.900000", "2024-01-02 00:00:00.000000")),
    ],
)
def test_until_is_compared_as_the_column_writes_time(tmp_path: Path, kind: str, values: tuple[Any, Any]) -> None:
    engine = database(tmp_path)
    execute(engine, f"CREATE TABLE e (at {kind})", *(f"INSERT INTO e VALUES ({value!r})" for value in values))
    marks: list[Mark] = []
    counts = [
        len(read(source(tmp_path, until, table="e", timestamp="at"), marks)) for until in ("2024-01-02", "2024-01-03")
    ]
    assert counts == [1, 1]


def test_times_in_other_zones_need_a_cursor(tmp_path: Path) -> None:
    execute(database(tmp_path), "CREATE TABLE e (at TEXT)", "INSERT INTO e VALUES ('2024-01-01T10:00:00+02:00')")
    with pytest.raises(SourceError, match=r"set source\.cursor"):
        read(source(tmp_path, table="e", timestamp="at"), [])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"table": "events"}, "there is no table 'events'"),
        ({"query": "SELECT x FROM nowhere"}, "no such table: nowhere"),
        ({"table": "odd events", "cursor": "m"}, "has no column 'm' to read by"),
        ({"table": "odd events", "url": "sqlite:///other.db"}, "other.db does not exist"),
        ({"table": "e", "url": "oracle://secret:word@host/db"}, "there is no driver for db:e"),
    ],
)
def test_what_cannot_be_read_is_named(shop: sa.Engine, tmp_path: Path, values: dict[str, str], said: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(source(tmp_path, **values), [])
    assert said in str(caught.value)
    assert "word" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6
    assert not (tmp_path / "other.db").exists()


def test_rows_go_through_the_inbox_once(shop: sa.Engine, tmp_path: Path) -> None:
    raw = {
        "product": {"name": "p"},
        "source": {"url": "sqlite:///shop.db", "table": "odd events"},
        "windows": {"every": "1d"},
    }
    using = config.parse({**raw, "contract": {"timestamp": ODD, "label": "y", "event_id": "n"}})
    inbox = Spool(tmp_path / "inbox", using.windows.grid)
    for until, new in ((2, 1), (4, 2), (4, 0), (5, 0)):
        (found,) = locate(using, tmp_path, until=datetime(2024, 1, until, tzinfo=UTC))
        assert sum(taken.rows for taken in inbox.take(found, using, now=datetime(2024, 1, 5, tzinfo=UTC))) == new
    assert inbox.still_open(frozenset()) == {"2024-01-01": 1, "2024-01-03": 1}
    assert inbox.rejected_open(frozenset()) == 1


def test_the_config_tells_files_from_databases(tmp_path: Path) -> None:
    raw = {"product": {"name": "p"}, "windows": {"every": "1d"}, "contract": {"timestamp": "t", "label": "y"}}
    using = config.parse({**raw, "source": {"url": "a.csv"}})
    (found,) = locate(using, tmp_path, until=datetime(2024, 1, 1, tzinfo=UTC))
    assert isinstance(found, FileSource)


@pytest.mark.slow
def test_postgresql_streams_a_table_and_keeps_its_types(postgres_server: str, tmp_path: Path) -> None:
    engine = sa.create_engine(postgres_server.replace("postgresql:", "postgresql+psycopg:"))
    execute(
        engine,
        "CREATE SCHEMA log",
        'CREATE TABLE log.e (n bigserial, "At" timestamptz, price numeric(10, 2), who uuid, tags text[])',
        """INSERT INTO log.e ("At", price, who, tags) SELECT '2024-01-01Z'::timestamptz + k * interval '1 minute', 1.50,
           'c0ffee00-0000-0000-0000-000000000001', ARRAY['a', 'b'] FROM generate_series(0, 49999) k""",
    )
    marks: list[Mark] = []
    rows = read(source(tmp_path, "2024-01-02", url=postgres_server, table="log.e", timestamp="At"), marks)
    assert len(rows) == 24 * 60
    assert rows[0] == {
        "n": 1,
        "At": datetime(2024, 1, 1, tzinfo=UTC),
        "price": "1.50",
        "who": "c0ffee00-0000-0000-0000-000000000001",
        "tags": ["a", "b"],
    }
    rest = source(tmp_path, "2024-12-01", url=postgres_server, table="log.e", timestamp="At")
    assert len(read(rest, marks)) == 50_000 - 24 * 60
    assert len(read(source(tmp_path, url=postgres_server, query="SELECT * FROM log.e", cursor="n"), [])) == 50_000
