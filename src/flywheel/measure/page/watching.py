"""The part about the champion: whether it is still worth its place, by what the monitor saw last."""

from flywheel.found import COMMANDS
from flywheel.measure.page.known import Known
from flywheel.measure.page.markup import Markup, tag
from flywheel.measure.page.parts import Part
from flywheel.measure.page.words import named, plural
from flywheel.watched import Signal, Standing, Watched

TITLE = "The champion, watched"
LOOKS: dict[Standing, str | None] = {"well": "promote", "harm": "reject", "off": "reject", "not enough evidence": None}


def watched(known: Known) -> Part:
    """What was looked at last, what it said, and what followed."""
    found = known.watched
    if found is None:
        missing = "Whether the champion is still worth its place nobody has looked at yet."
        return Part("champion", TITLE, missing=missing, command=COMMANDS[Watched])
    notes = [] if found.champion == known.champion else [f"Since then the champion was moved to {known.champion}."]
    seen = f"{named(found.champion)} was seen in {plural(found.rows, 'row')} of its own"
    since = f", from {found.since} to {found.until}" if found.since else ""
    notes.append(f"{seen[0].upper()}{seen[1:]}{since}.")
    return Part("champion", TITLE, notes=notes, as_of=found.as_of, below=_signals(found))


def warnings(known: Known) -> list[str]:
    """What whoever opens the page must know first: harm, or a champion that was taken back."""
    found = known.watched
    if found is None or not (found.harm or found.taken_back):
        return []
    return [f"{said[0].upper()}{said[1:].removesuffix('.')}." for said in found.says if said]


def _signals(found: Watched) -> Markup:
    return tag("ul", *(_signal(one) for one in found.signals), class_="decisions")


def _signal(one: Signal) -> Markup:
    standing = tag("span", one.status, class_=" ".join(filter(None, ("verdict", LOOKS[one.status]))))
    return tag("li", tag("div", standing), tag("div", tag("b", one.name), ": ", one.says))
