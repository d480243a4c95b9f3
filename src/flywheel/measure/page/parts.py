"""What a page is made of: parts, each with figures, and under each figure the numbers that it was drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from flywheel.measure.page.axes import Drawing
from flywheel.measure.page.markup import Markup, tag
from flywheel.measure.page.words import day

WIDE, PHONE = 736.0, 328.0
MOST_ROWS = 50
NOTHING = Markup("")


@dataclass(frozen=True)
class Table:
    """Numbers as text; the first `names` columns are words, the others figures. `more` says what is left out."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    more: str = ""


@dataclass(frozen=True)
class Figure:
    """A sentence that says what is shown, the drawing, and its numbers."""

    says: str
    drawing: Drawing
    table: Table


@dataclass(frozen=True)
class Part:
    """One part of the page. Without figures, `missing` says why and `command` is what finds them."""

    key: str
    title: str
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    missing: str = ""
    command: str = ""
    as_of: datetime | None = None
    below: Markup = NOTHING


def part(told: Part) -> Markup:
    """A part as a section of the page."""
    head = [tag("h2", told.title)]
    if told.as_of is not None:
        head.append(tag("p", f"as of {day(told.as_of)}", class_="when"))
    shown = [_figure(f, both=True) for f in told.figures]
    lacking = [_lacking(told)] if told.missing else []
    lean = None if told.figures or told.below else "lean"
    notes = [tag("p", note) for note in told.notes]
    return tag("section", tag("header", *head), *lacking, *shown, told.below, *notes, id=told.key, class_=lean)


def alone(told: Part) -> Markup:
    """A part by itself, with the page's style: what a notebook shows."""
    shown = [_figure(f, both=False) for f in told.figures]
    notes = [tag("p", note) for note in told.notes]
    return tag("div", tag("style", style()), tag("h2", told.title), *shown, told.below, *notes, class_="flywheel alone")


def sentences(told: Part) -> str:
    """What a part says, without its drawings."""
    return "\n".join([*(f.says for f in told.figures), *told.notes])


def table(told: Table) -> Markup:
    """A table that scrolls by itself where it is wider than the page."""
    heads = [tag("th", head, scope="col", class_=_kind(n, told)) for n, head in enumerate(told.heads)]
    rows = [
        tag("tr", *(tag("td", cell, class_=_kind(n, told)) for n, cell in enumerate(row)))
        for row in told.rows[:MOST_ROWS]
    ]
    more = told.more or (f"and {len(told.rows) - MOST_ROWS:,} more" if len(told.rows) > MOST_ROWS else "")
    made = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    below = [tag("p", more, class_="more")] if more else []
    return tag("div", made, *below, class_="scroll", tabindex="0")


def style() -> Markup:
    """The style sheet of pages and notebooks."""
    return Markup(resources.files("flywheel.measure.page").joinpath("page.css").read_text(encoding="utf-8"))


def _figure(told: Figure, *, both: bool) -> Markup:
    drawn = [tag("div", told.drawing(WIDE), class_="wide" if both else None)]
    drawn += [tag("div", told.drawing(PHONE), class_="narrow")] if both else []
    behind = tag("details", tag("summary", "The numbers"), table(told.table))
    return tag("figure", tag("figcaption", told.says), *drawn, behind)


def _kind(column: int, told: Table) -> str | None:
    return "n" if column >= told.names else None


def _lacking(told: Part) -> Markup:
    if not told.command:
        return tag("p", told.missing, class_="missing")
    return tag("p", told.missing.rstrip("."), ": ", tag("code", told.command), class_="missing")
