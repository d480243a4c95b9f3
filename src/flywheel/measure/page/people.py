"""The parts about people: how fast users and rows grow with the wheel and without it, and what the wheel may harm."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from flywheel.evidence import Exploration, Gain, Hazard, Hazards, OffPolicy, Period
from flywheel.found import COMMANDS
from flywheel.measure.page.axes import Drawing
from flywheel.measure.page.known import Known
from flywheel.measure.page.lines import Axis, Point, Series, lines, panels
from flywheel.measure.page.parts import Figure, Part, Table
from flywheel.measure.page.rows import Pair, Row, intervals, pairs
from flywheel.measure.page.words import compact, count, day, estimate, number, share
from flywheel.records import LedgerLine

DRAWN = 120  # windows in the chart of rows
NOBODY = (
    "This workspace answers nobody, so there is no holdback to compare with: [serve] in flywheel.toml changes that."
)
FIGURES: tuple[tuple[str, Callable[[Period], float], Callable[[Period], float]], ...] = (
    ("users", lambda p: p.users, lambda p: p.users_without),
    ("rows", lambda p: p.rows, lambda p: p.rows_without),
    ("reward", lambda p: p.reward, lambda p: p.reward_without),
)


def growth(known: Known) -> Part:
    """Users, rows and reward over time, with the wheel and without it."""
    title, gain = "Growth with and without the wheel", known.gain
    if gain is not None and gain.periods:
        return Part("growth", title, [_periods(gain.periods)], as_of=gain.as_of)
    figures = [_rows(known.ledger)] if len(known.ledger) > 1 else []
    if not known.serves:
        return Part("growth", title, figures, missing=NOBODY)
    missing = "Growth without the wheel is not measured yet."
    return Part("growth", title, figures, missing=missing, command=COMMANDS[Gain])


def gain_alone(gain: Gain) -> Part:
    """The loop gain and its factors, and the growth that it explains."""
    figures = [*factors(gain), *([_periods(gain.periods)] if gain.periods else [])]
    notes = gain.says[1:] if factors(gain) else gain.says
    return Part("gain", f"Loop gain: {gain.verdict}", figures, notes=notes, as_of=gain.as_of)


def factors(gain: Gain) -> list[Figure]:
    """The three factors of the loop gain, and their product; nothing where the evidence reaches none of them."""
    named = [
        ("data per user", gain.data_per_user),
        ("quality per data", gain.quality_per_data),
        ("users per quality", gain.users_per_quality),
    ]
    rows = [
        Row(f"{label}, which binds" if label == gain.binding else label, found, estimate(found),
            "accent" if label == gain.binding else "quiet")
        for label, found in named
        if found is not None
    ]  # fmt: skip
    rows += [] if gain.gain is None else [Row("loop gain, their product", gain.gain, estimate(gain.gain), "ink")]
    rows += [] if gain.one_turn is None else [Row("that of one turn", gain.one_turn, estimate(gain.one_turn), "quiet")]
    if not rows:
        return []
    says = gain.says[0] if gain.says else f"The wheel: {gain.verdict}."
    drawing = intervals(rows, axis="share by which one grows for each share of the other", what=says,
                        rules=((0.0, "nothing"), (1.0, "in proportion")))  # fmt: skip
    return [Figure(says, drawing, Table(("factor", "value (interval)"), [(r.label, r.says) for r in rows]))]


def pace(periods: Sequence[Period]) -> tuple[float, float, float] | None:
    """By which share users grow each period with the wheel and without it, and the period's length in days."""
    known = [p for p in periods if p.users > 0 and p.users_without > 0][-8:]
    if len(known) < 2:
        return None
    turns = len(known) - 1
    ours, theirs = ((value(known[-1]) / value(known[0])) ** (1 / turns) - 1 for value in (FIGURES[0][1], FIGURES[0][2]))
    return ours, theirs, (known[-1].start - known[0].start).total_seconds() / 86_400 / turns


def _periods(periods: Sequence[Period]) -> Figure:
    last = periods[-1]
    says = (
        f"In the period from {day(last.start)} there were {count(last.users)} users with the wheel, and there would "
        f"have been {count(last.users_without)} without it; rows {count(last.rows)} against "
        f"{count(last.rows_without)}, reward {count(last.reward)} against {count(last.reward_without)}. Without "
        "it is the holdback, scaled to everybody."
    )
    drawing = panels([_panel(periods, *figure) for figure in FIGURES])
    heads = ("from", *(f"{name}{how}" for name, _, _ in FIGURES for how in ("", " without")))
    rows = [
        (day(p.start), *(count(value(p)) for _, ours, theirs in FIGURES for value in (ours, theirs)))
        for p in reversed(periods)
    ]
    return Figure(says, drawing, Table(heads, rows))


def _panel(
    periods: Sequence[Period], name: str, ours: Callable[[Period], float], theirs: Callable[[Period], float]
) -> Drawing:
    at = [(p.start.timestamp(), f"{p.start:%d %b}") for p in periods]
    with_it = [Point(p.start.timestamp(), ours(p), mark="none") for p in periods]
    without = [Point(p.start.timestamp(), theirs(p), mark="none") for p in periods]
    series = [Series("without", without, "quiet"), Series("with", with_it)]
    return lines(series, x=Axis("", at=_few(at)), y=Axis(name, zero=True), what=f"{name} by period", height=210)


def _few(at: Sequence[tuple[float, str]], most: int = 3) -> list[tuple[float, str]]:
    """The first, the last, and what lies evenly between."""
    if len(at) <= most:
        return list(at)
    return [at[round(n * (len(at) - 1) / (most - 1))] for n in range(most)]


