"""What becomes of each outcome: it is settled once, with one delivery of decisions, or is parked.

A delivery is cut from the inbox's append-only tables by the time `until` which its decisions are dated, and by how far
it had read in each table. What is said here follows from the tables and the cuts so far alone: a delivery that was
lost is made again, and what an earlier one settled is not settled again.

    the decision                    the outcome                                          becomes
    was delivered before it came    any                                                  late
    is delivered now                names an item not shown, or a time before it         quarantined
                                    is dated more than `attribution` after it            late
                                    any other                                            joined
    is unknown                      is dated before `until`                              orphaned
                                    any other                                            parked
    is not delivered yet            any                                                  parked
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from flywheel.events import Decision
from flywheel.records import Outcomes
from flywheel.sources.source import Mark

_SAMPLES = 10


@dataclass(frozen=True)
class Cut:
    """Where a delivery ends: `until`, in microseconds since 1970 UTC, and the last `seq` that it had read of each."""

    until: int = -(2**63)
    decisions: int = 0
    outcomes: int = 0
    repeats: int = 0
    conflicts: int = 0


class Heard(NamedTuple):
    """One outcome of a decision."""

    seq: int
    id: str
    item: str
    value: float
    ts: int


@dataclass(frozen=True)
class Tally:
    """The outcomes that a delivery settles, by window and by what became of them, and a few of the odd ones."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)

    def add(self, window: str, fate: str, count: int = 1) -> None:
        """Count outcomes of a window."""
        if count:
            self.counts.setdefault(window, Counter())[fate] += count

    def show(self, name: str, reason: str) -> None:
        """Keep an outcome's id with what is wrong, while there is room."""
        if len(self.samples) < _SAMPLES:
            self.samples.append({"id": name, "reason": reason})

    def outcomes(self) -> dict[str, dict[str, int]]:
        """The counts by window name, in order of time, each as `records.Outcomes`."""
        return {
            window: asdict(Outcomes(collected=found.total(), **found)) for window, found in sorted(self.counts.items())
        }


def cuts(marks: Iterable[Mark]) -> list[Cut]:
    """The cuts of earlier deliveries in order of time, after one that is before everything."""
    return [Cut(), *sorted((Cut(**mark["cut"]) for mark in marks if "cut" in mark), key=lambda cut: cut.until)]


def settled(marks: Iterable[Mark]) -> Outcomes:
    """All that earlier deliveries settled."""
    total: Counter[str] = Counter()
    for mark in marks:
        for counts in mark.get("outcomes", {}).values():
            total.update(counts)
    return Outcomes(**total)


def orphaned(outcome_seq: int, outcome_ts: int, decision_seq: int, earlier: Sequence[Cut]) -> bool:
    """Whether an earlier delivery settled an outcome as orphaned, because its decision had not come by then.

    Cuts grow in every part, so the last one that did not know the decision says it for all.
    """
    last = earlier[bisect_left(earlier, decision_seq, key=lambda cut: cut.decisions) - 1]
    return outcome_seq <= last.outcomes and outcome_ts < last.until


def judge(decision: Decision, heard: Iterable[Heard], window: str, attribution: int, tally: Tally) -> dict[str, Heard]:
    """Settle the outcomes of a decision that is delivered; by item, the newest that was joined.

    Args:
        decision: what was shown.
        heard: its outcomes that no earlier delivery settled.
        window: the name of the window to settle them with.
        attribution: how long an outcome may take, in microseconds.
        tally: takes the counts.
    """
    shown = {slot.item for slot in decision.shown}
    labels: dict[str, Heard] = {}
    for one in heard:
        if one.item not in shown or one.ts < decision.ts:
            tally.add(window, "quarantined")
            odd = "it is dated before its decision" if one.item in shown else "it names an item that was not shown"
            tally.show(one.id, odd)
        elif one.ts > decision.ts + attribution:
            tally.add(window, "late")
        else:
            tally.add(window, "joined")
            best = labels.get(one.item)
            if best is None or (one.ts, one.seq) > (best.ts, best.seq):
                labels[one.item] = one
    return labels
