"""The parts of the page that generations tell: verdicts, slices of the newest exam, where the champion came from."""

from collections.abc import Sequence
from math import isfinite

from flywheel.evidence import Estimate
from flywheel.measure.page.known import Known
from flywheel.measure.page.lines import Axis, Look, Mark, Point, Series, lines
from flywheel.measure.page.markup import Markup, join, tag
from flywheel.measure.page.parts import MOST_ROWS, Figure, Part, Table
from flywheel.measure.page.rows import Row, intervals
from flywheel.measure.page.words import count, day, estimate, named, number, places, plural, share
from flywheel.records import Finding, Generation, Interval, Slice

NAMES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "ndcg": "NDCG",
    "rmse": "RMSE",
    "mae": "MAE",
}
MARKS: dict[str, tuple[Mark, Look, str]] = {
    "promote": ("dot", "accent", "passed"),
    "keep": ("ring", "quiet", "kept back"),
    "reject": ("cross", "warn", "rejected"),
}
DRAWN, LISTED, SLICES = 60, 5, 16  # generations in the chart, decisions in full, slices in the chart


def metric_name(metric: str) -> str:
    """A metric as people write it."""
    return NAMES.get(metric, metric)


def verdicts(known: Known) -> Part:
    """Every generation with its verdict, and the difference that it was decided by."""
    made = known.generations
    if not made:
        return Part("generations", "Generations", missing="There is no generation yet.", command="flywheel turn")
    drawn = [g for g in made if g.difference is not None][-DRAWN:]
    figures = [_differences(known, drawn)] if drawn else []
    return Part("generations", "Generations", figures, below=_decisions(made[-LISTED:]))


def _differences(known: Known, drawn: Sequence[Generation]) -> Figure:
    made, name = known.generations, metric_name(known.metric)
    series = [
        Series("", [_difference(g) for g in drawn if g.verdict == verdict], look=look, joined=False)
        for verdict, (_, look, _) in MARKS.items()
    ]
    passed = sum(g.verdict == "promote" for g in made)
    newest = made[-1]
    part = f" The chart shows the newest {len(drawn)}." if len(drawn) < len(made) else ""
    says = (
        f"{passed} of {plural(len(made), 'generation')} passed the gate; the newest, generation {newest.generation}, "
        f"was {_was(newest)}.{part} Each point is the gain over whom it was examined against, on the same rows, with "
        "its interval: filled points passed, hollow ones were kept back, crosses were rejected."
    )
    drawing = lines(
        series,
        x=Axis("generation", at=_numbers(drawn)),
        y=Axis(f"gain in {name}", zero=True),
        what=says,
        height=260,
        rules=((0.0, ""),),
    )
    heads = ("generation", "verdict", "as of", "rows", "exam rows", name, "gain (interval)", "against")
    rows = [
        (str(g.generation), g.verdict, day(g.as_of), count(g.train_rows), count(g.exam_rows),
         number(g.metrics.get(known.metric)), _gain(g.difference), named(g.examined_against))
        for g in reversed(made)
    ]  # fmt: skip
    more = f"and {len(rows) - MOST_ROWS:,} older ones: flywheel generations" if len(rows) > MOST_ROWS else ""
    return Figure(says, drawing, Table(heads, rows, names=3, more=more))


def _numbers(drawn: Sequence[Generation]) -> list[tuple[float, str]]:
    return [(float(g.generation), str(g.generation)) for g in drawn]


def _was(made: Generation) -> str:
    return {"promote": "let through", "keep": "kept back", "reject": "rejected"}[made.verdict]


def _difference(g: Generation) -> Point:
    assert g.difference is not None
    mark, _, said = MARKS[g.verdict]
    d = g.difference
    says = f"generation {g.generation} {said}: {_gain(d)} against {named(g.examined_against)}"
    return Point(g.generation, d.estimate, d.low, d.high, mark, says)


def _gain(d: Interval | None) -> str:
    return "—" if d is None else estimate(Estimate(d.estimate, d.low, d.high), sign=True)


def _decisions(made: Sequence[Generation]) -> Markup:
    """The newest decisions with their reasons, newest first."""
    items = []
    for g in reversed(made):
        verdict = tag("span", MARKS[g.verdict][2], class_=f"verdict {g.verdict}")
        alias = f", {g.alias}" if g.alias else ""
        facts = f"as of {day(g.as_of)}, {count(g.train_rows)} rows{alias}"
        items.append(
            tag(
                "li",
                tag("div", verdict),
                tag("div", tag("b", f"Generation {g.generation}"), ": ", g.reason, tag("small", facts)),
            )
        )
    return tag("ul", *items, class_="decisions")


