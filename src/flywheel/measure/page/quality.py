"""Quality against data: the curve of one exam with its forecast, and the line of the generations themselves."""

from flywheel.evidence import Curve, Estimate
from flywheel.found import COMMANDS
from flywheel.measure.page.generations import metric_name
from flywheel.measure.page.known import Known
from flywheel.measure.page.lines import Axis, Point, Series, lines
from flywheel.measure.page.parts import Figure, Part, Table
from flywheel.measure.page.rows import Row, intervals
from flywheel.measure.page.words import count, estimate, number

TWO_SIDED = 1.959964


def quality(known: Known) -> Part:
    """Quality against training rows."""
    title, curve = "Quality against data", known.curve
    if curve is not None:
        figures = [_curve(known, curve), *_more(curve)]
        return Part("quality", title, figures, notes=curve.says[1:], as_of=curve.as_of)
    missing = "How much more data would help is not measured yet."
    figures = [_line(known)] if _own(known) else []
    return Part("quality", title, figures, missing=missing, command=COMMANDS[Curve])


def curve_alone(curve: Curve) -> Part:
    """The curve as a notebook shows it."""
    known = Known("", curve.metric, curve.as_of, curve=curve)
    return quality(known)


def _own(known: Known) -> list[Point]:
    """Each generation's own quality, on its own exam."""
    made = sorted((g for g in known.generations if known.metric in g.metrics), key=lambda g: g.train_rows)
    crowded = len(made) > 40
    return [
        Point(
            g.train_rows,
            g.metrics[known.metric],
            mark="none" if crowded else "dot",
            says=f"generation {g.generation}: {number(g.metrics[known.metric])} on {count(g.train_rows)} rows",
        )
        for g in made
    ]


def _baseline(known: Known) -> list[Point]:
    made = sorted((g for g in known.generations if known.metric in g.baseline), key=lambda g: g.train_rows)
    return [Point(g.train_rows, g.baseline[known.metric], mark="none") for g in made]


def _curve(known: Known, curve: Curve) -> Figure:
    name = metric_name(curve.metric)
    measured = [
        Point(p.rows, p.quality, p.quality - TWO_SIDED * p.se, p.quality + TWO_SIDED * p.se,
              says=f"{number(p.quality)} on {count(p.rows)} rows of {count(p.users)} users")
        for p in sorted(curve.points, key=lambda p: p.rows)
    ]  # fmt: skip
    ahead = {kind: _ahead(curve, kind) for kind in ("forecast", "scenario")}
    own = _own(known)
    series = [
        Series("generations", own, "quiet"),
        *(Series(kind, points, "accent", band=True, dashed=True) for kind, points in ahead.items()),
        Series("", measured, "accent"),
    ]
    says = curve.says[0] if curve.says else f"Quality on one exam, by training rows: {curve.shape}."
    if own:
        says += (
            " The grey line is the generations themselves, each on an exam of its own: its steps are partly the "
            "exam's, and its height is not the curve's."
        )
    drawing = lines(series, x=Axis("training rows", log=True), y=Axis(name), what=says, height=340)
    rows = [("measured", count(p.rows), count(p.users), number(p.quality, 4), number(p.se, 4)) for p in curve.points]
    rows += [(p.kind, count(p.rows), "—", estimate(p.quality), "—") for p in curve.forecast]
    return Figure(says, drawing, Table(("", "rows", "users", name, "standard error"), rows))


def _ahead(curve: Curve, kind: str) -> list[Point]:
    """What is forecast, from the last point that was measured on; scenarios begin where the forecast ends."""
    at = {p.rows: p for p in curve.forecast}
    last = max(curve.points, key=lambda p: p.rows)
    before = [at[rows] for rows in sorted(at) if at[rows].kind == "forecast"] if kind == "scenario" else []
    begin = before[-1].quality if before else Estimate(last.quality, last.quality, last.quality)
    points = [Point(before[-1].rows if before else last.rows, begin.value, begin.low, begin.high, "none")]
    points += [
        Point(
            rows,
            p.quality.value,
            p.quality.low,
            p.quality.high,
            "ring",
            f"{kind}: {estimate(p.quality)} with {count(rows)} rows",
        )
        for rows, p in sorted(at.items())
        if p.kind == kind
    ]
    return points if len(points) > 1 else []


def _line(known: Known) -> Figure:
    own, base, name = _own(known), _baseline(known), metric_name(known.metric)
    first, last = own[0], own[-1]
    says = (
        f"{name} was {number(first.y)} with {count(first.x)} training rows and {number(last.y)} with {count(last.x)}. "
        "Each generation sat an exam of its own, so the steps are partly the exam's; the baseline sat the same ones."
    )
    series = [Series("baseline", base, "quiet", dashed=True), Series("generations", own, "accent")]
    drawing = lines(series, x=Axis("training rows", log=True), y=Axis(name), what=says, height=320)
    made = sorted(known.generations, key=lambda g: -g.train_rows)
    rows = [
        (
            str(g.generation),
            count(g.train_rows),
            number(g.metrics.get(known.metric)),
            number(g.baseline.get(known.metric)),
        )
        for g in made
    ]
    return Figure(says, drawing, Table(("generation", "rows", name, "baseline"), rows))


def _more(curve: Curve) -> list[Figure]:
    """What more users would bring, and what more of each."""
    both: list[tuple[str, Estimate | None]] = [
        ("half as many users again", curve.more_users),
        ("half as many rows again of each", curve.more_per_user),
    ]
    known = [(label, found) for label, found in both if found is not None]
    if not known:
        return []
    name = metric_name(curve.metric)
    said = "; ".join(f"{label}: {estimate(found, sign=True)}" for label, found in known)
    says = f"What would be gained in {name} by more users, or by more from the same ones. {said[:1].upper()}{said[1:]}."
    rows = [Row(label, found, estimate(found, sign=True)) for label, found in known]
    drawing = intervals(rows, axis=f"gain in {name}", what=says)
    return [Figure(says, drawing, Table(("more", "gain (interval)"), [(r.label, r.says) for r in rows]))]
