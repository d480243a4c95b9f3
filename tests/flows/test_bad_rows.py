"""What rows may do to a wheel: each fault is named, counted or refused, and nothing is lost or moved by it."""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows import closing, deciding
from flywheel.data import dataset
from flywheel.errors import BlockedError, DataError, SourceError
from flywheel.records import LedgerLine
from flywheel.workspace import Workspace
from tests.flows import world


def more() -> pa.Table:
    """Three days that nothing was heard of yet."""
    return world.days(30, 33)


def close(ws: Workspace, windows: int = 11) -> list[LedgerLine]:
    at = world.closes(windows)
    closing.take(ws, at, at)
    return closing.close(ws, at)


def reasons(ws: Workspace, window: str) -> list[list[str]]:
    held = dataset.read_quarantine(ws.data, window)
    return [] if held is None else held["reasons"].to_pylist()


def text(column: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    return pc.strftime(column.cast(pa.timestamp("s", tz="UTC")), format=form)


def test_a_missing_column_is_named_with_its_file(turned: Workspace) -> None:
    path = world.deliver(turned, world.put(more(), device=None))
    error = world.refused(turned, SourceError)
    assert "more.csv has no column 'device'" in str(error)
    assert error.exit_code == 1
    path.unlink()
    assert world.turn(turned, world.SECOND).status == "promoted"


def test_a_renamed_column_is_named_with_its_new_name(turned: Workspace) -> None:
    table = more()
    names = ["device_type" if name == "device" else name for name in table.column_names]
    world.deliver(turned, table.rename_columns(names))
    error = world.refused(turned, SourceError)
    assert "was device renamed to device_type?" in str(error)
    assert "name device_type in [contract] of flywheel.toml" in error.next


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"watched": "yes"}, "watched is not a number: 'yes'"),
        ({"watched": 5}, "watched is neither 0 nor 1: '5'"),
        ({"watched": "NaN"}, "watched is not finite: 'NaN'"),
        ({"watched": "inf"}, "watched is not finite: 'inf'"),
        ({"hour": "noon"}, "hour is not a number: 'noon'"),
        ({"hour": math.inf}, "hour is not finite: 'inf'"),
        ({"hour": math.nan}, "hour is not finite: 'nan'"),
        ({"propensity": 1.7}, "propensity"),
        ({"ts": "2026-02-04T12:00:00"}, "ts has no time zone: '2026-02-04T12:00:00'"),
        ({"ts": "2090-02-04T12:00:00Z"}, "ts lies in the future: '2090-02-04T12:00:00Z'"),
        ({"ts": "57971-08-24T12:00:00Z"}, "ts is not a time: '57971-08-24T12:00:00Z'"),
        ({"ts": 1767225600000000000000}, "ts is no time between 1990 and 2100"),
        ({"ts": ""}, "ts is empty"),
        ({"event_id": ""}, "event_id is empty"),
    ],
)
def test_a_delivery_that_cannot_be_read_as_meant_is_not_taken(
    turned: Workspace, changes: dict[str, Any], says: str
) -> None:
    """Refused with its file, row, column and value, each time it is tried; put right, it is taken."""
    good = more()
    text_columns = {name: [str(value)] * good.num_rows for name, value in changes.items()}
    world.deliver(turned, world.put(good, **text_columns))
    for _ in range(2):
        error = world.refused(turned, BlockedError)
        assert error.exit_code == 3
        assert says in error.why
        assert error.where == "more.csv, row 1"
    world.deliver(turned, good)
    closed = close(turned)
    assert [line.collected for line in closed][-1] == good.num_rows
    assert all(line.rows == line.collected for line in closed)


