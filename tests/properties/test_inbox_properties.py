"""Promise 3 for outcomes: each that ever arrived is settled once, or parked, whatever arrives when and whoever dies.

The inbox, which keeps nothing but what arrived and where its deliveries were cut, against a plain model that remembers
what it settled.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from flywheel import config
from flywheel.events import Decision, Outcome, Shown
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_reading import account
from flywheel.sources.inbox_source import InboxSource
from flywheel.sources.source import Mark

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = 3_600_000_000
ZERO = round(START.timestamp()) * 1_000_000
ATTRIBUTION = 30
ROLES = {
    "timestamp": "at", "label": "value", "kind": "number", "user": "who", "item": "what", "request": "list",
    "event_id": "id", "label_time": "answered", "position": "slot", "propensity": "chance",
}  # fmt: skip
USING = config.parse(
    {
        "product": {"name": "p"},
        "serve": {},
        "contract": ROLES,
        "windows": {"every": "1d", "attribution": f"{ATTRIBUTION}h"},
    }
)
hours = st.integers(0, 20).map(lambda n: 6 * n)
decisions = st.builds(
    lambda n, at, items: Decision(
        f"d{n}", ZERO + at * HOUR, "u", 0, "wheel", 0, "r", {}, tuple(Shown(i, 0.5, False, 0) for i in items), ()
    ),
    st.integers(0, 9),
    hours,
    st.sampled_from(["a", "ab", ""]),
)
outcomes = st.builds(
    lambda n, d, item, at, value: Outcome(f"o{n}", f"d{d}", item, value, ZERO + at * HOUR),
    st.integers(0, 40),
    st.integers(0, 9),
    st.sampled_from("aabz"),
    hours,
    st.sampled_from([0.0, 1.0]),
)


@dataclass
class Model:
    """What people would expect, told plainly."""

    decisions: dict[str, Decision] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # in order of arrival
    arrived: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    delivered: set[str] = field(default_factory=set)
    settled: dict[str, str] = field(default_factory=dict)
    until: int = -1
    parked: int = 0

    def write(self, made: list[Decision], heard: list[Outcome]) -> list[str]:
        for decision in made:
            self.decisions.setdefault(decision.id, decision)
        fates = []
        for one in heard:
            known = self.outcomes.setdefault(one.event_id, one)
            same = (known.decision_id, known.item, known.value) == (one.decision_id, one.item, one.value)
            fates.append("accepted" if known is one else "duplicate" if same else "conflict")
        self.arrived += len(heard)
        self.repeated.update({"duplicate": fates.count("duplicate"), "quarantined": fates.count("conflict")})
        self.parked += len(heard)
        return fates

    def take(self, until: int) -> tuple[dict[int, Counter[str]], dict[str, float | None]]:
        """What a delivery up to an hour settles by day, and its rows with their labels."""
        newest, before = until // 24 - 1, self.until
        counts: dict[int, Counter[str]] = {newest: +self.repeated}
        now = [d for d in self.decisions.values() if d.id not in self.delivered and d.ts < ZERO + until * HOUR]
        labels: dict[tuple[str, str], tuple[int, int, float]] = {}
        for place, one in enumerate(self.outcomes.values()):
            if one.event_id in self.settled:
                continue
            decision, day = self.decisions.get(one.decision_id), newest
            if decision is None:
                fate = "orphaned" if one.ts < ZERO + until * HOUR else ""
            elif decision.id in self.delivered:
                fate = "late"
            elif decision not in now:
                fate = ""
            else:
                at = (decision.ts - ZERO) // HOUR
                day = at // 24 if at >= before else newest
                fate = self._judged(decision, one)
            if fate:
                self.settled[one.event_id] = fate
                counts.setdefault(day, Counter())[fate] += 1
            if fate == "joined":
                labels[one.decision_id, one.item] = max(
                    labels.get((one.decision_id, one.item), (-1, -1, 0.0)), (one.ts, place, one.value)
                )
        rows = {
            f"{d.id}-{n}": labels.get((d.id, slot.item), (0, 0, None))[2]
            for d in now
            for n, slot in enumerate(d.shown, 1)
        }
        self.delivered |= {d.id for d in now}
        self.repeated.clear()
        self.until = until
        self.parked -= sum(found.total() for found in counts.values())
        return {day: found for day, found in counts.items() if found}, rows

    @staticmethod
    def _judged(decision: Decision, one: Outcome) -> str:
        if one.item not in {slot.item for slot in decision.shown} or one.ts < decision.ts:
            return "quarantined"
        return "late" if one.ts > decision.ts + ATTRIBUTION * HOUR else "joined"


class Arrivals(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.inbox = Inbox.open(None, Path(self.folder.name))
        self.model = Model()
        self.marks: list[Mark] = []

    @rule(made=st.lists(decisions, max_size=2), heard=st.lists(outcomes, max_size=6))
    def write(self, made: list[Decision], heard: list[Outcome]) -> None:
        assert self.inbox.write(made, heard).outcomes == self.model.write(made, heard)

    @rule(days=st.sampled_from([1, 1, 0, 2]), killed_after=st.sampled_from([None, None, 0, 1, 9]))
    def take(self, days: int, killed_after: int | None) -> None:
        self.add_up()
        until = max(self.model.until, 0) + 24 * days
        source = InboxSource(self.inbox, USING, START + timedelta(hours=until))
        deliveries = source.deliveries(self.marks)
        delivery = next(deliveries, None)
        if delivery is None:
            assert until <= self.model.until or not (self.model.decisions or self.model.outcomes)
            return
        assert until > self.model.until
        rows = [row for batch in islice(delivery.batches(), killed_after) for row in batch.to_pylist()]
        if killed_after is not None:
            return
        counts, labels = self.model.take(until)
        assert {row["id"]: row["value"] for row in rows} == labels
        self.marks.append(delivery.mark())
        assert told(self.marks[-1]) == counts
        self.add_up()

    def add_up(self) -> None:
        found = account(self.inbox, self.marks)
        assert (found.arrived, found.parked) == (self.model.arrived, self.model.parked)
        assert found.settled.collected == found.arrived - found.parked
        assert found.decisions == len(self.model.decisions.keys() - self.model.delivered)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.inbox.close()
            self.folder.cleanup()


def told(mark: dict[str, Any]) -> dict[int, Counter[str]]:
    """The counts of a mark by day."""
    grid = USING.windows.grid
    first = grid.index(START)
    return {
        grid.parse(window) - first: +Counter({name: n for name, n in counts.items() if name != "collected"})
        for window, counts in mark["outcomes"].items()
    }


TestPromise3OfOutcomes = Arrivals.TestCase
TestPromise3OfOutcomes.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
