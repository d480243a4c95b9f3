"""What is read from the inbox's tables between two cuts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from flywheel.errors import IntegrityError
from flywheel.events import Decision
from flywheel.records import Outcomes
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_database import CONFLICTS, DECISIONS, OUTCOMES, REPEATS, ROWS, listed, reading
from flywheel.sources.settling import Cut, Heard, Tally, cuts, orphaned, settled
from flywheel.sources.source import Mark

_ROWS = 20_000
_PAGE = 200  # decisions, each with its outcomes
_TABLES = {"decisions": DECISIONS, "outcomes": OUTCOMES, "repeats": REPEATS, "conflicts": CONFLICTS}
_decode = msgspec.json.Decoder(Decision).decode
Clause = sa.ColumnElement[bool]
Selection = sa.Select[*tuple[Any, ...]]


@dataclass(frozen=True)
class Account:
    """Where the outcomes are that ever arrived: `arrived = settled.collected + parked`.

    `parked` ones wait for their decision to come or to be delivered; `decisions` wait for their window.
    """

    arrived: int
    settled: Outcomes
    parked: int
    decisions: int


def cut_now(connection: sa.Connection, until: int, before: Cut) -> Cut:
    """The cut of a delivery that is made now.

    Raises:
        IntegrityError: the inbox holds less than was taken from it.
    """
    newest = [sa.select(sa.func.coalesce(sa.func.max(t.c.seq), 0)).scalar_subquery() for t in _TABLES.values()]
    read = dict(zip(_TABLES, connection.execute(sa.select(*newest)).one(), strict=True))
    for name, seq in read.items():
        _check_held(name, seq, getattr(before, name))
    return Cut(until, **read)


def rows_now(connection: sa.Connection, before: int) -> int:
    """The `seq` of the newest ready row; an IntegrityError where `before` was taken and is no more."""
    newest = connection.execute(sa.select(sa.func.max(ROWS.c.seq))).scalar_one() or 0
    _check_held("rows", newest, before)
    return newest


def bodies(connection: sa.Connection, before: int, last: int) -> Iterator[list[bytes]]:
    """Ready rows after one `seq` up to another, in pages, in order of arrival."""
    those = sa.select(ROWS.c.body).where(ROWS.c.seq > before, ROWS.c.seq <= last, ROWS.c.body.is_not(None))
    result = connection.execute(those.order_by(ROWS.c.seq), execution_options={"yield_per": _ROWS})
    for page in result.scalars().partitions():
        yield list(page)


def newest(connection: sa.Connection) -> int:
    """The `seq` of the newest decision; 0 before there is one."""
    return connection.execute(sa.select(sa.func.max(DECISIONS.c.seq))).scalar_one() or 0


def newest_decisions(connection: sa.Connection, after: int, most: int) -> list[Decision]:
    """The newest decisions after a `seq`, at most so many, the newest first; without those that were forgotten."""
    table = DECISIONS.c
    those = sa.select(table.body).where(table.seq > after, table.body.is_not(None)).order_by(table.seq.desc())
    return [_decode(body) for body in connection.execute(those.limit(most)).scalars()]


def decided(connection: sa.Connection, before: Cut, now: Cut) -> Iterator[list[tuple[int, Decision]]]:
    """The decisions of a delivery with their `seq`, in pages: those that came late, then the others by time.

    Raises:
        IntegrityError: one is not what was written.
    """
    table = DECISIONS.c
    known, kept = table.seq <= now.decisions, table.body.is_not(None)
    late = (table.ts < before.until, table.seq > before.decisions)
    due = (table.ts >= before.until, table.ts < now.until)
    columns = sa.select(table.seq, table.body)
    for statement in (columns.where(*late).order_by(table.seq), columns.where(*due).order_by(table.ts, table.seq)):
        result = connection.execute(statement.where(known, kept), execution_options={"yield_per": _PAGE})
        for page in result.partitions():
            yield [(seq, _read(seq, body)) for seq, body in page]


def made(connection: sa.Connection, start: int, end: int) -> Iterator[Decision]:
    """The decisions dated from one time up to another, in microseconds since 1970 UTC; forgotten ones are left out.

    Raises:
        IntegrityError: one is not what was written.
    """
    table = DECISIONS.c
    those = sa.select(table.seq, table.body).where(table.ts >= start, table.ts < end, table.body.is_not(None))
    for seq, body in connection.execute(those.order_by(table.ts, table.seq), execution_options={"yield_per": _PAGE}):
        yield _read(seq, body)


def heard(connection: sa.Connection, page: Sequence[tuple[int, Decision]], now: Cut) -> dict[str, list[Heard]]:
    """The outcomes that came by now of some decisions, by the decision's id, in order of arrival."""
    table = OUTCOMES.c
    columns = sa.select(table.decision_id, table.seq, table.id, table.item, table.value, table.ts)
    statement = columns.where(table.decision_id.in_(listed(connection.engine)), table.seq <= now.outcomes)
    ids = msgspec.json.encode([decision.id for _, decision in page]).decode()
    found: dict[str, list[Heard]] = {}
    for decision_id, *rest in connection.execute(statement.order_by(table.seq), {"ids": ids}):
        found.setdefault(decision_id, []).append(Heard(*rest))
    return found


