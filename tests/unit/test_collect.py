import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flywheel import config
from flywheel.config import Config
from flywheel.data.collect import Collected, Counts, close, ledger, quarantine
from flywheel.errors import DataError, SourceError
from flywheel.schema import REJECTED, event_schema, row_schema

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def settings(
    *, silence: str | int = "unlabelled", attributes: Sequence[dict[str, Any]] = (), **contract: Any
) -> Config:
    contract = {"timestamp": "time", "label": "y", "event_id": "id", "user": "u", "item": "i"} | contract
    windows = {"every": "7d", "attribution": "2d", "lateness": "1d", "silence": silence}
    raw = {"product": {"name": "p"}, "source": {"url": "e.csv"}, "windows": windows, "attributes": list(attributes)}
    return config.parse({**raw, "contract": contract})


CONFIG = settings()
GRID = CONFIG.windows.grid
WINDOW = GRID.index(START)


def event(name: str, at: datetime = START, **more: Any) -> dict[str, Any]:
    base = {"event_id": name, "ts": at, "label": 1.0, "label_ts": at, "user": "u1", "item": "i1"}
    return base | {"source": "a.csv", "row": 1} | more


def refused(raw: str, row: int = 1, source: str = "a.csv") -> dict[str, Any]:
    return {"event_id": None, "ts": None, "source": source, "row": row, "reasons": ["time is empty"], "raw": raw}


def closed(
    events: list[dict[str, Any]], bad: Sequence[dict[str, Any]] = (), using: Config = CONFIG, **more: Any
) -> Collected:
    known = more.pop("known", ())
    return close(
        WINDOW,
        using,
        events=pa.Table.from_pylist(events, schema=event_schema(using)),
        rejected=pa.Table.from_pylist(list(bad), schema=REJECTED),
        known=lambda ids: pc.is_in(ids, value_set=pa.array(known, pa.string())),
        **more,
    )


def test_rows_are_sorted_and_have_the_schema() -> None:
    got = closed([event("b"), event("c", START + MINUTE), event("a")])
    assert got.rows["event_id"].to_pylist() == ["a", "b", "c"]
    assert got.rows.schema == row_schema(CONFIG)
    assert ledger(got) == Counts(collected=3, rows=3, duplicate=0, quarantined=0, unlabelled=0, late=0)


def test_names_are_numbered_alike_whatever_order_rows_came_in() -> None:
    events = [event("a", user="z"), event("b", user="y"), event("c", user="x")]
    for order in (events, events[::-1]):
        users = closed(order).rows["user"].combine_chunks()
        assert users.dictionary.to_pylist() == ["z", "y", "x"]
        assert users.indices.to_pylist() == [0, 1, 2]


def test_an_empty_window_closes() -> None:
    got = closed([])
    assert got.rows.schema == row_schema(CONFIG)
    assert ledger(got) == Counts(0, 0, 0, 0, 0, 0)


def test_an_equal_event_is_a_duplicate_wherever_it_came_from() -> None:
    got = closed([event("a", source="b.csv"), event("a"), event("a", row=9)])
    assert ledger(got) == Counts(collected=3, rows=1, duplicate=2, quarantined=0, unlabelled=0, late=0)
    assert got.origin.to_pylist() == [{"source": "a.csv", "row": 1}]


def test_an_id_with_other_content_is_quarantined_and_the_first_stays() -> None:
    got = closed(
        [event("a", user="u3", row=3), event("a", user="u2", row=2), event("a", START - MINUTE, user="u0", row=9)]
    )
    assert got.rows["user"].to_pylist() == ["u0"]
    assert got.rejected["row"].to_pylist() == [2, 3]
    assert got.rejected["reasons"].to_pylist() == [["same event id, other content"]] * 2
    assert json.loads(got.rejected["raw"][0].as_py()) == {
        "id": "a",
        "time": "2024-01-01T00:00:00+00:00",
        "y": 1.0,
        "u": "u2",
        "i": "i1",
    }


def test_of_two_at_the_same_time_the_row_that_came_first_stays() -> None:
    got = closed([event("a", user="a", row=2), event("a", user="z", row=1)])
    assert got.rows["user"].to_pylist() == ["z"]


def test_null_and_empty_are_other_content() -> None:
    got = closed([event("a", user=None, row=1), event("a", user="", row=2)])
    assert ledger(got).quarantined == 1


def test_an_id_already_in_the_dataset_is_a_duplicate() -> None:
    got = closed([event("a"), event("a", user="u2"), event("b")], known=["a"])
    assert ledger(got) == Counts(collected=3, rows=1, duplicate=2, quarantined=0, unlabelled=0, late=0)


