"""Promise 3, nothing is lost silently, for whatever a source delivers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel import config
from flywheel.config import Config
from flywheel.data.collect import Collected, close, ledger
from flywheel.schema import REJECTED, event_schema
from flywheel.sources.normalise import normalise

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WINDOWS = 3


def contract(*, with_id: bool, silence: str | int) -> Config:
    roles = {"timestamp": "time", "label": "y", "label_time": "seen", "user": "u"} | (
        {"event_id": "id"} if with_id else {}
    )
    context = {"numeric": ["n"], "lists": {"g": "|"}}
    windows = {"every": "1d", "attribution": "1d", "silence": silence}
    raw = {"product": {"name": "p"}, "source": {"url": "e"}, "windows": windows, "contract": roles | context}
    return config.parse(raw)


def moment(hours: int) -> str:
    return (START + timedelta(hours=hours)).isoformat()


row = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c", "d", "e", "f", ""]),
        "time": st.one_of(
            st.integers(0, 24 * WINDOWS - 1).map(moment), st.sampled_from(["", "soon", "2024-01-01", moment(0)])
        ),
        "seen": st.one_of(st.just(""), st.integers(0, 24 * WINDOWS * 2).map(moment)),
        "y": st.sampled_from(["0", "1", "0", "1", "", "nan"]),
        "u": st.sampled_from(["", "x", "y", "'", "a\0b"]),
        "n": st.sampled_from(["", "0", "-0.0", "1e3", "q"]),
        "g": st.sampled_from(["", "a|b", "b|a", "|"]),
    }
)
deliveries = st.lists(st.lists(row, min_size=1, max_size=6), min_size=1, max_size=5)
contracts = st.builds(contract, with_id=st.booleans(), silence=st.sampled_from(["unlabelled", 0]))


def taken(rows: list[dict[str, str]], using: Config, source: str) -> tuple[pa.Table, pa.Table]:
    batch = pa.RecordBatch.from_pylist(rows)
    known = normalise(batch, using, source=source, first_row=1, now=NOW)
    assert known.events.num_rows + known.rejected.num_rows == len(rows)
    return known.events, known.rejected


def turned(parts: list[tuple[pa.Table, pa.Table]], using: Config, *, skip_first: bool = False) -> list[Collected]:
    """Close three windows one after the other; with `skip_first`, what belongs to the first arrives a window late."""
    grid = using.windows.grid
    first = grid.index(START)
    events = pa.concat_tables([event_schema(using).empty_table(), *(part for part, _ in parts)])
    bad = pa.concat_tables([REJECTED.empty_table(), *(part for _, part in parts)])
    at = [grid.index(ts) for ts in events["ts"].to_pylist()]
    at = [max(index, first + 1) for index in at] if skip_first else at
    ids: list[str] = []
    found = []
    for window in range(first, first + WINDOWS):
        mine = events.filter(pa.array([index == window for index in at], pa.bool_()))
        got = close(
            window,
            using,
            events=mine,
            rejected=bad if window == first else REJECTED.empty_table(),
            known=lambda column: pc.is_in(column, value_set=pa.array(ids, pa.string())),  # noqa: B023
        )
        ids += got.rows["event_id"].to_pylist()
        found.append(got)
    return found


def parts_of(batches: list[list[dict[str, str]]], using: Config) -> list[tuple[pa.Table, pa.Table]]:
    return [taken(rows, using, f"{k}.csv") for k, rows in enumerate(batches)]


def same_files(one: Collected, other: Collected) -> bool:
    """Equal to the byte: the numbering of names included."""
    return bool(
        one.rows.to_batches() == other.rows.to_batches()
        and one.rejected.equals(other.rejected)
        and all(
            one.rows[name].combine_chunks().dictionary.equals(other.rows[name].combine_chunks().dictionary)
            for name in one.rows.column_names
            if one.rows.num_rows and pa.types.is_dictionary(one.rows[name].type)
        )
    )


@given(deliveries, contracts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_promise_3_the_ledger_always_adds_up(batches: list[list[dict[str, str]]], using: Config, late: bool) -> None:
    found = turned(parts_of(batches, using), using, skip_first=late)
    delivered = sum(len(rows) for rows in batches)
    counts = [ledger(got) for got in found]
    assert sum(count.collected for count in counts) == delivered
    for got, count in zip(found, counts, strict=True):
        assert count.collected == count.rows + count.duplicate + count.quarantined + count.unlabelled + count.late
        assert got.rows.num_rows == count.rows + count.unlabelled + count.late
    ids = [name for got in found for name in got.rows["event_id"].to_pylist()]
    assert len(ids) == len(set(ids))


@given(deliveries, contracts, st.data())
@settings(max_examples=40, deadline=None)
def test_promise_3_quarantining_rows_keeps_the_sum(
    batches: list[list[dict[str, str]]], using: Config, data: st.DataObject
) -> None:
    for got in turned(parts_of(batches, using), using):
        some = data.draw(st.sets(st.integers(0, got.rows.num_rows - 1))) if got.rows.num_rows else set()
        count = ledger(got, some)
        assert count.collected == count.rows + count.duplicate + count.quarantined + count.unlabelled + count.late
        assert count.quarantined == got.rejected.num_rows + len(some)


@given(deliveries, contracts, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_promise_7_the_order_of_deliveries_and_rows_is_nothing(
    batches: list[list[dict[str, str]]], using: Config, random: Any
) -> None:
    parts = parts_of(batches, using)
    shuffled = random.sample(parts, len(parts))
    shuffled = [(mixed(events, random), mixed(bad, random)) for events, bad in shuffled]
    for one, other in zip(turned(parts, using), turned(shuffled, using), strict=True):
        assert same_files(one, other)
        assert ledger(one) == ledger(other)


def mixed(table: pa.Table, random: Any) -> pa.Table:
    return table.take(pa.array(random.sample(range(table.num_rows), table.num_rows), pa.int64()))


@given(deliveries, contracts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_promise_3_delivering_again_only_adds_duplicates(
    batches: list[list[dict[str, str]]], using: Config, renamed: bool
) -> None:
    parts = parts_of(batches, using)
    again = [taken(rows, using, f"{k}.csv" if not renamed else f"later {k}.csv") for k, rows in enumerate(batches)]
    for one, twice in zip(turned(parts, using), turned(parts + again, using), strict=True):
        before, after = ledger(one), ledger(twice)
        assert same_files(one, twice)
        assert (after.rows, after.quarantined, after.unlabelled, after.late) == (
            before.rows,
            before.quarantined,
            before.unlabelled,
            before.late,
        )
        assert after.duplicate - before.duplicate == after.collected - before.collected


@pytest.mark.parametrize("extra", [0, 1])
def test_the_strategy_reaches_every_kind_of_row(extra: int) -> None:
    using = contract(with_id=True, silence="unlabelled")
    base = {"id": "a", "time": moment(1), "seen": "", "y": "1", "u": "x", "n": "", "g": ""}
    rows = [base, base, base | {"n": "1e3"}, base | {"id": "b", "y": ""}, base | {"id": "c", "time": "soon"}]
    count = ledger(turned([taken(rows * (1 + extra), using, "0.csv")], using)[0])
    assert (count.rows, count.quarantined, count.unlabelled) == (1, 2, 1)
    assert count.duplicate == 1 + 5 * extra
