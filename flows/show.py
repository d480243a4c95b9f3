"""What a person sees in a terminal, as rich renderables; the command line prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.backfill import Step
    from flows.inspect import Ahead, Closed, Compared, Explained
    from flows.standing import Status
    from flows.turn import Turned
    from flywheel.infer import Proposal
    from flywheel.simulator.society import Figures
    from flywheel.sources.inbox_reading import Account
    from flywheel.watched import Watched
from flywheel import trial
from flywheel.records import Generation, LedgerLine, Move, Verdict
from flywheel.watched import HARM

STATUS = {
    **dict.fromkeys(("promoted", "passed", "canary"), "green"),
    **dict.fromkeys(("kept", "waiting"), "yellow"),
    **dict.fromkeys(("rejected", "refused"), "red"),
}
SIGNAL = {"well": "green", "harm": "red", "off": "yellow", "not enough evidence": "dim"}
COLOURS = {"promote": "green", "keep": "yellow", "reject": "red"}


def table(*columns: str, rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def proposal(found: Proposal) -> RenderableType:
    """What each column was taken for, five rows as understood, and what to know."""
    mapping = table(
        "column", "role", "type", "because", rows=[(r.column, r.role, r.type, r.why) for r in found.mapping]
    )
    keys = list(found.examples[0]) if found.examples else []
    examples = table(*keys, rows=[[Text(_short(e[k])) for k in keys] for e in found.examples])
    notes = [Text(f"note: {warning}", style="yellow") for warning in found.warnings]
    return Group(mapping, Text(), examples, *([Text(), *notes] if notes else []))


def generations(made: Sequence[Generation], metric: str) -> RenderableType:
    """One line a generation."""
    rows = [
        (
            str(g.generation),
            f"{g.as_of:%Y-%m-%d}",
            f"{g.train_rows:,}",
            f"{g.train_users:,}",
            f"{g.exam_rows:,}",
            number(g.metrics.get(metric)),
            gain(g),
            Text(g.verdict, style=COLOURS[g.verdict]),
            g.alias,
        )
        for g in made
    ]
    names = ("generation", "as of", "train rows", "users", "exam rows", metric, "gain (interval)", "verdict", "alias")
    return table(*names, rows=rows, right=("generation", "train rows", "users", "exam rows", metric))


def gain(g: Generation) -> str:
    """The difference to whom it was examined against, with its interval."""
    if g.difference is None:
        return "—"
    against = f"generation {g.examined_against}" if g.examined_against else "the baseline"
    d = g.difference
    return f"{d.estimate:+.4f} ({d.low:+.4f} to {d.high:+.4f}) on {against}"


def verdict(said: Verdict) -> RenderableType:
    """A verdict with all its findings."""
    findings = table("finding", "", "what was found", rows=[(f.name, f.status, f.detail) for f in said.findings])
    return Group(Text(f"{said.decision}: {said.reason}", style=COLOURS[said.decision]), Text(), findings)


def ledger(lines: Sequence[LedgerLine]) -> RenderableType:
    """One line a closed window."""
    fields = ("collected", "rows", "duplicate", "quarantined", "unlabelled", "late")
    rows = [(line.window, *(f"{getattr(line, field):,}" for field in fields)) for line in lines]
    return table("window", *fields, rows=rows, right=fields)


def number(value: float | None) -> str:
    """A metric to four places."""
    return "—" if value is None else f"{value:.4f}"


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def ahead(found: Ahead) -> RenderableType:
    """What a turn would do."""
    windows = f"{found.windows[0]} to {found.windows[-1]}" if found.windows else "none"
    lines = [
        ("would close", f"{len(found.windows):,} windows ({windows}) with {found.events:,} events of the inbox"),
        ("would examine against", named(found.champion)),
    ]
    return table("", "", rows=lines)


def turned(came_to: Turned, closed: Closed) -> RenderableType:
    """What a turn closed, what it kept out and why, and what was decided."""
    lines = [Text(f"closed {closed.windows:,} windows: {closed.totals}")] if closed.windows else []
    lines += [Text(f"  quarantined {count:,}: {reason}", style="yellow") for reason, count in closed.reasons.items()]
    number = f"generation {came_to.generation} " if came_to.generation and came_to.status != "skipped" else ""
    lines.append(Text(f"{number}{came_to.status}: {came_to.reason}", style=STATUS.get(came_to.status, "")))
    return Group(*lines)


def steps(done: Sequence[Step]) -> RenderableType:
    """One line a step of a backfill."""
    rows = [
        (f"{s.as_of:%Y-%m-%d}", Text(s.status, style=STATUS.get(s.status, "dim")), str(s.generation or ""), s.reason)
        for s in done
    ]
    return table("as of", "came to", "generation", "because", rows=rows, right=("generation",))


def status(found: Status) -> RenderableType:
    """What is going on, in about ten lines."""
    waiting = f"{found.still_open:,} events in open windows, {found.waiting_rejected:,} refused rows"
    champion = f"{named(found.champion)}, before it {named(found.previous)}"
    made = f"{found.generations:,}, and {found.unfinished:,} attempts that came to nothing"
    lines = [
        ("product", found.product),
        ("now", doing(found)),
        ("last turn", came_to(found.last_turn) if found.last_turn else "—"),
        ("by itself", by_itself(found)),
        *([("registry", Text(found.registry, style="red"))] if found.registry else [("champion", champion)]),
        *([("canary", tried(found))] if found.canary or found.waiting else []),
        *([("last move", moved(move)) for move in found.moves[-1:]]),
        *([("last look", looked(found.watched))] if found.watched else []),
        ("generations", f"{made}; {grew(found)}"),
        ("windows", f"{found.windows:,} closed, the newest {found.newest_window or '—'}"),
        ("dataset", str(found.totals)),
        ("inbox", waiting),
        *([("outcomes", accounted(found.outcomes))] if found.outcomes else []),
        *([("outcomes", Text(found.inbox, style="red"))] if found.inbox else []),
        *([("serving", served(found.snapshot))] if found.snapshot else []),
    ]
    return table("", "", rows=lines)


def tried(found: Status) -> str:
    """Who passed the gate and is not champion yet: it waits for a person, or serves a share of people first."""
    said = [trial.shown(found.trial.canary)] if found.canary and found.trial.canary else []
    if found.canary:
        return f"{named(found.canary)}: {'; '.join(said)}" + (
            f"; {named(found.waiting)} waits" if found.waiting else ""
        )
    asked = found.trial.asked
    return f"{named(found.waiting)}: {trial.how_to(found.waiting, asked + found.patience) if asked else 'it waits'}"


def looked(found: Watched) -> Text:
    """What the monitor said last, and when."""
    said = f"{found.as_of:%Y-%m-%d %H:%M}Z {'; '.join(found.says)}"
    return Text(said, style="red" if found.harm else "")


def watched(found: Watched) -> RenderableType:
    """What the monitor saw, a line for each thing that it looked at, and what came of it."""
    rows = [(one.name, Text(one.status, style=SIGNAL[one.status]), one.says) for one in found.signals]
    return Group(*(Text(line, style="red" if found.harm else "") for line in found.says), table("", "", "", rows=rows))


def doing(found: Status) -> str | Text:
    """What runs, or was killed, or that nothing does."""
    if found.killed:
        return Text(f"{found.killed}, was killed; flywheel turn goes on from where it was", style="yellow")
    return found.now or "nothing runs"


def came_to(line: Mapping[str, str]) -> str:
    """A line of the journal that says how a run ended."""
    generation = f"generation {line['generation']} " if line.get("generation") and line["step"] != "skipped" else ""
    return f"{line['time'][:16].replace('T', ' ')}Z {generation}{line['step']}: {line.get('reason', '')}"


def by_itself(found: Status) -> str:
    """Whether `flywheel up` runs, and when the wheel turns next."""
    if found.up is None:
        return "flywheel up does not run"
    ill = [name for name, part in found.up.get("parts", {}).items() if not part["healthy"]]
    well = f"not answering: {', '.join(ill)}" if ill else "all answer"
    next_turn = f"next turn {found.next_turn:%Y-%m-%d %H:%M}Z" if found.next_turn else "turns only when asked"
    return f"flywheel up, process {found.up.get('pid')} since {found.up.get('since')}; {well}; {next_turn}"


def grew(found: Status) -> str:
    """How much more there is to learn from than at the last generation."""
    if found.growth is None:
        return "rows enough for the first one"
    return f"rows {found.growth:+.0%} since the last" + (f", turns at {found.asks_at:+.0%}" if found.asks_at else "")


def served(snapshot: Mapping[str, Any]) -> str:
    """What is served from, and since when."""
    return f"{named(snapshot['generation'])}, written {snapshot['written']:%Y-%m-%d %H:%M:%S}Z"


def accounted(found: Account) -> str:
    """What became of every outcome, the largest leak first."""
    settled = found.settled
    leaks = {name: getattr(settled, name) for name in ("duplicate", "quarantined", "orphaned", "late")}
    lost = ", ".join(f"{count:,} {name}" for name, count in sorted(leaks.items(), key=lambda leak: -leak[1]) if count)
    waiting = (
        f"; waiting {found.parked:,}, and {found.decisions:,} decisions" if found.parked or found.decisions else ""
    )
    return f"{settled.joined:,} of {found.arrived:,} joined; lost {lost or 'nothing'}{waiting}"


def explained(told: Explained) -> RenderableType:
    """Where a generation came from and why it was decided as it was."""
    g = told.generation
    facts = [
        ("as of", f"{g.as_of:%Y-%m-%d %H:%M}Z, asked for by {g.trigger}"),
        (
            "rows",
            f"{g.train_rows:,} of {g.train_users:,} users, windows {' to '.join(g.trained_windows)}",
        ),
        (
            "exam",
            f"{g.exam_rows:,} rows, windows {' to '.join(g.exam_windows)}, against {named(g.examined_against)}",
        ),
        ("data", f"data.dvc {g.dataset}"),
        ("code", g.code or "not in a git repository"),
        ("recipe", f"{g.tags.get('recipe', '—')}, config {g.config}, seed {g.seed}, {g.tags.get('rounds', '—')} trees"),
        ("learned from", ", ".join(list(told.importance)[:5])),
        *([("answer", trial.said(told.trial.answer))] if told.trial.answer else []),
        *([("canary", trial.shown(told.trial.canary))] if told.trial.canary else []),
        *(("moved", moved(move)) for move in told.moves),
        *([("did harm", g.tags[HARM])] if HARM in g.tags else []),
    ]
    decision = Verdict(g.verdict, g.reason, tuple(told.findings))
    return Group(Text(f"generation {g.generation}", style="bold"), table("", "", rows=facts), Text(), verdict(decision))


def compared(told: Compared) -> RenderableType:
    """What differs between two generations."""
    rows = [(key, _value(a), _value(b)) for key, (a, b) in told.differences.items()]
    return table("", f"generation {told.a}", f"generation {told.b}", rows=rows)


def worlds(weeks: Mapping[str, Sequence[Figures]]) -> RenderableType:
    """The worlds side by side, one line a week: people at its end, rows, and the share of them watched."""
    made = table("week", right=("week",), rows=[])
    for name in weeks:
        for figure in ("users", "rows", "watched"):
            made.add_column(f"{name}\n{figure}" if figure == "users" else f"\n{figure}", justify="right")
    for week in range(len(next(iter(weeks.values())))):
        lived = [weeks[name][week] for name in weeks]
        cells = [(f"{w.active:,}", f"{w.rows:,}", f"{w.watch_rate:.1%}") for w in lived]
        made.add_row(str(week + 1), *(cell for three in cells for cell in three))
    return made


def named(generation: int) -> str:
    """A generation by its number; 0 is the baseline."""
    return f"generation {generation}" if generation else "the baseline"


def moved(move: Move) -> str:
    """A move of the champion in words."""
    what = f"{move.action} by {move.who}: {named(move.before)} → {named(move.after)}"
    return f"{move.when:%Y-%m-%d %H:%M}Z {what}, {move.why}"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else "—" if value is None else str(value)
