from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flywheel import config
from flywheel.config import Config
from flywheel.data.collect import close
from flywheel.errors import ConfigError, IntegrityError
from flywheel.events import Context, Decision, Outcome, Row, Shown
from flywheel.records import Outcomes
from flywheel.schema import NOTHING
from flywheel.sources.files import FileSource
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_reading import account
from flywheel.sources.inbox_source import InboxSource
from flywheel.sources.locate import locate
from flywheel.sources.source import Mark
from flywheel.sources.spool import Spool, Taken

DAY = timedelta(days=1)
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
ROLES = {
    "timestamp": "at", "label": "watched", "user": "who", "item": "what", "request": "list", "event_id": "id",
    "label_time": "answered", "position": "slot", "propensity": "chance", "numeric": ["age"], "categorical": ["device"],
    "lists": {"genres": "|"}, "outcomes": ["minutes"],
}  # fmt: skip


def settings(**contract: Any) -> Config:
    raw = {"product": {"name": "p"}, "serve": {}, "contract": ROLES | contract}
    return config.parse({**raw, "windows": {"every": "1d", "attribution": "2h", "lateness": "1h", "silence": 0}})


def micros(days: float, hours: float = 0) -> int:
    return round((MONDAY + timedelta(days=days, hours=hours)).timestamp() * 1e6)


def shown(item: str, **attributes: Any) -> Shown:
    return Shown(item, 0.25, explored=item == "b", features=2**64 - 1, attributes=attributes)


def decided(name: str, ts: int, *items: str | Shown, context: Context | None = None) -> Decision:
    slots = tuple(item if isinstance(item, Shown) else shown(item) for item in items)
    return Decision(name, ts, "ann", 3, "wheel", -5, "abc", context or {}, slots, ("a", "b", "c"))


def heard(name: str, decision: str, item: str, ts: int, value: float = 1.0) -> Outcome:
    return Outcome(name, decision, item, value, ts)


class Wheel:
    """An inbox with the spool that takes from it."""

    def __init__(self, root: Path, url: str | None, using: Config) -> None:
        self.using, self.inbox = using, Inbox.open(url, root)
        self.spool = Spool(root / "inbox", using.windows.grid)

    def take(self, days: float) -> tuple[Taken, ...]:
        source = InboxSource(self.inbox, self.using, MONDAY + timedelta(days=days))
        return self.spool.take(source, self.using, now=MONDAY + timedelta(days=max(days, 30)))

    @property
    def marks(self) -> list[Mark]:
        return [taken.mark for taken in self.spool.deliveries()]

    def settled(self) -> dict[str, dict[str, int]]:
        """What was settled by window, without the zeros."""
        found: dict[str, dict[str, int]] = {}
        for mark in self.marks:
            for window, counts in mark.get("outcomes", {}).items():
                told = {name: count for name, count in counts.items() if count and name != "collected"}
                assert window not in found
                found[window] = told
        return found

    def parked(self) -> int:
        return account(self.inbox, self.marks).parked

    def rows(self, window: str, *, known: tuple[str, ...] = ()) -> pa.Table:
        grid = self.using.windows.grid
        at = grid.parse(window)
        events = self.spool.shards(at, frozenset()) + self.spool.late(at, frozenset())
        collected = close(
            at,
            self.using,
            events=self.spool.read_events(events, self.using),
            rejected=self.spool.read_rejected(self.spool.rejected(at, frozenset())),
            known=lambda ids: pc.is_in(ids, value_set=pa.array(known, pa.string())),
        )
        return collected.rows


@pytest.fixture
def make(tmp_path: Path, inbox_url: str | None) -> Iterator[Callable[..., Wheel]]:
    made: list[Wheel] = []

    def build(**contract: Any) -> Wheel:
        made.append(Wheel(tmp_path, inbox_url, settings(**contract)))
        return made[-1]

    yield build
    for wheel in made:
        wheel.inbox.close()


@pytest.fixture
def wheel(make: Callable[..., Wheel]) -> Wheel:
    return make()


