"""The parts that say why: what a difference is made of, how models and data age, whether everybody's data help all."""

from flywheel.evidence import Estimate, Network, Staleness, Why
from flywheel.found import COMMANDS
from flywheel.measure.page.generations import metric_name
from flywheel.measure.page.known import Known
from flywheel.measure.page.lines import Axis, Point, Series, lines
from flywheel.measure.page.parts import Figure, Part, Table
from flywheel.measure.page.rows import Row, intervals
from flywheel.measure.page.words import count, estimate, number, plural

TWO_SIDED = 1.959964


def why(known: Known) -> Part:
    """What made the difference between two generations."""
    title = "Why it became better"
    if known.why is None:
        two = len(known.generations) > 1
        last = known.generations[-1].generation if two else 0
        what = "What the improvement is made of is not measured yet."
        command = COMMANDS[Why].replace("A B", f"{known.generations[0].generation} {last}") if two else ""
        return Part("why", title, missing=what if two else "It takes two generations to tell.", command=command)
    return why_alone(known.why)


def why_alone(found: Why) -> Part:
    """The split of a difference into its causes."""
    name = metric_name(found.metric)
    rows, reached = [], 0.0
    like = [found.total, *(part.effect for part in found.parts)]
    for part in found.parts:
        e = part.effect
        ends = Estimate(reached + e.value, reached + e.low, reached + e.high)
        rows.append(
            Row(part.name, ends, estimate(e, sign=True, like=like), "accent" if e.value >= 0 else "warn", base=reached)
        )
        reached += e.value
    rows.append(Row("together", found.total, estimate(found.total, sign=True, like=like), "ink", base=0.0))
    says = (
        found.says[0] if found.says else f"From generation {found.a} to {found.b}: {estimate(found.total, sign=True)}."
    )
    axis = f"difference in {name} from generation {found.a} to {found.b}"
    table = [(p.name, estimate(p.effect, sign=True)) for p in found.parts]
    table += [(f"interaction: {p.name}", estimate(p.effect, sign=True)) for p in found.interactions]
    table.append(("together", estimate(found.total, sign=True)))
    figure = Figure(says, intervals(rows, axis=axis, what=says), Table(("cause", "part (interval)"), table))
    return Part("why", f"Why generation {found.b} differs from generation {found.a}", [figure], notes=found.says[1:])


def staleness(known: Known) -> Part:
    """How fast models and data age."""
    if known.staleness is None:
        missing = "How fast a generation decays, and whether old rows still help, is not measured yet."
        return Part("staleness", "Aging", missing=missing, command=COMMANDS[Staleness])
    return staleness_alone(known.staleness)


def staleness_alone(found: Staleness) -> Part:
    """What age costs a model, and what old rows are worth."""
    figures = ([_ages(found)] if found.ages else []) + ([_windows(found)] if found.windows else [])
    notes = found.says[1:] if figures else found.says
    return Part("staleness", "Aging", figures, notes=notes, as_of=found.as_of)


def _ages(found: Staleness) -> Figure:
    ages = sorted(found.ages, key=lambda a: a.days)
    points = [Point(a.days, a.loss.value, a.loss.low, a.loss.high, says=estimate(a.loss)) for a in ages]
    name = metric_name(found.metric)
    says = found.says[0] if found.says else f"After {ages[-1].days:g} days a model has lost {estimate(ages[-1].loss)}."
    drawing = lines(
        [Series("", points, band=True)],
        x=Axis("days old"),
        y=Axis(f"loss in {name} against a fresh model", zero=True),
        what=says,
        height=240,
        rules=((0.0, "as good as fresh"),),
    )
    rows = [(f"{a.days:g}", estimate(a.loss)) for a in ages]
    return Figure(says, drawing, Table(("days old", "loss (interval)"), rows, names=0))


def _windows(found: Staleness) -> Figure:
    kept = sorted(found.windows, key=lambda k: k.days)
    name = metric_name(found.metric)
    best = max(kept, key=lambda k: k.gain.value)
    keep = (
        f"Learn from the newest {plural(round(found.keep_days), 'day')} alone"
        if found.keep_days is not None
        else "Keep all rows"
    )
    says = (
        f"{keep}: of the spans tried, the newest {best.days:g} days do best, with {estimate(best.gain, sign=True)} "
        f"in {name} against learning from everything."
    )
    rows = [
        Row(
            f"newest {k.days:g} days",
            k.gain,
            f"{number(k.gain.value, 4, sign=True)}, {count(k.rows)} rows",
            "accent" if k.gain.low > 0 else "warn" if k.gain.high < 0 else "quiet",
            "ring" if k.gain.low <= 0 <= k.gain.high else "dot",
        )
        for k in kept
    ]
    drawing = intervals(rows, axis=f"gain in {name} against all rows", what=says, rules=((0.0, "all rows"),))
    table = [(f"{k.days:g}", count(k.rows), estimate(k.gain, sign=True)) for k in kept]
    return Figure(says, drawing, Table(("newest days", "rows", "gain (interval)"), table, names=0))


def network(known: Known) -> Part:
    """Whether everybody's data improves everybody's model."""
    if known.network is None:
        missing = "Whether others' rows make the model better for a user is not measured yet."
        return Part("network", "Does everybody's data help everybody?", missing=missing, command=COMMANDS[Network])
    return network_alone(known.network)


def network_alone(found: Network) -> Part:
    """Quality for a fixed cohort with its own rows alone, and as others join."""
    name = metric_name(found.metric)
    points = [
        Point(p.users, p.quality, p.quality - TWO_SIDED * p.se, p.quality + TWO_SIDED * p.se,
              says=f"{number(p.quality)} with {count(p.users)} users")
        for p in sorted(found.joining, key=lambda p: p.users)
    ]  # fmt: skip
    both = f"{number(found.own)} from their own rows and {number(found.everybody)} from all"
    says = found.says[0] if found.says else f"For the same users {name} is {both}."
    drawing = lines(
        [Series("", points)],
        x=Axis("users whose rows the model learned from"),
        y=Axis(f"{name} for the same users"),
        what=says,
        height=260,
        rules=((found.own, "their own rows alone"),),
    )
    rows = [("their own rows alone", "—", "—", number(found.own, 4), "—")]
    rows += [
        ("as others join", count(p.users), count(p.rows), number(p.quality, 4), number(p.se, 4)) for p in found.joining
    ]
    rows.append(("everybody's rows", "—", "—", number(found.everybody, 4), "—"))
    rows.append(("difference", "—", "—", estimate(found.difference, sign=True), "—"))
    figure = Figure(says, drawing, Table(("", "users", "rows", name, "standard error"), rows))
    title = "Does everybody's data help everybody?"
    return Part("network", title, [figure], notes=found.says[1:], as_of=found.as_of)
