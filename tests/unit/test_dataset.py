from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.data import dataset
from flywheel.errors import DataError, IntegrityError
from flywheel.fingerprint import Seen, sha256
from flywheel.records import LedgerLine
from flywheel.schema import NAME, REJECTED, TIME

DAY = timedelta(days=1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("ts", TIME, nullable=False),
        pa.field("label", pa.float64()),
        pa.field("user", NAME),
        pa.field("genres", pa.list_(pa.string())),
        pa.field("late", pa.bool_(), nullable=False),
    ]
)


def rows(n: int = 5, user: str = "u", at: datetime = FIRST) -> pa.Table:
    values = [
        {
            "event_id": f"e{i}",
            "ts": at,
            "label": i % 2,
            "user": f"{user}{i % 3}",
            "genres": ["a"],
            "late": False,
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(values, schema=SCHEMA)


def rejected(n: int) -> pa.Table:
    values = [
        {"event_id": f"q{i}", "ts": None, "source": "s", "row": i, "reasons": ["no time"], "raw": "{}"}
        for i in range(n)
    ]
    return pa.Table.from_pylist(values, schema=REJECTED)


def close(data: Path, day: int, n: int = 5, bad: int = 0) -> LedgerLine:
    window = f"{FIRST + day * DAY:%Y-%m-%d}"
    events, quarantine = dataset.write_window(data, window, rows(n, at=FIRST + day * DAY), rejected(bad))
    counts = {"collected": n + bad, "rows": n, "duplicate": 0, "quarantined": bad, "unlabelled": 0, "late": 0}
    start = FIRST + day * DAY
    line = LedgerLine(
        window,
        start,
        start + DAY,
        **counts,
        events_sha256=events,
        quarantine_sha256=quarantine,
        shards=("a", "b"),
    )
    dataset.append(data, line)
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_what_is_written_is_read_with_its_types(data):
    close(data, 0)
    assert dataset.read_window(data, "2024-01-01").equals(rows())
    assert dataset.read_window(data, "2024-01-01").schema.equals(SCHEMA)
    assert dataset.read_window(data, "2024-01-01", ["user", "label"]).column_names == ["user", "label"]


def test_quarantined_rows_are_read_or_there_are_none(data):
    close(data, 0, bad=2)
    close(data, 1)
    assert dataset.read_quarantine(data, "2024-01-01").equals(rejected(2))
    assert dataset.read_quarantine(data, "2024-01-02") is None


def test_equal_rows_make_equal_bytes_whatever_their_chunks_and_dictionaries(data, tmp_path):
    table = rows(6)
    users = pa.chunked_array(
        [
            pa.DictionaryArray.from_arrays(pa.array([2, 3, 1], pa.int32()), ["unused", "u2", "u0", "u1"]),
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), ["u0", "u1", "u2"]),
        ]
    )
    other = table.set_column(3, SCHEMA.field("user"), users).replace_schema_metadata({"made": "elsewhere"})
    assert other.column("user").to_pylist() == table.column("user").to_pylist()
    first, _ = dataset.write_window(data, "w", table, rejected(0))
    second, _ = dataset.write_window(tmp_path / "again", "w", other, rejected(0))
    assert first == second == sha256(dataset.events_path(data, "w"))


def test_a_window_closes_once(data):
    line = close(data, 0)
    before = dataset.events_path(data, "2024-01-01").read_bytes()
    with pytest.raises(IntegrityError, match="window 2024-01-01 is closed, and a window closes once"):
        dataset.write_window(data, "2024-01-01", rows(4), rejected(0))
    assert dataset.events_path(data, "2024-01-01").read_bytes() == before
    with pytest.raises(IntegrityError, match="its ledger line differs in collected, duplicate"):
        dataset.append(data, replace(line, collected=6, duplicate=1))
    assert dataset.read_ledger(data) == (line,)


def test_a_closed_window_does_not_gain_quarantined_rows(data):
    close(data, 0)
    with pytest.raises(IntegrityError, match="closes once"):
        dataset.write_window(data, "2024-01-01", rows(), rejected(1))
    assert dataset.read_quarantine(data, "2024-01-01") is None