def test_a_decision_becomes_a_row_a_slot_with_all_that_was_logged(wheel: Wheel) -> None:
    first = shown("a", genres=["x", "y"], age=7.0)
    decision = decided("d1", micros(0, 5), first, "b", context={"age": 30.0, "device": "tv", "genres": "z|w"})
    wheel.inbox.write([decision], [heard("o1", "d1", "b", micros(0, 6), 1.0)])
    (taken,) = wheel.take(1)
    assert (taken.label, taken.rows, taken.rejected, taken.ignored) == ("inbox up to 2026-01-06", 2, 0, ())
    rows = wheel.rows("2026-01-05").to_pylist()
    at = MONDAY + timedelta(hours=5)
    both = {
        "ts": at,
        "user": "ann",
        "request": "d1",
        "propensity": 0.25,
        "device": "tv",
        "minutes": None,
        "late": False,
    }
    both |= {"generation": 3, "arm": "wheel", "state": -5, "recipe": "abc", "features": 2**64 - 1}
    closing = MONDAY + timedelta(days=1, hours=3)
    assert rows == [
        both
        | {"event_id": "d1-1", "item": "a", "position": 1, "explored": False, "age": 7.0, "genres": ["x", "y"]}
        | {"label": 0.0, "label_ts": closing},
        both
        | {"event_id": "d1-2", "item": "b", "position": 2, "explored": True, "age": 30.0, "genres": ["z", "w"]}
        | {"label": 1.0, "label_ts": MONDAY + timedelta(hours=6)},
    ]
    assert wheel.settled() == {"2026-01-05": {"joined": 1}}


def test_the_newest_outcome_within_attribution_is_the_label(make: Callable[..., Wheel]) -> None:
    wheel = make(label="rating >= 4")
    outcomes = [
        heard("1", "d", "a", micros(0, 1), 5.0),
        heard("2", "d", "a", micros(0, 2), 2.0),
        heard("3", "d", "a", micros(0, 1.5), 5.0),
        heard("4", "d", "a", micros(0, 2.01), 5.0),  # more than two hours after
        heard("5", "d", "b", micros(0, 1), 1.0),
        heard("6", "d", "b", micros(0, 1), 4.0),  # as new, and came later
        heard("7", "d", "c", micros(0), 4.0),
    ]
    wheel.inbox.write([decided("d", micros(0), "a", "b", "c")], outcomes)
    wheel.take(1)
    assert wheel.rows("2026-01-05")["label"].to_pylist() == [0.0, 1.0, 1.0]
    assert wheel.settled() == {"2026-01-05": {"joined": 6, "late": 1}}


def test_every_outcome_is_settled_once_or_parked(wheel: Wheel) -> None:
    wheel.inbox.write(
        [decided("d", micros(0, 3), "a"), decided("open", micros(1), "a")],
        [
            heard("unknown", "nobody", "a", micros(0, 4)),
            heard("later", "nobody", "a", micros(1, 4)),
            heard("other item", "d", "z", micros(0, 4)),
            heard("before", "d", "a", micros(0, 2)),
            heard("good", "d", "a", micros(0, 4)),
            heard("good", "d", "a", micros(0, 4)),
            heard("good", "d", "a", micros(0, 4), 0.0),
            heard("waits", "open", "a", micros(1, 1)),
            heard("early", "comes", "a", micros(1, 9)),
        ],
    )
    assert account(wheel.inbox, []).parked == 9
    (taken,) = wheel.take(1)
    assert wheel.settled() == {"2026-01-05": {"joined": 1, "duplicate": 1, "quarantined": 3, "orphaned": 1}}
    assert {sample["id"]: sample["reason"] for sample in taken.mark["samples"]} == {
        "good": "same event id, other content",
        "unknown": "its decision is unknown",
        "other item": "it names an item that was not shown",
        "before": "it is dated before its decision",
    }
    assert (wheel.parked(), account(wheel.inbox, wheel.marks).decisions) == (3, 1)
    wheel.inbox.write([decided("comes", micros(1, 8), "a"), decided("late", micros(0, 1), "a")])
    wheel.inbox.write([], [heard("too late", "d", "a", micros(0, 4)), heard("of late", "late", "a", micros(0, 2))])
    assert wheel.take(1) == ()
    assert wheel.parked() == 5
    wheel.take(2)
    assert wheel.settled()["2026-01-06"] == {"joined": 3, "orphaned": 1, "late": 1}
    assert (wheel.parked(), account(wheel.inbox, wheel.marks).settled.collected) == (0, 11)
    rows = wheel.rows("2026-01-06", known=("d-1",)).to_pylist()
    assert [(row["event_id"], row["late"], row["label"]) for row in rows] == [
        ("late-1", True, 1.0),
        ("open-1", False, 1.0),
        ("comes-1", False, 1.0),
    ]


def test_what_was_orphaned_stays_so_when_its_decision_comes_after_all(wheel: Wheel) -> None:
    wheel.inbox.write([], [heard("o", "d", "a", micros(0, 4))])
    wheel.take(1)
    wheel.inbox.write(
        [decided("d", micros(0, 3), "a"), decided("e", micros(1, 3), "a")], [heard("p", "e", "a", micros(0))]
    )
    wheel.take(2)
    assert wheel.settled() == {"2026-01-05": {"orphaned": 1}, "2026-01-06": {"quarantined": 1}}
    assert wheel.parked() == 0


