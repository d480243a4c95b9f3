"""A chart of lines: values along an axis, with bands or whiskers, and each line's name at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite, isnan
from typing import Literal

from flywheel.measure.page.axes import Drawing, Scale, apart, around, log_ticks, ticks
from flywheel.measure.page.markup import Markup, join, tag
from flywheel.measure.page.words import compacts

Look = Literal["accent", "ink", "quiet", "warn"]
Mark = Literal["dot", "ring", "cross", "none"]
LETTER = 6.3  # pixels that a letter takes, on average
NARROW = 500


@dataclass(frozen=True)
class Point:
    """A value, its interval if there is one, and what is said where a pointer rests on it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    mark: Mark = "dot"
    says: str = ""
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind, from left to right; `band` draws their intervals as one surface, else each has whiskers."""

    name: str
    points: Sequence[Point]
    look: Look = "accent"
    joined: bool = True
    band: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """What is along an axis. `at` are places and their names where round numbers would not do."""

    name: str
    say: Callable[[Sequence[float]], list[str]] = compacts
    log: bool = False
    zero: bool = False
    at: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Frame:
    """The scales of a chart and the size of the drawing around them."""

    x: Scale
    y: Scale
    width: float
    height: float

    @property
    def narrow(self) -> bool:
        """Whether this is drawn for a phone."""
        return self.width < NARROW


def lines(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    what: str,
    height: float = 300,
    rules: Sequence[tuple[float, str]] = (),
) -> Drawing:
    """A chart of lines; `rules` are heights that matter, each with its name, and `what` says all in a sentence."""
    series = [replace(s, points=[_drawn(p) for p in s.points if isfinite(p.x) and isfinite(p.y)]) for s in series]
    series = [s for s in series if s.points]

    def draw(width: float) -> Markup:
        frame, across, up = _frame(series, x, y, width, height, [at for at, _ in rules])
        parts = [_grid(frame, x, y, across, up), *(_rule(frame, at, name) for at, name in rules)]
        parts += [_surface(frame, s) for s in series if s.band]
        parts += [_line(frame, s) for s in series if s.joined and len(s.points) > 1]
        parts += [_marks(frame, s) for s in series]
        return svg(width, height, f"{y.name} by {x.name}", what, *parts, _names(frame, series))

    return draw


def svg(width: float, height: float, title: str, what: str, *parts: str) -> Markup:
    """A drawing with a name and a description for those who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    told = (tag("title", title), tag("desc", what))
    return tag("svg", *told, *parts, viewBox=box, width=width, height=height, role="img", class_="chart")


def panels(drawings: Sequence[Drawing], gap: float = 28) -> Drawing:
    """Several charts side by side, on a phone one below the other."""

    def draw(width: float) -> Markup:
        each = width if width < NARROW else (width - gap * (len(drawings) - 1)) / len(drawings)
        return tag("div", *(drawing(each) for drawing in drawings), class_="panels")

    return draw


def text(x: float, y: float, said: str, look: str = "", anchor: str = "start") -> Markup:
    """A line of text; `anchor` is what of it stands at `x`."""
    return tag("text", said, x=x, y=y, class_=look or None, text_anchor=None if anchor == "start" else anchor)


def mark(x: float, y: float, kind: Mark, look: Look, says: str = "", radius: float = 4) -> Markup:
    """A point: filled, hollow, or a cross, so that it is told apart without its colour."""
    told = [tag("title", says)] if says else []
    if kind == "none":
        return Markup("")
    if kind == "cross":
        r = radius * 0.9
        path = f"M{x - r:.1f} {y - r:.1f}l{2 * r:.1f} {2 * r:.1f}m0 {-2 * r:.1f}l{-2 * r:.1f} {2 * r:.1f}"
        return tag("path", *told, d=path, class_=f"cross {look}")
    return tag("circle", *told, cx=x, cy=y, r=radius, class_=f"{kind} {look}")


def _drawn(p: Point) -> Point:
    """A point as it can be drawn: without an interval of which an end is no number."""
    ends = (p.low, p.high)
    return replace(p, low=None, high=None) if any(v is not None and isnan(v) for v in ends) else p