def slices(known: Known) -> Part:
    """The newest exam, slice by slice."""
    title = "Slices of the newest exam"
    shown = [s for s in known.slices if isfinite(s.comparison.difference.estimate)]
    if not shown:
        why = "The newest exam has no slices." if known.generations else "There is no exam yet."
        return Part("slices", title, missing=why, command="" if known.generations else "flywheel turn")
    statuses = {f.name: f for f in known.findings}
    found = [(s, statuses.get(f"slice {s.column}={s.value}")) for s in shown]
    found.sort(key=lambda one: one[0].comparison.difference.estimate)
    largest = sorted(found, key=lambda one: -one[0].rows)[:SLICES]
    drawn = [one for one in found if one in largest]
    says = _told(known, found, len(drawn))
    rules = [(0.0, "no difference")]
    limits = {f.threshold for _, f in found if f is not None}
    rules += [(limits.pop(), "limit")] if len(limits) == 1 else []
    drawing = intervals(
        [_slice(s, f) for s, f in drawn], axis=f"gain in {metric_name(known.metric)}", what=says, rules=rules
    )
    heads = ("slice", "verdict", "rows", "users", "challenger", "champion", "gain (interval)")
    rows = [
        (f"{s.column} = {s.value}", f.status if f else "—", count(s.rows), count(s.users),
         number(s.comparison.challenger), number(s.comparison.champion), _gain(s.comparison.difference))
        for s, f in found
    ]  # fmt: skip
    return Part("slices", title, [Figure(says, drawing, Table(heads, rows, names=2))])


def _told(known: Known, found: Sequence[tuple[Slice, Finding | None]], drawn: int) -> str:
    passed, failed = (sum(f is not None and f.status == status for _, f in found) for status in ("pass", "fail"))
    worst, unsure = found[0][0], len(found) - passed - failed
    part = f" The chart shows the {drawn} with most rows." if drawn < len(found) else ""
    fail, small = "fails" if failed == 1 else "fail", "is" if unsure == 1 else "are"
    figures = f"{_gain(worst.comparison.difference)} on {count(worst.rows)} rows"
    return (
        f"Of {plural(len(found), 'slice')} of the exam of generation {known.generations[-1].generation}, {passed} "
        f"pass, {failed} {fail} and {unsure} {small} too small to tell. The worst is {worst.column} = {worst.value}: "
        f"{figures}.{part}"
    )


def _slice(one: Slice, finding: Finding | None) -> Row:
    d = one.comparison.difference
    status = finding.status if finding else "not enough evidence"
    look: Look = "warn" if status == "fail" else "accent" if status == "pass" else "quiet"
    mark: Mark = "cross" if status == "fail" else "dot" if status == "pass" else "ring"
    says = f"{number(d.estimate, places(d.high - d.low), sign=True)} on {count(one.rows)}"
    return Row(f"{one.column} = {one.value}", Estimate(d.estimate, d.low, d.high), says, look, mark)


def lineage(known: Known) -> Part:
    """Where the champion came from."""
    g, title = known.serving, "Where the champion came from"
    if g is None:
        why = "The baseline serves: smoothed popularity, which needs no training."
        return Part("lineage", title, notes=[why])
    facts = [
        ("generation", f"{g.generation}, as of {day(g.as_of)}, asked for by {g.trigger}"),
        ("rows", f"{count(g.train_rows)} of {plural(g.train_users, 'user')}, windows {' to '.join(g.trained_windows)}"),
        (
            "exam",
            f"{count(g.exam_rows)} rows, windows {' to '.join(g.exam_windows)}, against {named(g.examined_against)}",
        ),
        ("dataset", f"data.dvc {g.dataset}"),
        ("code", g.code or "not in a git repository"),
        ("recipe", f"{g.tags.get('recipe', '—')}, {g.tags.get('rounds', '—')} trees"),
        ("config", g.config),
        ("seed", str(g.seed)),
        *([("learned from", _learned(known))] if known.importance else []),
        *(
            ("moved", f"{day(m.when)} {m.action} by {m.who}: {named(m.before)} → {named(m.after)}, {m.why}")
            for m in known.moves[-1:]
        ),
    ]
    listed = tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts")
    again = tag(
        "p",
        tag("code", f"flywheel rebuild {g.generation}"),
        " makes it again from these, and says whether it is the same.",
    )
    return Part("lineage", title, below=join(listed, tag("br"), again))


def _learned(known: Known) -> str:
    total = sum(known.importance.values()) or 1
    top = sorted(known.importance.items(), key=lambda one: -one[1])[:6]
    return ", ".join(f"{name} {share(gain / total)}" for name, gain in top)