def test_a_window_without_events_is_cut_off_too(wheel: Wheel) -> None:
    assert wheel.take(1) == ()
    wheel.inbox.write([decided("far", micros(9), "a")])
    (taken,) = wheel.take(1)
    assert (taken.rows, taken.mark["outcomes"]) == (0, {})
    wheel.inbox.write([], [heard("o", "nobody", "a", micros(0))])
    wheel.take(2)
    assert wheel.settled() == {"2026-01-06": {"orphaned": 1}}


def test_the_same_cut_has_the_same_name_and_another_has_another(wheel: Wheel) -> None:
    wheel.inbox.write([decided("d", micros(0), "a")])

    def name() -> str:
        (delivery,) = InboxSource(wheel.inbox, wheel.using, MONDAY + DAY).deliveries([])
        return delivery.name

    first = name()
    assert name() == first
    wheel.inbox.write([decided("e", micros(0), "a")])
    assert name() != first


def test_ready_rows_are_delivered_as_they_arrive(wheel: Wheel) -> None:
    def row(name: str, **more: Any) -> Row:
        body = {"id": name, "at": "2026-01-09T10:00:00Z", "who": "u", "what": "i"} | more
        return Row(name, micros(4, 10), msgspec.json.encode(body))

    nul = Row("r9", micros(4, 10), b'{"id": "r9", "at": "2026-01-09T10:00:00Z", "\\u0000arm": "x"}')
    wheel.inbox.write(
        [], [], [row("r1", watched=1, age=2**60, genres=["x"], arm="x"), row("r2"), row("r3", watched=7), nul]
    )
    (taken,) = wheel.take(1)
    assert (taken.label, taken.rows, taken.rejected) == ("inbox, ready rows 1 to 4", 4, 2)
    assert (taken.ignored, wheel.take(1)) == (("arm",), ())
    wheel.inbox.write([], [], [row("r2"), row("r4", device="tv\nset")])
    (again,) = wheel.take(1)
    assert (again.label, again.rows) == ("inbox, ready rows 5 to 5", 1)
    rows = {row["event_id"]: row for row in wheel.rows("2026-01-09").to_pylist()}
    assert sorted(rows) == ["r1", "r2", "r4"]
    assert (rows["r1"]["label"], rows["r1"]["age"], rows["r1"]["genres"], rows["r1"]["arm"]) == (
        1.0,
        2.0**60,
        ["x"],
        None,
    )
    assert (rows["r2"]["label"], rows["r2"]["generation"], rows["r4"]["device"]) == (0.0, None, "tv\nset")


def test_a_delivery_is_never_taken_again_under_another_contract(make: Callable[..., Wheel]) -> None:
    wheel = make()
    wheel.inbox.write([decided("d", micros(0), "a")], [heard("o", "d", "a", micros(0))], [Row("r", micros(0), b"{}")])
    assert len(wheel.take(1)) == 2
    other = make(label="watched >= 1")
    assert other.take(1) == ()
    assert other.parked() == 0


def test_what_was_delivered_may_be_forgotten_and_nothing_else(wheel: Wheel) -> None:
    ready = Row("r", micros(0), b'{"id": "r", "at": "2026-01-05T00:00:00Z", "who": "u", "what": "i"}')
    wheel.inbox.write([decided("d", micros(0), "a"), decided("open", micros(1), "a")], [], [ready])
    wheel.take(1)
    wheel.inbox.write([decided("late", micros(0), "b")], [heard("o", "d", "a", micros(0, 1))])
    source = InboxSource(wheel.inbox, wheel.using, MONDAY + DAY)
    assert source.forget(wheel.marks, MONDAY) == 0
    assert source.forget(wheel.marks, MONDAY + DAY) == 2
    assert source.forget(wheel.marks, MONDAY + DAY) == 0
    assert wheel.inbox.write([decided("d", micros(0), "a"), decided("d", micros(0), "b")]).decisions == [
        "duplicate",
        "conflict",
    ]
    wheel.take(2)
    assert wheel.settled() == {"2026-01-06": {"late": 1}}
    assert sorted(wheel.rows("2026-01-06")["event_id"].to_pylist()) == ["d-1", "late-1", "open-1", "r"]
    assert account(wheel.inbox, wheel.marks).settled == Outcomes(collected=1, late=1)
    assert account(wheel.inbox, []).parked == 1
    (again, *_) = [
        d for d in InboxSource(wheel.inbox, wheel.using, MONDAY + 2 * DAY).deliveries([]) if list(d.batches())
    ]
    assert again.mark()["outcomes"]["2026-01-06"]["late"] == 1


