"""Charts of one line a row: intervals on a common scale, parts that add up, and two values side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan

from flywheel.evidence import Estimate
from flywheel.measure.page.axes import Drawing, Scale, around, ticks
from flywheel.measure.page.lines import LETTER, NARROW, Look, Mark, mark, svg, text
from flywheel.measure.page.markup import Markup, join, tag
from flywheel.measure.page.words import compacts, short

TALL, TALLER, TALLEST = 30.0, 46.0, 62.0  # of a row, and on a phone with the words in one line above, or in two


@dataclass(frozen=True)
class Row:
    """One estimate with its label and what is said of it; `base` draws it as a bar that begins there."""

    label: str
    found: Estimate
    says: str
    look: Look = "accent"
    mark: Mark = "dot"
    base: float | None = None


def intervals(
    rows: Sequence[Row], *, axis: str, what: str, rules: Sequence[tuple[float, str]] = ((0.0, ""),)
) -> Drawing:
    """Estimates and their intervals, one below the other on a scale; `rules` are values that matter, with names."""

    def draw(width: float) -> Markup:
        scale, tall = _scale(rows, [at for at, _ in rules], width)
        bottom = 24 + tall * len(rows)
        parts = [_ruler(scale, bottom, axis), *(_upright(scale, at, name, bottom) for at, name in rules)]
        parts += [_row(row, scale, 24 + tall * (n + 0.5), width) for n, row in enumerate(rows)]
        return svg(width, bottom + 40, axis, what, *parts)

    return draw


@dataclass(frozen=True)
class Pair:
    """A value beside another of its kind, on a scale of its own from 0."""

    label: str
    ours: float
    theirs: float
    says: str
    look: Look = "accent"


def pairs(rows: Sequence[Pair], *, ours: str, theirs: str, what: str) -> Drawing:
    """Two values a row, joined by a line: filled for what `ours` names, hollow for `theirs`."""

    def draw(width: float) -> Markup:
        labels, notes, tall = _columns([(r.label, r.says) for r in rows], width)
        tall = TALLEST if width < NARROW else tall
        parts = []
        for n, row in enumerate(rows):
            y = 30 + tall * (n + 0.5)
            most = max([abs(v) for v in (row.ours, row.theirs) if isfinite(v)], default=0.0)
            scale = Scale(0, 1.08 * (most or 1.0), labels, width - notes - 8)
            a, b = scale(abs(row.theirs)), scale(abs(row.ours))
            at = y + 14 if width < NARROW else y
            parts += _stacked(row, y) if width < NARROW else _captions(row.label, row.says, y, width, row.look)
            parts.append(tag("line", x1=scale.start, x2=scale.end, y1=at, y2=at, class_="grid"))
            if not (isfinite(row.ours) and isfinite(row.theirs)):
                continue
            parts.append(tag("line", x1=a, x2=b, y1=at, y2=at, class_=f"thick {row.look}"))
            parts += [mark(a, at, "ring", "quiet", theirs, 5), mark(b, at, "dot", row.look, ours, 5)]
        key = [mark(labels + 6, 12, "dot", "accent", radius=5), text(labels + 16, 16, ours, "tick")]
        other = labels + 36 + len(ours) * LETTER
        own = "" if width < NARROW else ", each on a scale of its own"
        key += [mark(other, 12, "ring", "quiet", radius=5), text(other + 10, 16, theirs + own, "tick")]
        return svg(width, 34 + tall * len(rows), f"{ours} and {theirs}", what, *key, *parts)

    return draw


def _stacked(row: Pair, y: float) -> list[Markup]:
    return [text(0, y - 17, row.label, "label"), text(0, y - 1, row.says, f"note {row.look}")]


def _columns(told: Sequence[tuple[str, str]], width: float) -> tuple[float, float, float]:
    """How wide the labels and the notes are, and how tall a row is."""
    if width < NARROW:
        return 8, 8, TALLER
    labels = min(0.36 * width, 14 + LETTER * max((len(label) for label, _ in told), default=0))
    return labels, 10 + LETTER * max((len(note) for _, note in told), default=0), TALL


def _scale(rows: Sequence[Row], also: Sequence[float], width: float) -> tuple[Scale, float]:
    labels, notes, tall = _columns([(r.label, r.says) for r in rows], width)
    bases = [r.base for r in rows if r.base is not None]
    low, high = around([v for r in rows for v in (r.found.value, r.found.low, r.found.high)] + bases + list(also))
    return Scale(low, high, labels, width - notes), tall


def _ruler(scale: Scale, bottom: float, axis: str) -> Markup:
    parts = []
    marks = ticks(scale.low, scale.high, 5)
    for value, name in zip(marks, compacts(marks), strict=True):
        at = scale(value)
        parts.append(tag("line", x1=at, x2=at, y1=20, y2=bottom, class_="grid"))
        parts.append(text(at, bottom + 16, name, "tick", "middle"))
    return join(*parts, text(scale.end, bottom + 34, axis, "axis", "end"))


def _upright(scale: Scale, at: float, name: str, bottom: float) -> Markup:
    x = scale(at)
    anchor = "end" if x + len(name) * LETTER > scale.end + 60 else "start"
    named = [text(x, 12, name, "tick halo", anchor)] if name else []
    return join(tag("line", x1=x, x2=x, y1=18, y2=bottom, class_="rule"), *named)


def _row(row: Row, scale: Scale, y: float, width: float) -> Markup:
    at = y + 9 if width < NARROW else y
    low, high = scale(row.found.low), scale(row.found.high)
    parts = _captions(row.label, row.says, y, width, row.look)
    if any(map(isnan, (low, high, row.found.value))):
        return join(*parts)  # it is said, and cannot be drawn
    if row.base is not None:
        a, b = sorted((scale(row.base), scale(row.found.value)))
        parts.append(tag("rect", x=a, y=at - 7, width=max(b - a, 1), height=14, class_=f"bar {row.look}"))
    parts.append(
        tag("line", x1=low, x2=high, y1=at, y2=at, class_=f"whisker {'ink' if row.base is not None else row.look}")
    )
    if row.base is None:
        parts.append(mark(scale(row.found.value), at, row.mark, row.look, row.says, 4.5))
    return join(*parts)


def _captions(label: str, says: str, y: float, width: float, look: Look) -> list[Markup]:
    """The label and what is said; on a phone above the line, and without the interval where that does not fit."""
    if width >= NARROW:
        label = short(label, int(0.36 * width / LETTER) - 2)
        return [text(0, y + 4, label, "label"), text(width, y + 4, says, f"note {look}", "end")]
    if (len(label) + len(says) + 2) * LETTER > width:
        says = says.partition(" (")[0]
    label = short(label, max(8, int(width / LETTER) - len(says) - 2))
    return [text(0, y - 8, label, "label halo"), text(width, y - 8, says, f"note halo {look}", "end")]