def _frame(
    series: Sequence[Series], x: Axis, y: Axis, width: float, height: float, also: Sequence[float]
) -> tuple[Frame, list[tuple[float, str]], list[tuple[float, str]]]:
    """The scales, and the ticks of both axes."""
    points = list(chain.from_iterable(s.points for s in series))
    heights = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    low, high = around([*heights, *also], zero=y.zero)
    up = _named(ticks(low, high, 5), y)
    left = 8 + LETTER * max((len(name) for _, name in up), default=1)
    names = 0 if width < NARROW else max((len(s.name) for s in series), default=0)
    right = width - max(14, names * LETTER + 12)
    xs = [p.x for p in points]
    if x.log:
        first, last = min(xs, default=1) / 1.12, max(xs, default=10) * 1.12
    else:
        first, last = around(xs, air=0.02)
    frame = Frame(Scale(first, last, left, right, log=x.log), Scale(low, high, height - 42, 28), width, height)
    most = 4 if frame.narrow else 8
    if x.at:
        step = -(-len(x.at) // most)
        return frame, list(x.at)[::step], up
    return frame, _named((log_ticks if x.log else ticks)(first, last, most), x), up


def _named(values: Sequence[float], axis: Axis) -> list[tuple[float, str]]:
    return list(zip(values, axis.say(values), strict=True))


def _grid(
    frame: Frame, x: Axis, y: Axis, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]]
) -> Markup:
    left, right, bottom = frame.x.start, frame.x.end, frame.y.start
    parts = [text(0, 14, y.name, "axis")]
    for value, name in up:
        at = frame.y(value)
        parts.append(tag("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(text(left - 8, at + 4, name, "tick", "end"))
    for value, name in across:
        at = frame.x(value)
        half = len(name) * LETTER / 2
        anchor = "end" if at + half > frame.width else "start" if at < half else "middle"
        parts.append(tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="grid"))
        parts.append(text(at, bottom + 18, name, "tick", anchor))
    parts.append(text(right, bottom + 36, x.name, "axis", "end"))
    return join(*parts)


def _rule(frame: Frame, at: float, name: str) -> Markup:
    y = frame.y(at)
    line = tag("line", x1=frame.x.start, x2=frame.x.end, y1=y, y2=y, class_="rule")
    return join(line, text(frame.x.end, y - 5, name, "tick halo", "end")) if name else line


def _surface(frame: Frame, s: Series) -> Markup:
    known = [p for p in s.points if p.low is not None and p.high is not None]
    top = [f"{frame.x(p.x):.1f} {frame.y(p.high or 0.0):.1f}" for p in known]
    low = [f"{frame.x(p.x):.1f} {frame.y(p.low or 0.0):.1f}" for p in reversed(known)]
    return tag("path", d=f"M{'L'.join([*top, *low])}Z", class_=f"band {s.look}") if len(known) > 1 else Markup("")


def _line(frame: Frame, s: Series) -> Markup:
    path = "L".join(f"{frame.x(p.x):.1f} {frame.y(p.y):.1f}" for p in s.points)
    return tag("path", d=f"M{path}", class_=f"line {s.look}{' dashed' if s.dashed else ''}")


def _marks(frame: Frame, s: Series) -> Markup:
    crowd = len(s.points)
    radius = 4.0 if crowd <= 40 else 3.0 if crowd <= 120 else 2.0
    parts = []
    for p in s.points:
        x, y = frame.x(p.x), frame.y(p.y)
        if not s.band and p.low is not None and p.high is not None:
            ends = {"y1": frame.y(p.low), "y2": frame.y(p.high)}
            parts.append(tag("line", x1=x, x2=x, class_=f"whisker {s.look}", **ends))
        parts.append(mark(x, y, p.mark, s.look, p.says, radius))
        if p.label:
            parts.append(text(x, y - 10, p.label, "tick halo", "middle"))
    return join(*parts)


def _names(frame: Frame, series: Sequence[Series]) -> Markup:
    """Each line's name at its end: beside it where there is room, else above it, or below one that stands behind."""
    named = [s for s in series if s.name]
    ends = [(frame.x(s.points[-1].x), frame.y(s.points[-1].y)) for s in named]
    beside = [not frame.narrow and x > frame.x.end - 40 for x, _ in ends]
    wanted = [
        y + (4 if at_end else 24 if s.look == "quiet" else -12)
        for s, at_end, (_, y) in zip(named, beside, ends, strict=True)
    ]
    heights = apart(wanted, 16, frame.y.start - 4)
    parts = []
    for s, at_end, (x, _), y in zip(named, beside, ends, heights, strict=True):
        at, anchor = (x + 10, "start") if at_end else (min(x + 6, frame.width), "end")
        if not at_end and s.look == "quiet" and x + len(s.name) * LETTER < frame.x.end:
            at, anchor = x - 6, "start"
        parts.append(text(at, y, s.name, f"name halo {s.look}", anchor))
    return join(*parts)