def test_the_same_window_again_changes_nothing(data):
    line = close(data, 0, bad=1)
    before = {p: p.read_bytes() for p in data.rglob("*.parquet")}
    stamp = (data / "ledger.parquet").stat().st_mtime_ns
    assert close(data, 0, bad=1) == line
    assert {p: p.read_bytes() for p in data.rglob("*.parquet")} == before
    assert (data / "ledger.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("day", [2, -1])
def test_a_window_follows_the_last_one(data, day):
    close(data, 0)
    with pytest.raises(IntegrityError, match="does not follow 2024-01-01, the last closed one"):
        close(data, day)
    assert len(dataset.read_ledger(data)) == 1


def test_an_empty_window_is_a_window(data):
    close(data, 0)
    close(data, 1, n=0)
    assert dataset.read_window(data, "2024-01-02").equals(rows(0))
    assert [line.window for line in dataset.read_ledger(data)] == ["2024-01-01", "2024-01-02"]


def test_a_crash_before_the_ledger_line_is_healed_by_the_rerun(data):
    close(data, 0)
    crashed, _ = dataset.write_window(data, "2024-01-02", rows(3, at=FIRST + DAY), rejected(2))
    assert [line.window for line in dataset.read_ledger(data)] == ["2024-01-01"]
    line = close(data, 1, n=3)
    assert line.events_sha256 == crashed
    assert not dataset.quarantine_path(data, "2024-01-02").exists()
    dataset.verify_windows(data, dataset.read_ledger(data), Seen(data / "seen"))


def test_a_window_made_elsewhere_takes_its_place_with_no_more_than_it_has(data, tmp_path):
    made, again = tmp_path / "made", tmp_path / "again"
    dataset.write_window(made, "2024-01-01", rows(3), rejected(2))
    dataset.place_window(data, "2024-01-01", made)
    assert dataset.read_window(data, "2024-01-01").equals(rows(3))
    assert dataset.read_quarantine(data, "2024-01-01").equals(rejected(2))
    dataset.write_window(again, "2024-01-01", rows(5), rejected(0))
    dataset.place_window(data, "2024-01-01", again)
    assert dataset.read_window(data, "2024-01-01").equals(rows(5))
    assert dataset.read_quarantine(data, "2024-01-01") is None


def test_sweep_removes_what_a_crash_left_and_nothing_else(data):
    close(data, 0, bad=1)
    dataset.write_window(data, "2024-01-02", rows(3), rejected(2))
    half = data / "events" / ".2024-01-02.parquet.1-ab.flywheel-tmp"
    half.write_bytes(b"PAR1")
    swept = dataset.sweep(data)
    assert set(swept) == {
        half,
        *(p(data, "2024-01-02") for p in (dataset.events_path, dataset.quarantine_path)),
    }
    assert len(list(data.rglob("*"))) == 5


def test_sweep_removes_nothing_when_the_ledger_is_old(data):
    close(data, 0)
    old = (data / "ledger.parquet").read_bytes()
    close(data, 1)
    close(data, 2)
    (data / "ledger.parquet").write_bytes(old)
    with pytest.raises(IntegrityError, match="2 windows have files and no ledger line: 2024-01-02 to 2024-01-03"):
        dataset.sweep(data)
    assert len(list(data.glob("events/*"))) == 3


def test_a_missing_ledger_is_not_an_empty_one(data):
    assert dataset.read_ledger(data) == ()
    close(data, 0)
    close(data, 1)
    (data / "ledger.parquet").unlink()
    with pytest.raises(IntegrityError, match="ledger is missing while windows are there"):
        dataset.read_ledger(data)


def test_a_ledger_that_does_not_add_up_or_has_a_gap_is_refused(data, monkeypatch):
    close(data, 0)
    line = close(data, 1)
    gap = (dataset.read_ledger(data)[0], replace(line, start=line.end))
    dataset._write_ledger(data / "ledger.parquet", gap)
    with pytest.raises(IntegrityError, match="the ledger has a gap"):
        dataset.read_ledger(data)
    object.__setattr__(line, "rows", 4)
    dataset._write_ledger(data / "ledger.parquet", (line,))
    with pytest.raises(IntegrityError, match="ledger of window 2024-01-02 is off"):
        dataset.read_ledger(data)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_named(data, kept):
    close(data, 0)
    path = dataset.events_path(data, "2024-01-01")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match=r"2024-01-01\.parquet cannot be read") as raised:
        dataset.read_window(data, "2024-01-01")
    assert len(str(raised.value).splitlines()) <= 6


def test_a_flipped_byte_in_a_page_is_noticed_on_reading(data):
    close(data, 0, n=500)
    path = dataset.events_path(data, "2024-01-01")
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match="cannot be read"):
        dataset.read_window(data, "2024-01-01")


def test_a_changed_file_is_not_trained_on(data):
    lines = [close(data, 0, bad=1), close(data, 1)]
    seen = Seen(data.parent / "seen.json")
    dataset.verify_windows(data, lines, seen)
    dataset.quarantine_path(data, "2024-01-01").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"2024-01-01\.parquet is not the file that was written"):
        dataset.verify_windows(data, lines, seen)
    dataset.verify_windows(data, lines[1:], seen)


def test_a_missing_window_or_column_is_named(data):
    with pytest.raises(IntegrityError, match=r"2024-01-01\.parquet is missing"):
        dataset.read_window(data, "2024-01-01")
    close(data, 0)
    with pytest.raises(DataError, match=r"has no column nope\n.*\n  why:   it has: event_id, ts"):
        dataset.read_window(data, "2024-01-01", ["label", "nope"])


def test_the_address_depends_on_every_window_up_to_it_and_on_none_after(data, tmp_path):
    three = [close(data, day) for day in range(3)]
    chained = dataset.chain(three)
    assert dataset.chain(three[:2]) == dict(list(chained.items())[:2])
    changed = [three[0], replace(three[1], events_sha256="0" * 64), three[2]]
    other = dataset.chain(changed)
    assert [a == b for a, b in zip(chained.values(), other.values(), strict=True)] == [True, False, False]
    assert dataset.fingerprint(three) == chained["2024-01-03"]
    assert dataset.fingerprint([]) == dataset.START


def test_the_yield_is_told_with_its_leaks_in_order_of_size():
    counts = {
        "collected": 171_831,
        "rows": 166_990,
        "duplicate": 3_211,
        "quarantined": 0,
        "unlabelled": 4,
        "late": 1_626,
    }
    line = LedgerLine("w", FIRST, FIRST + DAY, **counts, events_sha256="", quarantine_sha256=None, shards=())
    told = "yield 97.1 %: 166,990 of 171,831 rows; lost 3,211 duplicate, 1,626 late, 4 unlabelled"
    assert str(dataset.totals([line])) == told
    assert str(dataset.totals([])) == "yield: nothing collected yet"
    assert str(dataset.Totals(1, 7, 7, ())) == "yield 100.0 %: 7 of 7 rows; lost nothing"
    assert str(dataset.Totals(1, 9999, 9998, (("late", 1),))).startswith("yield 99.9 %")
