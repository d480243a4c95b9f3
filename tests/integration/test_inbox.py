from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flywheel.errors import FlywheelError, SourceError
from flywheel.events import Decision, Outcome, Row, Shown
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox, Written
from flywheel.sources.inbox_database import EventError, InboxUnavailable

ODD_IDS = [
    "../../x", "'; drop table outcomes", "{{7*7}}", "<script>", "\u202eأهلا 🎡", "é", "e\u0301", "=cmd()", "a\nb",
    '"\\', "1", "01", "1.0", "null", "A", "a", "%s", "?", ":ids", "\x01", "\U0010ffff", "x" * 256,
]  # fmt: skip


def decision(name: str, ts: int = 10, item: str = "i") -> Decision:
    shown = Shown(item, 0.25, explored=True, features=2**64 - 1, attributes={"genre": "drama"})
    return Decision(name, ts, "u", 3, "wheel", -5, "r", {"hour": 7.0}, (shown,), (item, "j"))


def outcome(name: str, decision_id: str = "d", item: str = "i", value: float = 1.0, ts: int = 20) -> Outcome:
    return Outcome(name, decision_id, item, value, ts)


@pytest.fixture
def inbox(inbox_url: str | None, tmp_path: Path) -> Iterator[Inbox]:
    opened = Inbox.open(inbox_url, tmp_path)
    yield opened
    opened.close()


def test_an_id_is_kept_once_for_good_and_what_contradicts_it_is_told_apart(inbox: Inbox) -> None:
    first = inbox.write([decision("d")], [outcome("a"), outcome("a"), outcome("a", value=2.0)], [Row("r", 5, b"{}")])
    assert first == Written(["accepted"], ["accepted", "duplicate", "conflict"], ["accepted"])
    again = inbox.write(
        [decision("d"), decision("d", item="k")],
        [outcome("b"), outcome("a", ts=99), outcome("a", item="k")],
        [Row("r", 5, b"{}"), Row("r", 5, b'{"x": 1}')],
    )
    assert again == Written(["duplicate", "conflict"], ["accepted", "duplicate", "conflict"], ["duplicate", "conflict"])
    arrived = {name: (n.kept, n.duplicate, n.conflict, n.total) for name, n in inbox.arrived().items()}
    assert arrived == {"decisions": (1, 1, 1, 3), "outcomes": (2, 2, 2, 6), "rows": (1, 1, 1, 3)}


def test_ids_are_opaque_and_differ_by_a_byte(inbox: Inbox) -> None:
    assert inbox.write([], [outcome(name) for name in ODD_IDS]).outcomes == ["accepted"] * len(ODD_IDS)
    assert inbox.write([], [outcome(name) for name in ODD_IDS]).outcomes == ["duplicate"] * len(ODD_IDS)
    assert inbox.write([decision(name) for name in ODD_IDS]).decisions == ["accepted"] * len(ODD_IDS)


def test_a_large_batch_is_one_transaction(inbox: Inbox) -> None:
    events = [outcome(f"e{k % 4_500}", value=k % 4_500 / 7) for k in range(5_000)]
    assert inbox.write([], events).outcomes == ["accepted"] * 4_500 + ["duplicate"] * 500
    assert inbox.write([], events).outcomes == ["duplicate"] * 5_000


@pytest.mark.parametrize("poison", [outcome("p", item="\ud800"), outcome("p", ts=2**63)])
def test_an_event_that_no_database_holds_is_told_from_a_database_that_fails(inbox: Inbox, poison: Outcome) -> None:
    with pytest.raises(EventError):
        inbox.write([], [outcome("a"), poison])
    assert inbox.write([], [outcome("a")]).outcomes == ["accepted"]


def test_an_id_that_an_index_does_not_take_is_told_from_a_server_that_fails(
    fresh_schema: Callable[[], str], tmp_path: Path
) -> None:
    inbox = Inbox.open(fresh_schema(), tmp_path)
    with pytest.raises(EventError):
        inbox.write([], [outcome("".join(map(chr, range(32, 9000))))])
    inbox.close()


def test_in_a_group_a_poisonous_event_harms_no_other(inbox: Inbox) -> None:
    told: list[tuple[int, Written | FlywheelError]] = []
    group = GroupCommit(inbox)
    for k in range(40):
        event = outcome(f"e{k}", item="\ud800" if k in (3, 17) else "i")
        assert group.submit([], [event], [], lambda result, k=k: told.append((k, result)))  # type: ignore[misc]
    group.close()
    assert [k for k, _ in told] == list(range(40))
    assert [k for k, result in told if isinstance(result, EventError)] == [3, 17]
    assert inbox.arrived()["outcomes"].kept == 38


def test_a_url_that_leads_nowhere_says_where_why_and_what_next(tmp_path: Path) -> None:
    for url, kind in (
        ("postgresql://u:secret@127.0.0.1:1/db", InboxUnavailable),
        ("mysql://u:secret@host/db", SourceError),
        ("no url", SourceError),
    ):
        with pytest.raises(kind) as caught:
            Inbox.open(url, tmp_path)
        assert caught.value.next
        assert "secret" not in str(caught.value)
