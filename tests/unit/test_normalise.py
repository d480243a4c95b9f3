import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from flywheel import config
from flywheel.config import Config
from flywheel.errors import ConfigError, SourceError
from flywheel.schema import REJECTED, event_schema
from flywheel.sources.normalise import Normalised, contract_columns, normalise

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def settings(**contract: Any) -> Config:
    contract = {"timestamp": "time", "label": "y"} | contract
    raw = {"product": {"name": "p"}, "source": {"url": "e.csv"}, "windows": {"every": "7d"}}
    return config.parse({**raw, "contract": contract})


def one(value: Any, column: str = "time", **contract: Any) -> Normalised:
    row = {"time": "2024-05-01T00:00:00Z", "y": "1"} | {column: value}
    array = {name: pa.array([cell]) for name, cell in row.items()}
    batch = pa.record_batch(list(array.values()), names=list(array))
    return normalise(batch, settings(**contract), source="e.csv", first_row=7, now=NOW)


def reasons(known: Normalised) -> list[str]:
    assert known.events.num_rows == 0
    return known.rejected["reasons"][0].as_py()


@pytest.mark.parametrize(
    "written",
    [
        "2024-05-01T10:00:00Z",
        "2024-05-01 12:00:00+02:00",
        "2024-05-01T12:00:00.000+0200",
        "2024-05-01T10Z",
        " 2024-05-01T10:00Z ",
        "2024-05-01T10:00:00.000000000Z",
        "1714557600",
        "1714557600.0",
        "1714557600000",
        1714557600,
        1714557600.0,
        1714557600_000,
        1714557600_000_000,
        1714557600_000_000_000,
        datetime(2024, 5, 1, 10, tzinfo=UTC),
    ],
)
def test_one_instant_in_every_writing(written: Any) -> None:
    assert one(written).events["ts"].to_pylist() == [datetime(2024, 5, 1, 10, tzinfo=UTC)]


def test_nanoseconds_are_cut_to_microseconds() -> None:
    assert one("2024-05-01T10:00:00.123456789Z").events["ts"][0].as_py().microsecond == 123456


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("2024-05-01T10:00:00", "time has no time zone: '2024-05-01T10:00:00'"),
        ("2024-05-01", "time has no time zone: '2024-05-01'"),
        (datetime(2024, 5, 1), "time has no time zone: '2024-05-01 00:00:00'"),  # noqa: DTZ001
        (datetime(2024, 5, 1).date(), "time has no time zone: '2024-05-01'"),  # noqa: DTZ001
        (50_000_000_000, "time is no time between 1990 and 2100: '50000000000', in seconds the year 3554"),
        ("50000000000", "time is no time between 1990 and 2100: '50000000000', in seconds the year 3554"),
        (0, "time is no time between 1990 and 2100: '0', in seconds the year 1970"),
        ("0001-01-01T00:00:00Z", "time is no time between 1990 and 2100: '0001-01-01T00:00:00Z'"),
        ("yesterday", "time is not a time: 'yesterday'"),
        ("2024-02-30T00:00:00Z", "time is not a time: '2024-02-30T00:00:00Z'"),
        ("2024-05-01T10:61:00Z", "time is not a time: '2024-05-01T10:61:00Z'"),
        ("", "time is empty"),
        (None, "time is empty"),
        ("2026-01-02T00:00:01Z", "time lies in the future: '2026-01-02T00:00:01Z'"),
    ],
)
def test_times_that_are_refused(written: Any, reason: str) -> None:
    (said,) = reasons(one(written))
    assert said.startswith(reason)


@pytest.mark.parametrize("written", ["2024-05-01T00:00:00", "2024-05-01", datetime(2024, 5, 1)])  # noqa: DTZ001
def test_naive_times_are_utc_where_the_contract_says_so(written: Any) -> None:
    known = one(written, naive_timestamps="utc")
    assert known.events["ts"].to_pylist() == [datetime(2024, 5, 1, tzinfo=UTC)]


