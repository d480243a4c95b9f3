"""A stream that loses some of itself on the way: what came, what each leak took, and what is left."""

from collections.abc import Sequence
from dataclasses import dataclass

from flywheel.measure.page.axes import Drawing
from flywheel.measure.page.lines import LETTER, NARROW, svg, text
from flywheel.measure.page.markup import Markup, tag
from flywheel.measure.page.words import count, portion, share

THICK, THICK_NARROW = 56.0, 44.0
RADIUS = 14.0


@dataclass(frozen=True)
class Stream:
    """What came, what is left of it, and what the leaks took, each by name; the counts add up."""

    came: tuple[str, int]
    left: tuple[str, int]
    leaks: Sequence[tuple[str, int]]


def stream(told: Stream, *, what: str) -> Drawing:
    """The stream from left to right, as thick as it is large; leaks turn off downwards in order of size."""

    def draw(width: float) -> Markup:
        thick = THICK_NARROW if width < NARROW else THICK
        (name, came), (end, left) = told.came, told.left
        leaks = sorted((leak for leak in told.leaks if leak[1]), key=lambda leak: -leak[1])
        per = thick / max(came, 1)
        top, bottom = 44.0, 44.0 + thick
        step = (width - 70) / max(len(leaks), 1)
        parts = [text(0, 16, f"{count(came)} {name}", "label strong")]
        parts.append(text(0, 34, "collected", "tick"))
        parts.append(text(width, 16, f"{count(left)} {end}", "label strong accent", "end"))
        parts.append(text(width, 34, portion(left, came), "tick", "end"))
        parts.append(tag("rect", x=0, y=top, width=width, height=max(left * per, 1), class_="flow accent"))
        edge = bottom
        for n, (leak, lost) in enumerate(leaks):
            turn, wide = 30 + step * n, max(lost * per, 1.5)
            lower = 34 * (n % 2) if width < NARROW and len(leaks) > 2 else 0
            parts.append(_leak(turn, edge, wide, bottom + 26 + lower))
            edge -= lost * per
            at = turn + RADIUS + wide / 2
            parts.append(_said(at, bottom + 42 + lower, f"{count(lost)} {leak}", _part(lost, came), width))
        deep = 0 if not leaks else 102 if width < NARROW and len(leaks) > 2 else 68
        return svg(width, bottom + 8 + deep, f"From {name} to {end}", what, *parts)

    return draw


def _part(lost: int, came: int) -> str:
    """A leak's share, rounded: that of what is left is cut, so that 100.0 is said of no leak only."""
    return share(lost / came, 1) if lost >= 0.001 * came else portion(lost, came)


def _leak(turn: float, edge: float, wide: float, down: float) -> Markup:
    """A band that runs along the lower edge of what is left so far, and turns off downwards."""
    outer, inner, far = edge - wide, turn + RADIUS, turn + RADIUS + wide
    path = (
        f"M0 {outer:.1f}H{turn:.1f}Q{far:.1f} {outer:.1f} {far:.1f} {down:.1f}"
        f"H{inner:.1f}Q{inner:.1f} {edge:.1f} {turn:.1f} {edge:.1f}H0Z"
    )
    return tag("path", d=path, class_="flow leak")


def _said(x: float, y: float, name: str, part: str, width: float) -> Markup:
    anchor = "start" if x - len(name) * LETTER / 2 < 0 else "end" if x + len(name) * LETTER / 2 > width else "middle"
    at = {"start": 0.0, "end": width, "middle": x}[anchor]
    return tag("g", text(at, y, name, "label", anchor), text(at, y + 16, part, "tick", anchor))
