import gzip
import itertools
import json
import sqlite3
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from flywheel.config import parse
from flywheel.errors import SourceError
from flywheel.infer import infer
from flywheel.infer.columns import columns_of
from flywheel.scaffold import render
from flywheel.sources.normalise import normalise
from flywheel.sources.sample import read_sample, sees_whole_range, total_rows

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
ROWS = 300_000


def lines(rows: int, first: int = 0) -> bytes:
    return b"".join(b"%d,2024-01-01T00:00:00Z,u%d,%s\n" % (k, k % 97, b"x" * 40) for k in range(first, first + rows))


def csv(rows: int, first: int = 0) -> bytes:
    return b"id,ts,user,pad\n" + lines(rows, first)


def ids(sample: pa.Table) -> list[int]:
    return [int(value) for value in sample["id"].to_pylist()]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_a_large_text_is_seen_from_end_to_end_in_runs(tmp_path: Path, name: str) -> None:
    text = csv(ROWS)
    (tmp_path / name).write_bytes(gzip.compress(text, 1) if name.endswith(".gz") else text)
    sample = read_sample(name, tmp_path, rows=2000)
    found = ids(sample)
    assert 1800 <= len(found) <= 2000
    assert len(set(found)) == len(found)
    assert found[0] == 0
    assert found[-1] == ROWS - 1
    assert sum(b - a == 1 for a, b in itertools.pairwise(found)) > 0.9 * len(found)
    assert max(b - a for a, b in itertools.pairwise(found)) < ROWS / 10
    assert total_rows(sample) == pytest.approx(ROWS, rel=0.05)
    assert sees_whole_range(sample)


def test_of_a_gzip_too_large_to_unpack_the_head_is_seen_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel.sources.sample.UNPACKED", 6 << 20)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(csv(ROWS), 1))
    sample = read_sample("log.csv.gz", tmp_path, rows=2000)
    assert not sees_whole_range(sample)
    assert ids(sample)[-1] < ROWS / 2
    assert total_rows(sample) == pytest.approx(ROWS, rel=0.3)


def test_a_small_text_is_read_whole_and_stays_text(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'id,user,note\n007,a,"two\nlines, quoted"\n8,,\n')
    sample = read_sample("log.csv", tmp_path)
    assert sample["id"].to_pylist() == ["007", "8"]
    assert columns_of(sample)["user"].texts.isna().tolist() == [False, True]
    assert sample["note"][0].as_py() == "two\nlines, quoted"
    assert total_rows(sample) == 2


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_separators(tmp_path: Path, sign: str) -> None:
    (tmp_path / "log.csv").write_text(f"id{sign}user\n1{sign}a\n")
    assert read_sample("log.csv", tmp_path).column_names == ["id", "user"]


def test_json_lines_with_lists_and_keys_that_come_later(tmp_path: Path) -> None:
    rows = [{"id": 1, "tags": ["a", "b"]}, {"id": 2, "ok": True, "tags": None}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    sample = read_sample("log.jsonl", tmp_path)
    assert sample["id"].to_pylist() == ["1", "2"]
    assert sample["tags"].to_pylist() == [["a", "b"], None]
    assert sample["ok"].to_pylist() == [None, "true"]


def test_parquet_keeps_its_types_and_is_spread_over_row_groups(tmp_path: Path) -> None:
    table = pa.table({"id": list(range(10_000)), "label": [True, False] * 5000})
    pa.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=100)
    sample = read_sample("log.parquet", tmp_path, rows=400)
    assert sample.schema.field("label").type == pa.bool_()
    assert (ids(sample)[0], len(sample)) == (0, 400)
    assert ids(sample)[-1] == 9999
    assert total_rows(sample) == 10_000


