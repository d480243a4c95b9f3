import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flywheel import config
from flywheel.config import Config
from flywheel.data.collect import Counts, close, ledger
from flywheel.errors import IntegrityError, SourceError
from flywheel.sources.buffer import Buffer
from flywheel.sources.files import FileSource
from flywheel.sources.spool import Spool
from flywheel.windows import Windows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REAL = Path(__file__).parents[3] / "shared" / "data" / "oulad-assessments" / "events.csv.gz"


def settings(every: str = "7d", **contract: Any) -> Config:
    raw = {"product": {"name": "p"}, "source": {"url": "e.csv"}, "windows": {"every": every, "attribution": "14d"}}
    return config.parse({**raw, "contract": {"timestamp": "time", "label": "y"} | contract})


def spool(root: Path, using: Config) -> Spool:
    return Spool(root / "inbox", using.windows.grid)


LOG = """id,time,y,extra
1,2024-01-02T00:00:00Z,1,
2,2024-01-09T00:00:00Z,0,
3,2024-01-03T00:00:00Z,1,
4,never,1,
5,2024-01-04T00:00:00Z,7,
6,2024-01-10T00:00:00Z,1,1,1
"""


@pytest.fixture
def using() -> Config:
    return settings(event_id="id")


@pytest.fixture
def filled(tmp_path: Path, using: Config) -> Spool:
    (tmp_path / "e.csv").write_text(LOG)
    filled = spool(tmp_path, using)
    filled.take(FileSource("e.csv", tmp_path), using, now=NOW)
    return filled


FIRST = Windows(timedelta(days=7)).parse("2024-01-01")
NONE: frozenset[str] = frozenset()


def test_a_delivery_lies_in_the_windows_it_is_dated_in(filled: Spool, using: Config) -> None:
    (taken,) = filled.deliveries()
    assert (taken.rows, taken.rejected, taken.windows) == (6, 3, {"2024-01-01": 2, "2024-01-08": 1})
    assert (taken.label, taken.ignored, taken.rejected_windows) == (
        "e.csv",
        ("extra",),
        {"2024-01-01": 1, "undated": 2},
    )
    assert filled.span() == (FIRST, FIRST + 1)
    events = filled.read_events(filled.shards(FIRST, NONE), using)
    assert events.select(["event_id", "source", "row"]).to_pylist() == [
        {"event_id": "1", "source": "e.csv", "row": 1},
        {"event_id": "3", "source": "e.csv", "row": 3},
    ]
    rejected = filled.read_rejected(filled.rejected(FIRST, NONE))
    assert sorted(rejected["row"].to_pylist()) == [4, 5, 6]


def test_nothing_is_taken_twice(filled: Spool, using: Config, tmp_path: Path) -> None:
    assert filled.take(FileSource("e.csv", tmp_path), using, now=NOW) == ()
    with (tmp_path / "e.csv").open("a") as file:
        file.write("7,2024-01-11T00:00:00Z,1,\n")
    (grown,) = filled.take(FileSource("e.csv", tmp_path), using, now=NOW)
    assert grown.windows == {"2024-01-08": 1}
    assert filled.read_events(filled.shards(FIRST + 1, NONE), using)["row"].to_pylist() in ([2, 7], [7, 2])


def test_what_is_consumed_is_listed_no_more_and_may_be_forgotten(filled: Spool, using: Config, tmp_path: Path) -> None:
    consumed = frozenset(filled.shards(FIRST, NONE) + filled.rejected(FIRST, NONE))
    assert filled.still_open(NONE) == {"2024-01-01": 2, "2024-01-08": 1}
    assert filled.rejected_open(NONE) == 3
    assert filled.still_open(consumed) == {"2024-01-08": 1}
    assert filled.rejected_open(consumed) == 0
    assert filled.shards(FIRST, consumed) == filled.rejected(FIRST, consumed) == ()
    assert filled.forget(consumed) == 3
    assert filled.forget(consumed) == 0
    assert filled.take(FileSource("e.csv", tmp_path), using, now=NOW) == ()
    with pytest.raises(IntegrityError, match="is not in the inbox"):
        filled.read_events(sorted(consumed)[:1], using)


def test_what_arrives_for_a_closed_window_is_late(filled: Spool, using: Config, tmp_path: Path) -> None:
    consumed = frozenset(filled.shards(FIRST, NONE) + filled.rejected(FIRST, NONE))
    (tmp_path / "later.csv").write_text("id,time,y\n9,2024-01-05T00:00:00Z,1\n8,2024-01-05T00:00:00Z,x\n")
    filled.take(FileSource("later.csv", tmp_path), using, now=NOW)
    late = filled.late(FIRST + 1, consumed)
    assert filled.read_events(late, using)["event_id"].to_pylist() == ["9"]
    assert len(filled.rejected(FIRST + 1, consumed)) == 1


def test_of_a_delivery_that_fails_nothing_is_kept(tmp_path: Path, using: Config) -> None:
    (tmp_path / "a.csv").write_text(LOG)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(LOG.encode())[:-20])
    inbox = spool(tmp_path, using)
    with pytest.raises(SourceError, match=r"b\.csv\.gz is cut short"):
        inbox.take(FileSource("?.csv*", tmp_path), using, now=NOW)
    assert [taken.label for taken in inbox.deliveries()] == ["a.csv"]
    assert len(list((tmp_path / "inbox" / "shards").iterdir())) == 1


KILLED = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from flywheel import config
from flywheel.sources.files import FileSource
from flywheel.sources.spool import Spool

