"""The page that says whether the wheel turns: one HTML file that needs nothing else, neither a network nor a script."""

import math

from flywheel.evidence import Gain, Turning
from flywheel.found import COMMANDS
from flywheel.measure.page.account import ledger
from flywheel.measure.page.causes import network, staleness, why
from flywheel.measure.page.generations import lineage, metric_name, slices, verdicts
from flywheel.measure.page.known import Known
from flywheel.measure.page.markup import Markup, join, tag
from flywheel.measure.page.parts import Part, part, style
from flywheel.measure.page.people import factors, growth, hazards, offpolicy, pace
from flywheel.measure.page.quality import quality
from flywheel.measure.page.watching import warnings, watched
from flywheel.measure.page.words import count, named, number, places, plural, portion, share

TURNS: dict[Turning, str] = {
    "compounding": "The wheel turns, and it compounds.",
    "amplifying": "The wheel turns: it amplifies growth.",
    "decoration": "The wheel does not turn: it is decoration.",
    "reversing": "The wheel turns backwards.",
    "not enough evidence": "Nobody can tell yet whether the wheel turns.",
}
ALONE = "default-src 'none'; style-src 'unsafe-inline'"  # whatever is in here, nothing is fetched or run
SPANS = {1: "a day", 7: "a week", 14: "a fortnight"}
PARTS = (verdicts, watched, quality, growth, ledger, why, staleness, network, slices, hazards, offpolicy, lineage)


def page(known: Known) -> str:
    """The whole page, as HTML."""
    parts = [make(known) for make in PARTS]
    if known.gain is not None:
        parts.insert(0, _turning(known.gain))
    title = f"{known.product}: {headline(known)}"
    head = join(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'),
        tag("meta", http_equiv="Content-Security-Policy", content=ALONE),
        tag("title", title),
        tag("style", style()),
    )
    foot = tag("footer", _foot(known), class_="foot")
    body = tag("body", tag("main", _top(known, parts), *(part(p) for p in parts)), foot, class_="flywheel")
    return f'<!doctype html>\n<html lang="en">{tag("head", head)}{body}</html>\n'


def headline(known: Known) -> str:
    """Whether the wheel turns, in one sentence; without a loop gain, how far it is known to have come."""
    if known.gain is not None:
        return TURNS[known.gain.verdict]
    if not known.generations:
        rows = sum(line.rows for line in known.ledger)
        return (
            f"Nothing is learned yet from {plural(rows, 'row')}."
            if rows
            else "The wheel stands still: it has no rows yet."
        )
    serving = known.serving
    made = plural(len(known.generations), "generation")
    if serving is None:
        return f"{made}, and the baseline still serves."
    return f"{made}, and number {serving.generation} serves."


def sentences(known: Known) -> list[str]:
    """What the top of the page says below its headline."""
    gain = known.gain
    if gain is not None:
        return [*warnings(known), *gain.says[1:3], *_pace(gain)]
    newest = known.generations[-1:]
    said = [*warnings(known), *_ahead(known), *(f"The newest, generation {g.generation}: {g.reason}." for g in newest)]
    if not known.serves:
        return [*said, "Whether better models bring people back cannot be told: nobody is served by this workspace."]
    return said


def _top(known: Known, parts: list[Part]) -> Markup:
    lede = [tag("p", said, class_="lede") for said in sentences(known)]
    if known.gain is None and known.serves:
        ask = tag("code", COMMANDS[Gain]), " tells whether the wheel turns, how fast, and what binds."
        lede.append(tag("p", *ask, class_="lede"))
    stats = tag("dl", *(_stat(value, said) for value, said in _stats(known)), class_="stats")
    links = tag("nav", *(tag("a", p.key, href=f"#{p.key}") for p in parts), aria_label="Parts of this page")
    return tag("div", tag("p", known.product, class_="eyebrow"), tag("h1", headline(known)), *lede, stats, links)


def _stat(value: str, said: str) -> Markup:
    word = None if any(c.isdigit() for c in value) else "word"
    return tag("div", tag("dt", said), tag("dd", value, class_=word))


def _stats(known: Known) -> list[tuple[str, str]]:
    """The figures at the top, each with what it is."""
    found: list[tuple[str, str]] = []
    gain, g = known.gain, known.serving
    if gain is not None and gain.gain is not None:
        said = places(gain.gain.high - gain.gain.low)
        low, high = (number(v, said) for v in (gain.gain.low, gain.gain.high))
        found.append((number(gain.gain.value, said), f"loop gain ({low} to {high})"))
        found.append((gain.binding or "—", "is what binds"))
    if gain is not None and gain.users_added is not None:
        low, high = (number(v, 0, sign=True) for v in (gain.users_added.low, gain.users_added.high))
        found.append((number(gain.users_added.value, 0, sign=True), f"users the wheel added ({low} to {high})"))
    if g is not None and known.metric in g.metrics:
        base = f", baseline {number(g.baseline[known.metric])}" if known.metric in g.baseline else ""
        found.append((number(g.metrics[known.metric]), f"{metric_name(known.metric)} of {named(g.generation)}{base}"))
    elif known.generations:
        found.append(("baseline", "serves"))
    if known.ledger:
        came, rows = (sum(getattr(line, name) for line in known.ledger) for name in ("collected", "rows"))
        found.append((count(rows), f"rows, {portion(rows, came)} of events"))
    if gain is None and known.generations:
        found.append(
            (
                count(len(known.generations)),
                f"generations, {sum(g.verdict == 'promote' for g in known.generations)} passed",
            )
        )
    return found


def _pace(gain: Gain) -> list[str]:
    """How fast users grow, and how long until there are twice as many."""
    found = pace(gain.periods)
    if found is None:
        return []
    ours, theirs, days = found
    span = SPANS.get(round(days), f"every {days:.0f} days")
    said = f"Users grow by {share(ours, 1)} {span} with the wheel and by {share(theirs, 1)} without it"
    if ours > 0.001:
        said += f"; at this pace there are twice as many in {math.log(2) / math.log1p(ours) * days:.0f} days"
    return [said + "."]


def _turning(gain: Gain) -> Part:
    """The factors and the levers; where nothing is known of the factors, why."""
    found = factors(gain)
    notes = [*([] if found else gain.says[:1]), *_levers(gain)]
    return Part("gain", "How it turns", found, notes=notes, as_of=gain.as_of)


def _levers(gain: Gain) -> list[str]:
    return [f"The cheapest lever first: {'; '.join(gain.levers)}."] if gain.levers else []


def _ahead(known: Known) -> list[str]:
    """By how much the champion was ahead of the baseline, on its own exam."""
    g = known.serving
    if g is None or known.metric not in g.metrics or known.metric not in g.baseline:
        return []
    ours, theirs = number(g.metrics[known.metric]), number(g.baseline[known.metric])
    return [f"On its exam it had {metric_name(known.metric)} {ours}, where the baseline had {theirs}."]


def _foot(known: Known) -> Markup:
    when = f"Made {known.at:%Y-%m-%d %H:%M} UTC by flywheel report. Intervals are of 95\N{NO-BREAK SPACE}%."
    newest = f" The newest closed window is {known.ledger[-1].window}." if known.ledger else ""
    return join(when, newest)