def test_a_future_row_is_undated_so_that_some_window_takes_it() -> None:
    assert one("2099-01-01T00:00:00Z").rejected["ts"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("1", 1.0),
        ("0.0", 0.0),
        ("true", 1.0),
        ("False", 0.0),
        (True, 1.0),
        (0, 0.0),
        ("", None),
        (None, None),
        (" 1 ", 1.0),
    ],
)
def test_labels(given: Any, label: float | None) -> None:
    known = one(given, "y")
    assert known.events["label"].to_pylist() == [label]
    assert known.events["label_ts"].is_null().to_pylist() == [label is None]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("2", "y is neither 0 nor 1: '2'"),
        ("NaN", "y is not finite: 'NaN'"),
        (float("inf"), "y is not finite: 'inf'"),
        ("1e999", "y is not finite: '1e999'"),
        ("good", "y is not a number: 'good'"),
    ],
)
def test_labels_that_are_refused(given: Any, reason: str) -> None:
    (said,) = reasons(one(given, "y"))
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("rule", "given", "label"),
    [
        ("y >= 4", "4", 1.0),
        ("y>4", "4", 0.0),
        ("y < 4.5", "4", 1.0),
        ("y == 'sold'", "sold", 1.0),
        ('y != "sold"', "sold", 0.0),
        ("y <= 3", "", None),
    ],
)
def test_a_label_may_be_a_comparison(rule: str, given: str, label: float | None) -> None:
    assert one(given, "y", label=rule).events["label"].to_pylist() == [label]


def test_a_column_named_like_a_comparison_is_a_column() -> None:
    batch = pa.record_batch({"time": ["2024-05-01T00:00:00Z"], "y >= 4": ["1"]})
    known = normalise(batch, settings(label="y >= 4"), source="e", first_row=1, now=NOW)
    assert known.events["label"].to_pylist() == [1.0]


@pytest.mark.parametrize("rule", ["y > 'a'", "y == sold"])
def test_a_comparison_that_cannot_be_meant(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"contract\.label"):
        one("1", "y", label=rule)


def test_a_number_may_be_any_finite_one() -> None:
    assert one("-3.5", "y", kind="number").events["label"].to_pylist() == [-3.5]


def test_a_label_known_before_its_event_is_refused() -> None:
    (said,) = reasons(one("2024-04-30T00:00:00Z", "seen", label_time="seen"))
    assert said == "seen lies before time: '2024-04-30T00:00:00Z'"


def test_without_a_label_time_the_label_is_known_at_once() -> None:
    known = one("", "seen", label_time="seen")
    assert known.events["label_ts"].to_pylist() == [datetime(2024, 5, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    "name", ["007", "a'b\"c", "../../x", "a\nb", "😀", "'; drop table", " x ", "=cmd()", "x" * 512]
)
def test_ids_are_as_given(name: str) -> None:
    assert one(name, "u", user="u").events["user"].to_pylist() == [name]


@pytest.mark.parametrize(("given", "text"), [(7, "7"), (7.0, "7"), (None, None), ("", None)])
def test_ids_of_other_types(given: Any, text: str | None) -> None:
    assert one(given, "u", user="u").events["user"].to_pylist() == [text]


@pytest.mark.parametrize(
    ("given", "reason"),
    [("a\0b", "u holds a NUL character: 'a\\x00b'"), ("x" * 513, "u is longer than 512 characters: 'xxx")],
)
def test_ids_that_are_refused(given: str, reason: str) -> None:
    (said,) = reasons(one(given, "u", user="u"))
    assert said.startswith(reason)
    assert len(said) < 120


@pytest.mark.parametrize("given", ["0", "1.5", "-0.1", "nan", "x"])
def test_a_propensity_is_a_probability_above_zero(given: str) -> None:
    (said,) = reasons(one(given, "p", propensity="p"))
    assert "p " in said


@pytest.mark.parametrize("given", ["1.5", "3000000000", "first"])
def test_a_position_is_a_whole_number(given: str) -> None:
    (said,) = reasons(one(given, "p", position="p"))
    assert said.endswith(f"number: {given!r}")


def test_numbers_are_parsed_or_null_or_refused() -> None:
    assert one("1.50", "n", numeric=["n"]).events["n"].to_pylist() == [1.5]
    assert one("", "n", numeric=["n"]).events["n"].to_pylist() == [None]
    assert reasons(one("1,5", "n", numeric=["n"])) == ["n is not a number: '1,5'"]
    assert reasons(one(float("nan"), "n", numeric=["n"])) == ["n is not finite: 'nan'"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("Action| Comedy ||", ["Action", "Comedy"]),
        (" | ", None),
        ("", None),
        (None, None),
        (["Action|x", " "], ["Action|x"]),
    ],
)
def test_lists(given: Any, parts: list[str] | None) -> None:
    assert one(given, "g", lists={"g": "|"}).events["g"].to_pylist() == [parts]


