import json
import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from flywheel.data.validate import Validation, demand_open, validate
from flywheel.errors import BlockedError
from flywheel.records import SuiteResult
from flywheel.schema import NAME, REJECTED, TIME

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("ts", TIME, nullable=False),
        pa.field("label", pa.float64()),
        pa.field("user", NAME),
        pa.field("genres", pa.list_(pa.string())),
    ]
)
ORIGIN = [pa.field("source", NAME, nullable=False), pa.field("row", pa.int64(), nullable=False)]
CLEAN = SuiteResult({}, ())


def rows(n: int, *, origin: bool = False, label: float = 1.0) -> pa.Table:
    values = [
        {
            "event_id": f"e{i}",
            "ts": datetime(2024, 1, 1, 0, 0, i, 5, tzinfo=UTC),
            "label": label,
            "user": 'Zoë "\n🙂',
            "genres": ["a", None],
            "source": "inbox/1.jsonl",
            "row": i + 1,
        }
        for i in range(n)
    ]
    schema = pa.schema([*SCHEMA, *ORIGIN]) if origin else SCHEMA
    return pa.Table.from_pylist([{k: v for k, v in row.items() if k in schema.names} for row in values], schema=schema)


def bad(*positions: int, reason: str = "label must be one of 0, 1") -> SuiteResult:
    return SuiteResult(dict.fromkeys(positions, (reason,)), ())


def test_nothing_said_against_them_leaves_all_rows_as_they_are():
    got = validate(rows(3), [CLEAN, CLEAN], max_quarantined=0.2)
    assert got.good.equals(rows(3))
    assert (got.quarantined.num_rows, got.warnings, got.blocks) == (0, (), ())
    assert got.quarantined.schema.equals(REJECTED)


def test_bad_rows_leave_and_the_others_keep_their_order():
    got = validate(rows(10), [bad(7, 0)], max_quarantined=0.2)
    assert got.good.column("event_id").to_pylist() == ["e1", "e2", "e3", "e4", "e5", "e6", "e8", "e9"]
    assert got.quarantined.column("event_id").to_pylist() == ["e0", "e7"]
    assert got.good.num_rows + got.quarantined.num_rows == 10
    assert got.blocks == ()


def test_a_row_keeps_every_reason_once_in_the_order_of_the_suites():
    first = SuiteResult({2: ("b", "a"), 1: ("c",)}, ())
    second = SuiteResult({2: ("a", "d")}, ())
    got = validate(rows(3), [first, second], max_quarantined=1)
    assert got.quarantined.column("reasons").to_pylist() == [["c"], ["b", "a", "d"]]
    assert got.quarantined.column("event_id").to_pylist() == ["e1", "e2"]


def test_a_quarantined_row_says_what_it_was_and_where_it_came_from():
    (line,) = validate(rows(10, origin=True, label=math.nan), [bad(3)], max_quarantined=0.5).quarantined.to_pylist()
    assert (line["source"], line["row"], line["event_id"]) == ("inbox/1.jsonl", 4, "e3")
    assert line["ts"] == datetime(2024, 1, 1, 0, 0, 3, 5, tzinfo=UTC)
    raw = json.loads(line["raw"])
    ts = "2024-01-01T00:00:03.000005+00:00"
    assert raw == {"event_id": "e3", "ts": ts, "label": "nan", "user": 'Zoë "\n🙂', "genres": ["a", None]}


def test_rows_without_an_origin_are_quarantined_without_one():
    (line,) = validate(rows(2), [bad(1)], max_quarantined=1).quarantined.to_pylist()
    assert (line["source"], line["row"]) == ("", 0)


@pytest.mark.parametrize(("label", "written"), [(math.inf, "inf"), (-math.inf, "-inf"), (0.5, 0.5)])
def test_numbers_that_json_does_not_have_can_be_read_back(label, written):
    (line,) = validate(rows(1, label=label), [bad(0)], max_quarantined=1).quarantined.to_pylist()
    assert json.loads(line["raw"])["label"] == written
    assert float(written) == label


@pytest.mark.parametrize(("count", "blocked"), [(2, False), (3, True)])
def test_more_bad_rows_than_allowed_block_the_window(count, blocked):
    got = validate(rows(10), [bad(*range(count))], max_quarantined=0.2)
    assert bool(got.blocks) is blocked


def test_too_many_bad_rows_are_told_with_the_top_reason_and_its_count():
    results = [bad(0, 1, reason="a must be b"), bad(1, 2, 3, reason="user must not be null")]
    (block,) = validate(rows(10), results, max_quarantined=0.2).blocks
    assert block == (
        "4 of 10 rows are bad, and max_quarantined is 0.2 of them; "
        "first of all: user must not be null (3 rows are not so)"
    )


def test_failures_of_the_window_block_or_warn_by_their_severity():
    result = SuiteResult({}, (("row count is 3", True), ("the mean of label is 0.9", False)))
    got = validate(rows(3), [CLEAN, result], max_quarantined=0.2)
    assert (got.blocks, got.warnings) == (("row count is 3",), ("the mean of label is 0.9",))
    assert got.good.num_rows == 3


@pytest.mark.parametrize("empty_blocks", [(), ("the table's row count must be at least 1, and is 0",)])
def test_a_window_without_rows_is_judged_by_its_failures_alone(empty_blocks):
    result = SuiteResult({}, tuple((block, True) for block in empty_blocks))
    got = validate(rows(0), [result], max_quarantined=0.2)
    assert (got.good.num_rows, got.quarantined.num_rows, got.blocks) == (0, 0, empty_blocks)


def test_an_open_window_may_close():
    demand_open("2024-01-01", Validation(rows(1), REJECTED.empty_table(), ("a warning",), ()))


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        (
            ("the mean of label must be at most 0.5,\nand is 0.9",),
            "the mean of label must be at most 0.5, and is 0.9",
        ),
        (("a is 1", "b is 2", "c is 3"), "a is 1; and 2 more: b is 2"),
    ],
)
def test_a_blocked_window_is_told_in_six_lines_at_most(blocks, why):
    with pytest.raises(BlockedError) as raised:
        demand_open("2024-01-01", Validation(rows(1), REJECTED.empty_table(), (), blocks))
    assert (raised.value.what, raised.value.why) == (
        "window 2024-01-01 is blocked, and nothing of it was written",
        why,
    )
    assert len(str(raised.value).splitlines()) <= 6
    assert raised.value.next
    assert raised.value.exit_code == 3