def _rows(ledger: Sequence[LedgerLine]) -> Figure:
    drawn = ledger[-DRAWN:]
    tenth = max(1, len(drawn) // 10)
    first, last = (sum(line.rows for line in part) / tenth for part in (drawn[:tenth], drawn[-tenth:]))
    change = share(last / first - 1, sign=True) if first else "—"
    says = (
        f"A window brought {count(first)} rows at first and {count(last)} at last, from {drawn[0].window} to "
        f"{drawn[-1].window}: {change}. Whether that is the wheel's doing only a holdback can tell."
    )
    points = [Point(line.start.timestamp(), line.rows, mark="none") for line in drawn]
    at = _few([(line.start.timestamp(), day(line.start)) for line in drawn], 4)
    drawing = lines(
        [Series("", points)], x=Axis("window", at=at), y=Axis("rows a window", zero=True), what=says, height=220
    )
    return Figure(
        says, drawing, Table(("window", "rows"), [(line.window, count(line.rows)) for line in reversed(drawn)])
    )


def hazards(known: Known) -> Part:
    """What the wheel may take: concentration, new items' chances, rows that the model made for itself."""
    if known.hazards is not None:
        return hazards_alone(known.hazards)
    if not known.serves:
        return Part("hazards", "Hazards", missing=NOBODY)
    return Part("hazards", "Hazards", missing="What the wheel may harm is not measured yet.", command=COMMANDS[Hazards])


def hazards_alone(found: Hazards) -> Part:
    """Each hazard for those the wheel serves, beside the holdback."""
    alarms = [h.name for h in found.hazards if h.alarm]
    says = found.says[0] if found.says else f"{len(alarms)} of {len(found.hazards)} hazards raise an alarm."
    rows = [Pair(h.name, h.exposed, h.holdback, _against(h), "warn" if h.alarm else "accent") for h in found.hazards]
    drawing = pairs(rows, ours="with the wheel", theirs="holdback", what=says)
    table = [
        (
            h.name,
            "alarm" if h.alarm else "quiet",
            h.unit,
            _value(h.exposed),
            _value(h.holdback),
            estimate(h.difference, sign=True),
        )
        for h in found.hazards
    ]
    heads = ("hazard", "", "unit", "with the wheel", "holdback", "difference (sequence)")
    notes = [*found.says[1:], *(h.says for h in found.hazards)]
    figures = [Figure(says, drawing, Table(heads, table, names=3))] if found.hazards else []
    return Part("hazards", "Hazards", figures, notes=notes if figures else [says, *notes], as_of=found.as_of)


def _against(h: Hazard) -> str:
    return f"{'alarm: ' if h.alarm else ''}{_value(h.exposed)} against {_value(h.holdback)} {h.unit}".rstrip()


def _value(value: float) -> str:
    return number(value, 2) if abs(value) < 10 else compact(float(f"{value:.3g}"))


def offpolicy(known: Known) -> Part:
    """What a policy would have earned, from what others logged."""
    title = "Value from the log"
    explored = [_explored(known.exploration)] if known.exploration is not None else []
    if known.offpolicy is not None:
        told = offpolicy_alone(known.offpolicy)
        return replace(told, figures=[*told.figures, *explored])
    if not known.serves:
        return Part("value", title, missing=NOBODY)
    newest = known.generations[-1].generation if known.generations else 0
    command = COMMANDS[OffPolicy].replace("N", str(newest)) if newest else ""
    return Part(
        "value", title, explored, missing="What a generation would have earned is not measured yet.", command=command
    )


def offpolicy_alone(found: OffPolicy) -> Part:
    """The value of a policy by each estimator, beside what was logged."""
    title = f"What {found.policy} would have earned"
    names = {"ips": "IPS", "snips": "SNIPS", "dr": "doubly robust"}
    rows = [Row("what was logged", found.logged, estimate(found.logged), "ink")]
    rows += [
        Row(names[v.estimator], v.value, estimate(v.value), "accent" if v.estimator == "dr" else "quiet",
            "dot" if v.estimator == "dr" else "ring")
        for v in found.values
    ]  # fmt: skip
    says = found.refused or (found.says[0] if found.says else f"On {count(found.rows)} logged rows.")
    facts = [
        ("logged rows", count(found.rows)),
        ("a reward model alone, as a diagnostic", number(found.model_alone)),
        ("effective sample size", count(found.effective)),
        ("largest weight, of all", share(found.largest_weight, 1)),
        ("choices never possible in the log", share(found.unsupported, 2)),
        ("mean weight, 1 if right", estimate(found.mean_weight)),
    ]
    table = Table(("estimator", "value a slot (interval)"), [*((r.label, r.says) for r in rows), *facts])
    drawing = intervals(rows, axis="reward a slot", what=says, rules=())
    notes = found.says if found.refused else found.says[1:]
    return Part("value", title, [Figure(says, drawing, table)], notes=notes)


def _explored(found: Exploration) -> Figure:
    """What each share of exploration would let a turn see."""
    tried = sorted(found.table, key=lambda e: e.share)
    says = found.says[0] if found.says else f"It takes {share(found.share, 1)} of slots to see {number(found.gain)}."
    points = [Point(e.share, e.detectable, says=f"{share(e.share, 1)} explored") for e in tried]
    drawing = lines(
        [Series("", points)],
        x=Axis("share of slots that explore", say=lambda values: [share(v) for v in values]),
        y=Axis("gain that a turn would show", zero=True),
        what=says,
        height=240,
        rules=((found.gain, "the gain to see"),),
    )
    rows = [(share(e.share, 1), number(e.detectable, 4), number(e.effective, 3), count(e.cost)) for e in tried]
    return Figure(
        says, drawing, Table(("share explored", "gain shown", "evidence a row", "reward it costs"), rows, names=0)
    )