def test_every_reason_of_a_row_and_the_row_as_it_came() -> None:
    batch = pa.record_batch({"time": ["2024-05-01"], "y": ["7"], "n": ["x"], "more": [float("nan")]})
    known = normalise(batch, settings(numeric=["n"]), source="e.csv", first_row=7, now=NOW)
    (row,) = known.rejected.to_pylist()
    assert [reason.split()[0] for reason in row["reasons"]] == ["time", "y", "n"]
    assert (row["source"], row["row"], row["ts"]) == ("e.csv", 7, None)
    assert json.loads(row["raw"]) == {"time": "2024-05-01", "y": "7", "n": "x", "more": "nan"}
    assert known.rejected.schema == REJECTED
    assert known.ignored == ("more",)


def test_bad_rows_leave_their_neighbours_alone() -> None:
    batch = pa.record_batch(
        {
            "time": ["2024-05-01T00:00:00Z", "2024-05-01", "1714557600", "2024-05-03T00:00:00Z"],
            "y": ["1", "0", "true", "x"],
            "g": ["a|b", "c", "", "d"],
        }
    )
    known = normalise(batch, settings(lists={"g": "|"}), source="e", first_row=1, now=NOW)
    assert known.events["row"].to_pylist() == [1, 3]
    assert known.events["g"].to_pylist() == [["a", "b"], None]
    assert known.rejected["row"].to_pylist() == [2, 4]
    assert known.events.schema == event_schema(settings(lists={"g": "|"}))


def test_a_renamed_column_is_named_with_the_fix() -> None:
    batch = pa.record_batch({"time": ["2024-05-01T00:00:00Z"], "y": ["1"], "user_idd": ["a"]})
    with pytest.raises(SourceError) as caught:
        normalise(batch, settings(user="user_id"), source="e.csv", first_row=1, now=NOW)
    text = str(caught.value)
    assert "e.csv has no column 'user_id'" in text
    assert "renamed to user_idd?" in text
    assert len(text.splitlines()) <= 6


def test_the_contract_names_its_columns_once() -> None:
    known = contract_columns(settings(label="rating >= 4", user="u", outcomes=["rating"]).contract)
    assert known == ("time", "rating", "u")


def hashes(rows: list[dict[str, Any]], **contract: Any) -> list[str]:
    batch = pa.RecordBatch.from_pylist([{"time": "2024-05-01T00:00:00Z", "y": "1"} | row for row in rows])
    return normalise(batch, settings(**contract), source="e", first_row=1, now=NOW).events["event_id"].to_pylist()


def test_without_an_id_equal_content_is_one_event() -> None:
    contract = {"user": "u", "lists": {"g": "|"}, "numeric": ["n"], "outcomes": ["o"]}
    base = {"u": "a", "g": "x|y", "n": "0", "o": "1"}
    same = [base, base | {"n": "-0.0"}, base | {"g": " x|y|"}]
    other = [
        base | {"u": None},
        base | {"g": "y|x"},
        base | {"n": ""},
        base | {"o": "2"},
        base | {"time": "2024-05-01T00:00:01Z"},
    ]
    ids = hashes(same + other, **contract)
    assert len(set(ids[:3])) == 1
    assert len(set(ids[2:])) == 6
    assert hashes([base], **contract) == ids[:1]  # whatever batch it is in


def test_the_content_hash_is_the_same_on_every_machine() -> None:
    assert hashes([{"u": "a"}], user="u") == ["47ce760da0faa0d2cdbc1e1e75767100"]


def test_an_event_without_its_id_is_refused() -> None:
    assert reasons(one("", "id", event_id="id")) == ["id is empty"]


def test_a_clock_may_be_a_day_ahead() -> None:
    assert one((NOW + timedelta(hours=23)).isoformat()).events.num_rows == 1