def test_two_contents_under_one_hash_are_two_events() -> None:
    using = settings(event_id=None)
    events = [event("h", user="u2", row=2), event("h", user="u1", row=1), event("h", user="u1", row=3)]
    for order in (events, events[::-1]):
        got = closed(order, using=using)
        assert got.rows.select(["event_id", "user"]).to_pylist() == [
            {"event_id": "h", "user": "u1"},
            {"event_id": "h~2", "user": "u2"},
        ]
        assert ledger(got).duplicate == 1


def test_a_label_counts_if_it_was_known_when_the_window_closed() -> None:
    closing = START + 10 * DAY
    got = closed([event("in", label_ts=closing), event("out", label_ts=closing + timedelta(microseconds=1))])
    assert got.rows["event_id"].to_pylist() == ["in", "out"]
    assert got.rows["label"].to_pylist() == [1.0, None]
    assert got.rows["label_ts"].to_pylist() == [closing, None]
    assert ledger(got) == Counts(collected=2, rows=1, duplicate=0, quarantined=0, unlabelled=1, late=0)


def test_silence_may_be_a_label_and_is_known_at_the_close() -> None:
    got = closed([event("a", label=None, label_ts=None)], using=settings(silence=0))
    assert got.rows["label"].to_pylist() == [0.0]
    assert got.rows["label_ts"].to_pylist() == [START + 10 * DAY]
    assert ledger(got).rows == 1


def test_a_late_row_keeps_its_time_and_is_just_late() -> None:
    got = closed([event("a", START - MINUTE), event("b", START - DAY, label=None, label_ts=None)])
    assert got.rows["late"].to_pylist() == [True, True]
    assert got.rows["ts"].to_pylist() == [START - DAY, START - MINUTE]
    assert ledger(got) == Counts(collected=2, rows=0, duplicate=0, quarantined=0, unlabelled=0, late=2)


def test_an_event_after_the_window_is_refused() -> None:
    with pytest.raises(DataError, match="offered to window 2024-01-01"):
        closed([event("a", START + 7 * DAY)])


def test_rejected_rows_are_quarantined_once() -> None:
    got = closed([event("a")], [refused("{}"), refused("{}", 2), refused("[]", 3)])
    assert got.rejected["row"].to_pylist() == [1, 3]
    assert ledger(got) == Counts(collected=4, rows=1, duplicate=1, quarantined=2, unlabelled=0, late=0)


def test_the_ledger_after_validation_still_adds_up() -> None:
    late, silent = event("l", START - DAY), event("s", label=None, label_ts=None)
    got = closed([event("a"), event("b"), late, silent])  # in the order of their times: l, a, b, s
    assert ledger(got, [0, 1, 3]) == Counts(collected=4, rows=1, duplicate=0, quarantined=3, unlabelled=0, late=0)
    kept = quarantine(got, {0: ["odd"], 3: ["odd", "older"]}, CONFIG)
    assert kept.schema == REJECTED
    assert sorted(kept["event_id"].to_pylist()) == ["l", "s"]
    assert ["odd", "older"] in kept["reasons"].to_pylist()


ITEMS = {
    "url": "items.csv",
    "key": "item",
    "column": "item_id",
    "numeric": ["weight"],
    "categorical": ["kind"],
    "lists": {"tags": "|"},
}


def items(keys: list[str]) -> pa.Table:
    count = len(keys)
    kinds = pa.array(["k"] * count).dictionary_encode()
    return pa.table({"item_id": keys, "weight": [2.0] * count, "kind": kinds, "tags": [["x", "y"]] * count})


def test_attributes_join_by_key_and_an_unknown_key_gives_nulls() -> None:
    using = settings(attributes=[ITEMS])
    events = [event("a"), event("b", item="strange"), event("c", item=None)]
    got = closed(events, using=using, attributes=[items(["i0", "i1"])])
    assert got.rows["weight"].to_pylist() == [2.0, None, None]
    assert got.rows["kind"].to_pylist() == ["k", None, None]
    assert got.rows["tags"].to_pylist() == [["x", "y"], None, None]
    assert got.rows.schema == row_schema(using)


def test_a_key_twice_in_an_attribute_table_is_named() -> None:
    with pytest.raises(SourceError, match=r"items\.csv has item_id 'i1' twice"):
        closed([event("a")], using=settings(attributes=[ITEMS]), attributes=[items(["i1", "i0", "i1"])])