def test_naive_times_are_read_as_utc_where_the_contract_says_so(turned: Workspace) -> None:
    good = more()
    naive = world.put(
        good, ts=text(good["ts"], "%Y-%m-%dT%H:%M:%S"), watched_ts=text(good["watched_ts"], "%Y-%m-%d %H:%M:%S")
    )
    world.deliver(turned, naive)
    assert "naive_timestamps" in world.refused(turned, BlockedError).why
    ws = world.amend(turned.root, contract={"naive_timestamps": "utc"})
    assert close(ws)[-1].rows == good.num_rows


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000])
def test_numbers_since_1970_are_read_in_the_unit_that_makes_sense(turned: Workspace, scale: int) -> None:
    """Milliseconds taken for seconds are the year 57971."""
    good = more()
    stamps = pc.multiply(pc.divide(good["ts"].cast(pa.int64()), 1_000_000), scale)
    world.deliver(turned, world.put(good, ts=stamps))
    assert close(turned)[-1].rows == good.num_rows


def test_an_extra_column_is_left_out_and_said_so(turned: Workspace) -> None:
    world.deliver(turned, world.put(more(), mood="sunny"))
    at = world.closes(11)
    taken = closing.take(turned, at, at)
    assert taken[-1].ignored == ("mood",)
    assert closing.close(turned, at)[-1].rows == more().num_rows


def test_a_few_bad_rows_are_quarantined_with_every_reason(turned: Workspace) -> None:
    good = more()
    bad = world.put(
        good,
        watched=["NaN", "inf", "2", *good["watched"].cast(pa.string()).to_pylist()[3:]],
        hour=["-inf", *good["hour"].cast(pa.string()).to_pylist()[1:]],
        user_id=[*good["user_id"].to_pylist()[:-1], ""],
    )
    world.deliver(turned, bad)
    line = close(turned)[-1]
    assert (line.collected, line.quarantined, line.rows) == (good.num_rows, 4, good.num_rows - 4)
    found = reasons(turned, line.window)
    assert sorted(map(len, found)) == [1, 1, 1, 2]
    assert sum("watched" in reason for row in found for reason in row) == 3
    assert sum("hour" in reason for row in found for reason in row) == 1
    assert sum("user" in reason for row in found for reason in row) == 1


