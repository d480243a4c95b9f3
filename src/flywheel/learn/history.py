"""What a decision needs to know of those made before it, told by the generations themselves.

The ancestor is the last generation that was shown to be better than the ancestor before it; the first is the
baseline. Every challenger has to be no worse than the champion and no worse than the ancestor, so that many steps
that are each "not worse" cannot add up to decay. Nothing points at the ancestor: each generation's run says whom it was
compared with and whether it was shown to be better, and from the champion's own run follows who the ancestor is. A
rollback therefore brings the former champion's ancestor back with it, and a crash has nothing to tear.

An exam is used by a decision if somebody may have chosen what to try next by what it said. Decisions of the same
settings do not count: between them only time has passed, and a generation was never fitted on the rows that it is
examined on. So in normal turns, whose exams move on with time, no exam is ever used; settings tried again and again
on one exam use it up. The n-th use asks for more (`probability`): the chance of error that the policy allows is shared
by all uses, which is the union bound over what was asked of one holdout; that a holdout asked adaptively has to
answer ever more coarsely is the argument of the Ladder (Blum and Hardt 2015).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flywheel.learn.prior import Met
from flywheel.records import Comparison, Generation

ANCESTOR, BEATEN = "ancestor", "ancestor_beaten"  # tags of a generation's run
HALF = 0.5  # of an exam's windows; one that shares as many is the same exam


@dataclass(frozen=True)
class History:
    """What came before a decision.

    `ancestor` is a generation, 0 for the baseline. Where it is not the champion itself, `against` is the challenger
    compared with it on the exam's rows, or None, and then `absent` says why it could not sit. `past` are the exams of
    earlier generations, oldest first. `uses` counts the decisions that used the exam.
    """

    ancestor: int
    against: Comparison | None = None
    absent: str = ""
    past: tuple[Met, ...] = ()
    uses: int = 0


def ancestor(champion: Generation | None) -> int:
    """The ancestor while this generation is champion; None is the baseline, which is its own.

    A champion whom the gate did not promote was chosen by a person: the wheel starts anew from it. So does it from one
    that was promoted before ancestors were recorded.
    """
    if champion is None:
        return 0
    if champion.verdict != "promote" or champion.tags.get(BEATEN, "yes") == "yes":
        return champion.generation
    return int(champion.tags[ANCESTOR])


def tags(against: Comparison | None, of: int) -> dict[str, str]:
    """What a generation's run says of the ancestor: who it was, and whether it was shown to be beaten."""
    return {ANCESTOR: str(of), BEATEN: "yes" if against is not None and against.difference.low > 0 else "no"}


def exams(earlier: Iterable[Generation]) -> tuple[Met, ...]:
    """What the exams of earlier generations told."""
    found = ((one.generation, one.examined_against, one.difference) for one in earlier)
    return tuple(Met(number, against, difference) for number, against, difference in found if difference is not None)


def uses(earlier: Iterable[Generation], exam: Sequence[str], settings: tuple[str, str]) -> int:
    """How many decisions were made on this exam's windows by other settings: (config, recipe) fingerprints."""
    return sum(
        _shared(one.exam_windows, exam) >= HALF and (one.config, one.tags.get("recipe", "")) != settings
        for one in earlier
    )


def probability(asked: float, uses: int) -> float:
    """The probability of being better that it takes on an exam that was used before.

    >>> [round(probability(0.8, uses), 3) for uses in (0, 1, 3)]
    [0.8, 0.9, 0.95]
    """
    return 1 - (1 - asked) / (1 + uses)


def _shared(span: tuple[str, str], exam: Sequence[str]) -> float:
    return sum(span[0] <= window <= span[1] for window in exam) / len(exam)