root = Path(sys.argv[1])
raw = {"product": {"name": "p"}, "source": {"url": "e.csv"}, "windows": {"every": "7d", "attribution": "14d"}}
using = config.parse({**raw, "contract": {"timestamp": "time", "label": "y", "event_id": "id"}})
die = lambda rows: os.kill(os.getpid(), 9)
source = FileSource("e.csv", root)
Spool(root / "inbox", using.windows.grid).take(source, using, now=datetime(2026, 1, 1, tzinfo=UTC), progress=die)
"""


def files(root: Path) -> dict[str, bytes]:
    inbox = root / "inbox" / "shards"
    return {str(path.relative_to(inbox)): path.read_bytes() for path in inbox.rglob("*") if path.is_file()}


def test_promise_7_a_take_that_was_killed_ends_in_the_same_files(tmp_path: Path, using: Config, filled: Spool) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "e.csv").write_text(LOG)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(other)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    inbox = spool(other, using)
    assert list((other / "inbox" / "shards").glob(".*"))
    assert inbox.deliveries() == ()
    inbox.take(FileSource("e.csv", other), using, now=NOW)
    assert files(other) == files(tmp_path)


def test_other_windows_than_those_it_was_filled_with_are_refused(filled: Spool, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="filled with windows of 7d"):
        spool(tmp_path, settings(every="1d")).deliveries()


def test_another_contract_than_it_was_filled_under_is_refused(filled: Spool) -> None:
    with pytest.raises(IntegrityError, match="another contract"):
        filled.read_events(filled.shards(FIRST, NONE), settings(event_id="id", user="u"))


def test_a_contract_put_right_before_any_window_closed_is_applied_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("time,y\n2024-01-02,1\n")
    strict, mended = settings(), settings(naive_timestamps="utc")
    inbox, source = spool(tmp_path, strict), FileSource("e.csv", tmp_path)
    inbox.take(source, strict, now=NOW)
    assert inbox.rejected_open(NONE) == 1
    consumed = frozenset(inbox.rejected(FIRST, NONE))
    assert inbox.take(source, mended, now=NOW, consumed=consumed) == ()
    inbox.take(source, mended, now=NOW)
    assert (inbox.rejected_open(NONE), inbox.still_open(NONE)) == (0, {"2024-01-01": 1})
    assert len(list((tmp_path / "inbox" / "shards").iterdir())) == 1


def test_a_delivery_that_is_gone_stays_in_the_inbox_whatever_the_contract(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("time,y\n2024-01-02T00:00:00Z,1\n")
    inbox = spool(tmp_path, settings())
    inbox.take(FileSource("*.csv", tmp_path), settings(), now=NOW)
    (tmp_path / "e.csv").rename(tmp_path / "f.csv")
    inbox.take(FileSource("*.csv", tmp_path), settings(naive_timestamps="utc"), now=NOW)
    assert inbox.still_open(NONE) == {"2024-01-01": 2}


def test_progress_counts_the_rows_of_all_deliveries(tmp_path: Path, using: Config) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(LOG.replace("2024-01-02", "2024-01-01" if name == "a.csv" else "2024-01-02"))
    seen: list[int] = []
    spool(tmp_path, using).take(FileSource("?.csv", tmp_path), using, now=NOW, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 12


def test_a_window_may_come_in_parts(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, most_bytes=100)
    for k in range(5):
        buffer.add("2024-01-01", pa.table({"a": list(range(10 * k, 10 * k + 10))}))
    assert buffer.close() == {"2024-01-01": 50}
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 1
    read = [value for path in parts for value in pa.parquet.read_table(path)["a"].to_pylist()]
    assert read == list(range(50))


def closing(inbox: Spool, using: Config) -> Iterator[Counts]:
    first, last = inbox.span() or (0, -1)
    consumed: frozenset[str] = NONE
    for window in range(first, last + 1):
        events = inbox.shards(window, consumed) + inbox.late(window, consumed)
        bad = inbox.rejected(window, consumed)
        got = close(
            window,
            using,
            events=inbox.read_events(events, using),
            rejected=inbox.read_rejected(bad),
            known=lambda ids: pc.is_in(ids, value_set=pa.array([], pa.string())),
        )
        consumed |= {*events, *bad}
        yield ledger(got)
    assert inbox.still_open(consumed) == {}


@pytest.mark.real_data
def test_every_row_of_a_real_log_is_accounted_for(tmp_path: Path) -> None:
    if not REAL.is_file():
        pytest.skip("../shared/data is not here")
    roles = {"timestamp": "ts", "label": "label", "label_time": "label_ts", "user": "user_id", "item": "item_id"}
    context = {"categorical": ["module"], "numeric": ["weight", "days_late"], "outcomes": ["outcome_score"]}
    using = settings(event_id="event_id", **roles, **context)
    inbox = spool(tmp_path, using)
    (taken,) = inbox.take(FileSource(str(REAL), tmp_path), using, now=NOW)
    assert (taken.rows, taken.rejected) == (171_831, 0)
    counts = list(closing(inbox, using))
    assert len(counts) == 139
    assert sum(count.rows for count in counts) == sum(count.collected for count in counts) == 171_831


def test_a_record_that_is_garbage_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG)
    using = settings()
    (taken,) = spool(tmp_path, using).take(FileSource("e.csv", tmp_path), using, now=NOW)
    record = tmp_path / "inbox" / "shards" / taken.name / "delivery.json"
    record.write_text("{")
    with pytest.raises(IntegrityError, match="a delivery's record is not what was written") as caught:
        spool(tmp_path, using).deliveries()
    assert str(record) in str(caught.value)