def test_a_glob_is_seen_from_its_first_file_to_its_last(tmp_path: Path) -> None:
    for day in range(30):
        (tmp_path / f"log-{day:02}.csv").write_bytes(csv(100, 100 * day))
    sample = read_sample("log-*.csv", tmp_path, rows=1000)
    assert {ids(sample)[0] // 100, ids(sample)[-1] // 100} == {0, 29}
    assert len(sample) <= 1000
    assert total_rows(sample) == pytest.approx(3000, rel=0.05)


def database(tmp_path: Path, rows: int) -> str:
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute('create table "the log" (id integer, ts text, label real)')
        connection.executemany(
            'insert into "the log" values (?, ?, ?)', [(k, f"2024-01-01 00:00:{k % 60:02}", k % 2) for k in range(rows)]
        )
    connection.close()
    return "sqlite:///log.db"


def test_sql_is_seen_from_end_to_end_by_table_and_query(tmp_path: Path) -> None:
    url = database(tmp_path, 5000)
    sample = read_sample(url, tmp_path, table="the log", rows=400)
    assert (ids(sample)[0], ids(sample)[-1], len(sample)) == (0, 4999, 400)
    assert total_rows(sample) == 5000
    sample = read_sample(url, tmp_path, query='select id, label from "the log" where id < 10')
    assert ids(sample) == list(range(10))
    proposal = infer(read_sample(url, tmp_path, table="the log"), name="shop", url=url, table="the log")
    assert proposal.config.source.table == "the log"


@pytest.mark.parametrize(
    ("make", "url", "says"),
    [
        ({"events.csv": b"id\n1\n"}, "event.csv", "nearest names there: events.csv"),
        ({}, "nowhere/log.csv", "there is no folder"),
        ({}, "log-*.csv", "no file matches"),
        ({"log.csv": b""}, "log.csv", "log.csv is empty"),
        ({"log.csv": b"id,user\n"}, "log.csv", "log.csv has no rows"),
        ({"log.csv": b"1,2024-01-01,u1\n2,2024-01-02,u2\n"}, "log.csv", "has no header"),
        ({"log.csv": b"id,user,id\n1,2,3\n"}, "log.csv", "two columns called 'id'"),
        ({"log.csv.gz": gzip.compress(csv(1000))[:-40]}, "log.csv.gz", "cut short"),
        ({"log.parquet": b"PAR1 no more"}, "log.parquet", "log.parquet cannot be read"),
        ({"log.xlsx": b"PK\x03\x04\0\0\0\0"}, "log.xlsx", "does not know the format of log.xlsx"),
        ({"log.csv": b"id,user\n1,\xff\xfe\n"}, "log.csv", "log.csv"),
        ({"log.jsonl": b"[1, 2]\n"}, "log.jsonl", "no row of log.jsonl can be read"),
        ({"logs/log.csv": b""}, "logs", "logs is a folder"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, make: dict[str, bytes], url: str, says: str) -> None:
    for name, content in make.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_sample(url, tmp_path)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) <= 6


@pytest.mark.parametrize(
    ("url", "table", "says"),
    [
        ("sqlite:///nothing.db", "log", "nothing.db does not exist"),
        ("sqlite:///log.db", "lag", "there is no table 'lag'"),
        ("sqlite:///log.db", None, "either a table or a query"),
        ("postgresql://me:secret@127.0.0.1:1/db", "log", "log cannot be read"),
    ],
)
def test_databases_that_cannot_be_read_are_named_without_the_password(
    tmp_path: Path, url: str, table: str | None, says: str
) -> None:
    database(tmp_path, 3)
    with pytest.raises(SourceError) as error:
        read_sample(url, tmp_path, table=table)
    assert says in str(error.value)
    assert "secret" not in str(error.value)
    assert not (tmp_path / "nothing.db").exists()


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_oulad_is_understood() -> None:
    sample = read_sample("oulad-assessments/events.csv.gz", DATA)
    given = {"timestamp": "ts", "user": "user_id", "item": "item_id", "label": "label", "label_time": "label_ts"}
    config = infer(sample, name="school", url="events.csv.gz", **given).config  # type: ignore[arg-type]
    contract = config.contract
    assert contract.event_id == "event_id"
    assert contract.outcomes == ("outcome_score",)
    assert contract.categorical == ("module", "presentation", "assessment_type")
    assert contract.numeric == ("weight", "days_late", "day_in_course", "num_of_prev_attempts", "studied_credits")
    assert (config.windows.every.days, config.windows.attribution.days, config.windows.silence) == (7, 14, "unlabelled")
    assert total_rows(sample) == pytest.approx(171_831, rel=0.02)
    assert parse(tomllib.loads(render(config))) == config
    batch = sample.combine_chunks().to_batches()[0]
    read = normalise(batch, config, source="events.csv.gz", first_row=1, now=datetime.now(UTC))
    assert (read.events.num_rows, read.rejected.num_rows, read.ignored) == (sample.num_rows, 0, ())


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_open_bandit_is_understood_without_any_hint() -> None:
    contract = infer(
        read_sample("open-bandit-small/events.csv.gz", DATA), name="shop", url="events.csv.gz"
    ).config.contract
    assert (contract.event_id, contract.propensity, contract.position) == ("event_id", "propensity", "position")
    assert contract.categorical == ("policy", "campaign", *(f"user_feature_{k}" for k in range(4)))
    assert (contract.user, contract.item, contract.label_time) == ("user_id", "item_id", "label_ts")