def test_more_rows_than_a_batch_holds_and_slots_that_are_many(wheel: Wheel) -> None:
    many = [decided(f"d{k}", micros(0, k / 1000), *(f"i{n}" for n in range(100))) for k in range(450)]
    wheel.inbox.write(many, [heard(f"o{k}", f"d{k}", "i7", micros(0, k / 1000)) for k in range(450)])
    (delivery,) = InboxSource(wheel.inbox, wheel.using, MONDAY + DAY).deliveries([])
    assert [batch.num_rows for batch in delivery.batches()] == [20_000, 20_000, 5_000]
    assert delivery.mark()["outcomes"]["2026-01-05"]["joined"] == 450


def test_values_of_several_kinds_in_a_column_are_read_as_text(wheel: Wheel) -> None:
    contexts: list[Context] = [{"device": "tv"}, {"device": 3.0}, {"device": ["a"]}, {}, {"age": "7"}, {"genres": 3.0}]
    wheel.inbox.write([decided(f"d{k}", micros(0, k), "a", context=given) for k, given in enumerate(contexts)])
    wheel.take(1)
    rows = wheel.rows("2026-01-05").to_pylist()
    assert [row["device"] for row in rows] == ["tv", "3", '["a"]', None, None, None]
    assert [row["age"] for row in rows] == [None, None, None, None, 7.0, None]
    assert rows[5]["genres"] == ["3"]


def test_an_inbox_that_holds_less_than_was_taken_is_told(wheel: Wheel, tmp_path: Path) -> None:
    wheel.inbox.write([decided("d", micros(0), "a")], [heard("o", "d", "a", micros(0))])
    wheel.take(1)
    other = Inbox.open("sqlite:///inbox/other.db", tmp_path)
    with pytest.raises(IntegrityError, match="holds less than was taken"):
        list(InboxSource(other, wheel.using, MONDAY + 2 * DAY).deliveries(wheel.marks))
    with pytest.raises(IntegrityError, match="the ledger of outcomes is off"):
        account(other, wheel.marks)
    other.close()


def test_a_label_that_no_number_can_be_is_refused(wheel: Wheel) -> None:
    with pytest.raises(ConfigError, match="cannot be served"):
        list(InboxSource(wheel.inbox, settings(label="state == 'sold'"), MONDAY).deliveries([]))


def test_a_workspace_that_serves_reads_its_inbox_as_soon_as_there_is_one(tmp_path: Path) -> None:
    using = settings()
    assert locate(using, tmp_path, until=MONDAY) == ()
    Inbox.open(None, tmp_path).close()
    (found,) = locate(using, tmp_path, until=MONDAY)
    assert isinstance(found, InboxSource)
    both = config.parse({**using.model_dump(mode="json"), "source": {"url": "e.csv"}})
    assert [type(source) for source in locate(both, tmp_path, until=MONDAY)] == [FileSource, InboxSource]
    quiet = config.parse({**both.model_dump(mode="json"), "serve": None})
    assert [type(source) for source in locate(quiet, tmp_path, until=MONDAY)] == [FileSource]


def test_files_beside_an_inbox_have_nothing_that_was_logged(tmp_path: Path) -> None:
    using = settings()
    header = "at,watched,who,what,list,id,answered,slot,chance,age,device,genres,minutes,arm,state"
    (tmp_path / "e.csv").write_text(f"{header}\n2026-01-05T01:00:00Z,1,u,i,r,e1,,1,0.5,1,tv,x,,mine,CA\n")
    spool = Spool(tmp_path / "inbox", using.windows.grid)
    (taken,) = spool.take(FileSource("e.csv", tmp_path), using, now=MONDAY + DAY)
    (row,) = spool.read_events([f"{taken.name}/2026-01-05"], using).to_pylist()
    assert taken.ignored == ("arm", "state")
    assert [row[name] for name in ("generation", "arm", "explored", "state", "recipe", "features")] == [None] * 6


def test_before_there_was_a_state_there_is_none(wheel: Wheel) -> None:
    nothing = msgspec.structs.replace(decided("d", micros(0), "a"), generation=0, arm="holdback", state=NOTHING)
    wheel.inbox.write([nothing])
    wheel.take(1)
    (row,) = wheel.rows("2026-01-05").to_pylist()
    assert (row["generation"], row["arm"], row["state"]) == (0, "holdback", NOTHING)