def test_one_class_only_is_not_trained_on(fresh: Workspace) -> None:
    for path in (fresh.root / "log").iterdir():
        path.unlink()
    world.deliver(fresh, world.put(world.days(0, 30), watched=[1] * world.days(0, 30).num_rows))
    world.amend(fresh.root, source={"url": "log/*.csv"})
    with pytest.raises(DataError, match="nothing can be learned from one class") as caught:
        world.turn(fresh, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert deciding.champion(fresh) == 0
    assert world.ends(fresh).generations == ()


def test_an_exam_of_one_class_promotes_nobody(turned: Workspace) -> None:
    """AUC is not a number there; the champion stays, and what came of it can be looked up."""
    good = more()
    world.turn(turned, world.SECOND)
    before = deciding.champion(turned)
    world.deliver(turned, world.put(good, watched=[0] * good.num_rows))
    world.amend(turned.root, gate={"metric": "auc"})
    made = world.turn(turned, 11)
    assert made.status == "rejected"
    assert "missing or not finite" in made.reason
    assert deciding.champion(turned) == before


def test_zero_rows_are_no_news(turned: Workspace) -> None:
    world.deliver(turned, more().slice(0, 0))
    world.deliver(turned, more().slice(0, 0), "none.parquet")
    (turned.root / "log" / "empty.csv").touch()
    (turned.root / "log" / "empty.jsonl").touch()
    assert world.turn(turned, world.FIRST).status == "skipped"
    assert world.turn(turned, world.SECOND).status == "promoted"


def test_a_window_with_nothing_in_it_closes_empty_and_is_counted(turned: Workspace) -> None:
    world.deliver(turned, world.days(33, 36))
    lines = close(turned, 12)
    assert [line.collected > 0 for line in lines] == [True, True, False, True]
    assert dataset.read_window(turned.data, lines[2].window).num_rows == 0
    assert world.turn(turned, 12).status in ("promoted", "kept", "rejected")


def test_nothing_at_all_is_skipped(fresh: Workspace) -> None:
    for path in (fresh.root / "log").iterdir():
        path.unlink()
    world.deliver(fresh, more().slice(0, 0))
    turned = world.turn(fresh, 3)
    assert (turned.status, turned.generation) == ("skipped", 0)
    assert "no closed window has a row" in turned.reason


def test_duplicates_of_every_kind_count_once(turned: Workspace) -> None:
    good = more()
    world.deliver(turned, good, "a.csv")
    world.deliver(turned, good, "b.csv")  # another file, the same ids
    world.deliver(turned, pa.concat_tables([good, good.slice(0, 7)]), "c.parquet")  # and some of them twice
    other = world.put(good.slice(0, 5), watched=pc.subtract(1, good["watched"].slice(0, 5)))
    world.deliver(turned, other, "d.csv")  # the same ids, other content
    line = close(turned)[-1]
    assert line.collected == 3 * good.num_rows + 12
    assert (line.rows, line.duplicate, line.quarantined) == (good.num_rows, 2 * good.num_rows + 7, 5)
    assert reasons(turned, line.window) == [["same event id, other content"]] * 5
    world.deliver(turned, good, "e.csv")  # long after its window was closed
    late = close(turned, 12)[-1]
    assert (late.collected, late.duplicate, late.rows, late.late) == (good.num_rows, good.num_rows, 0, 0)


def test_equal_rows_without_an_event_id_are_one(fresh: Workspace) -> None:
    held = fresh.config.model_dump(mode="json", exclude_none=True)
    del held["contract"]["event_id"]
    ws = world.rewrite(fresh.root, held)
    good = world.days(0, 3)
    for path in (ws.root / "log").iterdir():
        path.unlink()
    world.deliver(ws, pa.concat_tables([good, good.slice(0, 9)]))
    world.deliver(ws, good, "again.parquet")
    line = close(ws, 1)[0]
    assert (line.collected, line.rows, line.duplicate) == (2 * good.num_rows + 9, good.num_rows, good.num_rows + 9)


ODD = (
    "quote\"s and 'more'",
    "a/b\\c",
    "../../x",
    "line\nbreak\r\ntab\t",
    "'; DROP TABLE users; --",
    "\N{GRINNING FACE} \N{ARABIC LETTER ALEF}",
    "e\N{COMBINING ACUTE ACCENT}",
    "=cmd()",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "a,b;c|d",
    " padded ",
    "null",
    "x" * 500,
)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_odd_ids_come_back_as_they_were(turned: Workspace, form: str) -> None:
    good = more()
    cycle = [ODD[i % len(ODD)] for i in range(good.num_rows)]
    odd = world.put(
        good,
        user_id=cycle,
        item_id=cycle[::-1],
        event_id=[f"{value}{i}" for i, value in enumerate(cycle)],
        device=[value[:100] for value in cycle],
    )
    world.deliver(turned, odd, f"odd.{form}")
    at = world.closes(11)
    closing.take(turned, at, at)
    line = closing.close(turned, at)[-1]
    assert line.rows == good.num_rows
    rows = dataset.read_window(turned.data, line.window).to_pandas()
    expected = odd.to_pandas().sort_values(["ts", "event_id"], key=None)
    for stored, given in (("event_id", "event_id"), ("user", "user_id"), ("item", "item_id"), ("device", "device")):
        by_id = dict(zip(rows["event_id"], rows[stored].astype(str), strict=True))
        assert by_id == dict(zip(expected["event_id"], expected[given], strict=True))
    made = world.turn(turned, 11)
    assert made.generation == 2
    files = [str(path.relative_to(turned.root)) for path in turned.root.rglob("*") if ".git" not in path.parts]
    assert not [
        name for name in files if any(part in name for part in ("quote", "..", "DROP", "script", "cmd", "xxxx"))
    ]
    assert not (turned.root.parent.parent / "x").exists()