def tally_rest(connection: sa.Connection, before: Cut, now: Cut, window: str, tally: Tally) -> None:
    """Settle with one window what two cuts settle between them and no decision of the delivery does."""
    tally.add(window, "late", _count(connection, _came_late(before, now)))
    lost = _lost(before, now)
    tally.add(window, "orphaned", _count(connection, lost))
    tally.add(window, "duplicate", _repeated(connection, before, now))
    odd = _of_outcomes(sa.select(CONFLICTS.c.id, CONFLICTS.c.reason), CONFLICTS, before, now)
    tally.add(window, "quarantined", _count(connection, odd))
    for name, reason in connection.execute(odd.order_by(CONFLICTS.c.seq).limit(3)):
        tally.show(name, reason)
    for name in connection.execute(lost.order_by(OUTCOMES.c.seq).limit(3)).scalars():
        tally.show(name, "its decision is unknown")


def account(inbox: Inbox, marks: Iterable[Mark]) -> Account:
    """Count what arrived, and what is parked, and compare with what was settled by the marks of the deliveries taken.

    Raises:
        IntegrityError: the counts do not add up.
        InboxUnavailable: the inbox cannot be read.
    """
    marks = list(marks)
    earlier = cuts(marks)
    last, done = earlier[-1], settled(marks)
    with reading(inbox.engine) as connection:
        arrived, unread = _arrived_after(connection, Cut()), _arrived_after(connection, last)
        parked = unread + _count(connection, _unknown(last, OUTCOMES.c.ts >= last.until))
        undelivered = _undelivered(last)
        parked += _count(connection, undelivered.where(OUTCOMES.c.ts >= last.until))
        odd = connection.execute(undelivered.where(OUTCOMES.c.ts < last.until))
        parked += sum(not orphaned(seq, ts, decision, earlier) for seq, ts, decision in odd)
        waiting = sa.select(DECISIONS.c.id).where((DECISIONS.c.seq > last.decisions) | (DECISIONS.c.ts >= last.until))
        decisions = _count(connection, waiting)
    if arrived != done.collected + parked:
        raise IntegrityError(
            "the ledger of outcomes is off",
            where=inbox.label,
            why=f"{arrived:,} arrived; {done.collected:,} are settled and {parked:,} parked",
            next="restore the inbox's database, or inbox/shards, to what they were",
        )
    return Account(arrived, done, parked, decisions)


def _check_held(what: str, newest: int, taken: int) -> None:
    if newest < taken:
        raise IntegrityError(
            "the inbox holds less than was taken from it",
            why=f"its {what} end at {newest}, and were read up to {taken}",
            next="restore its database: what arrives would be passed over",
        )


def _read(seq: int, body: bytes) -> Decision:
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"decision {seq} of the inbox is not what was written", why=str(error)) from None


def _new(table: sa.Table, before: Cut, now: Cut) -> Clause:
    """What came between two cuts."""
    low, high = (getattr(cut, table.name) for cut in (before, now))
    return sa.and_(table.c.seq > low, table.c.seq <= high)


def _came_late(before: Cut, now: Cut) -> Selection:
    """New outcomes of decisions that an earlier delivery had; a decision is forgotten once it was delivered."""
    delivered = sa.and_(DECISIONS.c.seq <= before.decisions, DECISIONS.c.ts < before.until)
    forgotten = sa.and_(DECISIONS.c.seq <= now.decisions, DECISIONS.c.body.is_(None))
    both = sa.select(OUTCOMES.c.id).join(DECISIONS, DECISIONS.c.id == OUTCOMES.c.decision_id)
    return both.where(_new(OUTCOMES, before, now), delivered | forgotten)


def _lost(before: Cut, now: Cut) -> Selection:
    """Outcomes dated before `now`, and not settled by `before`, whose decision is unknown."""
    return _unknown(
        now, OUTCOMES.c.ts < now.until, (OUTCOMES.c.seq > before.outcomes) | (OUTCOMES.c.ts >= before.until)
    )


def _unknown(cut: Cut, *those: Clause) -> Selection:
    """Outcomes that had come by a cut, and their decision had not."""
    known = sa.exists().where(DECISIONS.c.id == OUTCOMES.c.decision_id, DECISIONS.c.seq <= cut.decisions)
    return sa.select(OUTCOMES.c.id).where(OUTCOMES.c.seq <= cut.outcomes, ~known, *those)


def _undelivered(cut: Cut) -> Selection:
    """Outcomes that had come by a cut, and so had their decision, which is dated after it."""
    columns = sa.select(OUTCOMES.c.seq, OUTCOMES.c.ts, DECISIONS.c.seq.label("decision"))
    both = columns.join(DECISIONS, DECISIONS.c.id == OUTCOMES.c.decision_id)
    after = (DECISIONS.c.ts >= cut.until, DECISIONS.c.seq <= cut.decisions, DECISIONS.c.body.is_not(None))
    return both.where(*after, OUTCOMES.c.seq <= cut.outcomes)


def _of_outcomes(select: Selection, table: sa.Table, before: Cut, now: Cut) -> Selection:
    return select.where(table.c.kind == "outcomes", _new(table, before, now))


def _repeated(connection: sa.Connection, before: Cut, now: Cut) -> int:
    total = sa.select(sa.func.coalesce(sa.func.sum(REPEATS.c.duplicate), 0))
    return int(connection.execute(_of_outcomes(total, REPEATS, before, now)).scalar_one())


def _arrived_after(connection: sa.Connection, cut: Cut) -> int:
    """All outcomes that came after a cut, duplicates and conflicts among them."""
    end = Cut(0, *[2**62] * 4)
    kept = _count(connection, sa.select(OUTCOMES.c.id).where(OUTCOMES.c.seq > cut.outcomes))
    odd = _count(connection, _of_outcomes(sa.select(CONFLICTS.c.id), CONFLICTS, cut, end))
    return kept + odd + _repeated(connection, cut, end)


def _count(connection: sa.Connection, those: Selection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(those.subquery())).scalar_one())
