"""The part about events: what became of each, from its arrival to a row that models learn from."""

from collections.abc import Sequence
from dataclasses import fields

from flywheel.measure.page.known import Known
from flywheel.measure.page.parts import Figure, Part, Table
from flywheel.measure.page.stream import Stream, stream
from flywheel.measure.page.words import count, plural, portion
from flywheel.records import LedgerLine, Outcomes

LEAKS = ("duplicate", "quarantined", "unlabelled", "late")
LOST = ("duplicate", "quarantined", "orphaned", "late")


def ledger(known: Known) -> Part:
    """From event to row, and from outcome to label."""
    title, lines = "From event to row", known.ledger
    if not lines:
        return Part("ledger", title, missing="No window is closed yet.", command="flywheel turn")
    figures = [_rows(lines)]
    settled = Outcomes(*(sum(getattr(line.outcomes, f.name) for line in lines) for f in fields(Outcomes)))
    if settled.collected:
        figures.append(_outcomes(settled, len(lines)))
    return Part("ledger", title, figures)


def _rows(lines: Sequence[LedgerLine]) -> Figure:
    came, left = (sum(getattr(line, name) for line in lines) for name in ("collected", "rows"))
    returned = {"late": sum(line.returned for line in lines)}  # a backfill made rows of these
    leaks = [(name, sum(getattr(line, name) for line in lines) - returned.get(name, 0)) for name in LEAKS]
    of = "events" if not any(line.outcomes.collected for line in lines) else "decisions"
    says = _told(f"{count(came)} {of}", len(lines), (left, "rows to learn from"), came, leaks)
    heads = ("window", "collected", "rows", *LEAKS)
    rows = [
        (line.window, *(count(getattr(line, name)) for name in ("collected", "rows", *LEAKS)))
        for line in reversed(lines)
    ]
    drawing = stream(Stream((of, came), ("rows", left), leaks), what=says)
    return Figure(says, drawing, Table(heads, rows))


def _outcomes(settled: Outcomes, windows: int) -> Figure:
    leaks = [(name, getattr(settled, name)) for name in LOST]
    says = _told(f"{count(settled.collected)} outcomes", windows, (settled.joined, "labels"), settled.collected, leaks)
    drawing = stream(Stream(("outcomes", settled.collected), ("joined", settled.joined), leaks), what=says)
    rows = [("collected", count(settled.collected)), ("joined", count(settled.joined))]
    rows += [(name, count(lost)) for name, lost in leaks]
    return Figure(says, drawing, Table(("outcomes", "count"), rows))


def _told(what: str, windows: int, left: tuple[int, str], came: int, leaks: Sequence[tuple[str, int]]) -> str:
    lost = sorted((leak for leak in leaks if leak[1]), key=lambda leak: -leak[1])
    told = ", ".join(f"{count(n)} {name}" for name, n in lost) or "nothing"
    became = f"{count(left[0])} became {left[1]}: {portion(left[0], came)}"
    return f"Of {what} in {plural(windows, 'closed window')}, {became}. Lost: {told}."
