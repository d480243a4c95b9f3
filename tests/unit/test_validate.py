from datetime import UTC, datetime

import pyarrow as pa
import pytest

from flywheel.data import validate as validation
from flywheel.data.validate import Validation, demand_open
from flywheel.errors import BlockedError
from flywheel.records import SuiteResult
from flywheel.schema import REJECTED

CLEAN = SuiteResult({}, ())
NONE = REJECTED.empty_table()


def rows(n: int) -> pa.Table:
    return pa.table({"event_id": [f"e{i}" for i in range(n)]})


def refused(n: int, reason: str = "ts is not a time") -> pa.Table:
    line = {
        "event_id": None,
        "ts": datetime(2024, 1, 1, tzinfo=UTC),
        "source": "a.csv",
        "reasons": [reason],
        "raw": "{}",
    }
    return pa.Table.from_pylist([{**line, "row": i} for i in range(n)], schema=REJECTED)


def bad(*positions: int, reason: str = "label must be one of 0, 1") -> SuiteResult:
    return SuiteResult(dict.fromkeys(positions, (reason,)), ())


def validate(table, results, *, refused=NONE, max_quarantined=0.2):
    return validation.validate(table, results, refused=refused, max_quarantined=max_quarantined)


def test_nothing_said_against_them_leaves_all_rows_as_they_are():
    got = validate(rows(3), [CLEAN, CLEAN])
    assert got.good.equals(rows(3))
    assert (got.reasons, got.warnings, got.blocks) == ({}, (), ())


def test_bad_rows_leave_and_the_others_keep_their_order():
    got = validate(rows(10), [bad(7, 0)])
    assert got.good.column("event_id").to_pylist() == ["e1", "e2", "e3", "e4", "e5", "e6", "e8", "e9"]
    assert sorted(got.reasons) == [0, 7]
    assert got.blocks == ()


def test_a_row_keeps_every_reason_once_in_the_order_of_the_suites():
    first = SuiteResult({2: ("b", "a"), 1: ("c",)}, ())
    second = SuiteResult({2: ("a", "d")}, ())
    assert validate(rows(3), [first, second], max_quarantined=1).reasons == {1: ["c"], 2: ["b", "a", "d"]}


@pytest.mark.parametrize(("count", "blocked"), [(2, False), (3, True)])
def test_more_bad_rows_than_allowed_block_the_window(count, blocked):
    assert bool(validate(rows(10), [bad(*range(count))]).blocks) is blocked


@pytest.mark.parametrize(("count", "blocked"), [(2, False), (3, True)])
def test_rows_that_could_not_even_be_read_count_as_bad(count, blocked):
    assert bool(validate(rows(10 - count), [CLEAN], refused=refused(count)).blocks) is blocked


def test_a_window_of_nothing_but_unreadable_rows_is_blocked():
    assert validate(rows(0), [CLEAN], refused=refused(5)).blocks


def test_too_many_bad_rows_are_told_with_the_top_reason_and_its_count():
    results = [bad(0, 1, reason="a must be b"), bad(1, 2, 3, reason="user must not be null")]
    (block,) = validate(rows(9), results, refused=refused(1)).blocks
    assert block == (
        "5 of 10 rows are bad, and max_quarantined is 0.2 of them; first of all: user must not be null (3 rows)"
    )


def test_failures_of_the_window_block_or_warn_by_their_severity():
    result = SuiteResult({}, (("row count is 3", True), ("the mean of label is 0.9", False)))
    got = validate(rows(3), [CLEAN, result])
    assert (got.blocks, got.warnings) == (("row count is 3",), ("the mean of label is 0.9",))
    assert got.good.num_rows == 3


@pytest.mark.parametrize("empty_blocks", [(), ("the table's row count must be at least 1, and is 0",)])
def test_a_window_without_rows_is_judged_by_its_failures_alone(empty_blocks):
    result = SuiteResult({}, tuple((block, True) for block in empty_blocks))
    got = validate(rows(0), [result])
    assert (got.good.num_rows, got.reasons, got.blocks) == (0, {}, empty_blocks)


def test_an_open_window_may_close():
    demand_open("2024-01-01", Validation(rows(1), {}, ("a warning",), ()))


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        (("the mean of label must be at most 0.5,\nand is 0.9",), "the mean of label must be at most 0.5, and is 0.9"),
        (("a is 1", "b is 2", "c is 3"), "a is 1; and 2 more: b is 2"),
    ],
)
def test_a_blocked_window_is_told_in_six_lines_at_most(blocks, why):
    with pytest.raises(BlockedError) as raised:
        demand_open("2024-01-01", Validation(rows(1), {}, (), blocks))
    assert raised.value.what == "window 2024-01-01 is blocked, and nothing of it was written"
    assert raised.value.why == why
    assert len(str(raised.value).splitlines()) <= 6
    assert raised.value.next
    assert raised.value.exit_code == 3
