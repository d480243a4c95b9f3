from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flywheel.config import parse
from flywheel.errors import DataError
from flywheel.learn.plan import plan
from flywheel.records import LedgerLine

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def config(*, windows=1, rows=10, attribution="1d", **more):
    return parse(
        {
            "product": {"name": "p"},
            "source": {"url": "x.csv"},
            "contract": {"timestamp": "ts", "label": "y"},
            "windows": {"every": "1d", "attribution": attribution},
            "exam": {"windows": windows, "rows": rows},
            **more,
        }
    )


def ledger(*rows):
    return [
        LedgerLine(
            window=f"{FIRST + i * DAY:%Y-%m-%d}",
            start=FIRST + i * DAY,
            end=FIRST + (i + 1) * DAY,
            collected=n,
            rows=n,
            duplicate=0,
            quarantined=0,
            unlabelled=0,
            late=0,
            events_sha256=f"{i}-{n}",
            quarantine_sha256="",
            shards=(),
        )
        for i, n in enumerate(rows)
    ]


def days(names):
    return [int(name[-2:]) for name in names]


def test_training_stops_at_windows_closed_when_the_exam_starts():
    made = plan(ledger(*[10] * 9), config(), FIRST + 20 * DAY)
    assert days(made.exam) == [9]
    assert days(made.train) == [1, 2, 3, 4, 5, 6, 7], "day 8 closes a day after the exam starts"
    assert (made.train_rows, made.exam_rows) == (70, 10)


def test_training_may_be_held_to_the_newest_rows():
    made = plan(ledger(*[10] * 9), config(train={"newest": "4d"}), FIRST + 20 * DAY)
    assert (days(made.train), days(made.exam)) == ([5, 6, 7], [9]), "four days before the exam begins day 5"
    assert made.fingerprint != plan(ledger(*[10] * 9), config(), FIRST + 20 * DAY).fingerprint
    with pytest.raises(DataError, match=r"as new as \[train\] newest = 1h asks for"):
        plan(ledger(*[10] * 9), config(train={"newest": "1h"}), FIRST + 20 * DAY)


def test_only_windows_closed_by_then_are_seen():
    assert days(plan(ledger(*[10] * 9), config(), FIRST + 7 * DAY).exam) == [6]


@pytest.mark.parametrize(("windows", "rows", "exam"), [(3, 1, [7, 8, 9]), (1, 25, [7, 8, 9]), (1, 80, [6, 7, 8, 9])])
def test_the_exam_takes_as_much_as_asked_and_never_more_than_half(windows, rows, exam):
    made = plan(ledger(*[10] * 9), config(windows=windows, rows=rows), FIRST + 20 * DAY)
    assert days(made.exam) == exam


def test_windows_without_rows_count_and_are_not_listed():
    made = plan(ledger(10, 10, 10, 0, 10, 0), config(windows=2, rows=1), FIRST + 20 * DAY)
    assert days(made.exam) == [5]
    assert days(made.train) == [1, 2, 3]


def test_the_fingerprint_is_of_all_that_a_model_is_made_from():
    lines, at = ledger(*[10] * 9), FIRST + 20 * DAY
    made = plan(lines, config(), at)
    assert plan(lines, config(gate={"margin": 0.1}), at).fingerprint == made.fingerprint
    assert plan(lines, config(train={"seed": 1}), at).fingerprint != made.fingerprint
    corrected = [replace(lines[0], events_sha256="other"), *lines[1:]]
    assert plan(corrected, config(), at).fingerprint != made.fingerprint


def test_nothing_closed_or_nothing_before_the_exam_is_said():
    with pytest.raises(DataError, match="no closed window has a row at 2024-01-02"):
        plan(ledger(10, 10), config(), FIRST + DAY)
    with pytest.raises(DataError, match=r"(?s)no rows to train on before the exam.*of 20 rows none was closed"):
        plan(ledger(10, 10), config(), FIRST + 20 * DAY)
