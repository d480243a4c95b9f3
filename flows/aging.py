"""`flywheel stale`: how fast models and rows age, and whether models are better without the oldest rows.

All models sit the newest exam. Those whose rows end earlier learn from as many as each other, so that age is not taken
for number; those that learn from the newest rows alone are set against one that learns from all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np

from flows import evidence, retraining, trials
from flows.lock import locked
from flows.progress import listening
from flows.retraining import Sample
from flows.run import Watch
from flows.trials import Trial
from flywheel.errors import DataError
from flywheel.evidence import Aged, Estimate, Kept, Staleness
from flywheel.learn.plan import Plan, plan
from flywheel.measure import contrasts, staleness
from flywheel.measure.staleness import Aging
from flywheel.records import LedgerLine
from flywheel.workspace import Workspace

ENDS = (0.85, 0.7, 0.55, 0.4)  # of all rows: those up to where a model's end
NEWEST = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125)  # of all rows: those that are kept
FEWER = (0.5, 0.25, 0.125)  # of all rows: drawn by user, so that number is not taken for age
EXAM = "newest"
ALL = "all rows"
FEWEST = 3  # windows to learn from, below which there is no old and new


@dataclass(frozen=True)
class History:
    """The training windows that have rows, oldest first, and the days from each to the exam, middle to middle."""

    ws: Workspace
    lines: tuple[LedgerLine, ...]
    days: tuple[float, ...]

    @property
    def rows(self) -> int:
        """All training rows."""
        return sum(line.rows for line in self.lines)

    def upto(self, share: float) -> int:
        """The fewest of the oldest windows that hold a share of all rows."""
        return int(np.searchsorted(np.cumsum([line.rows for line in self.lines]), share * self.rows)) + 1

    def newest(self, share: float) -> int:
        """The fewest of the newest windows that hold a share of all rows."""
        return int(np.searchsorted(np.cumsum([line.rows for line in self.lines[::-1]]), share * self.rows)) + 1

    def span(self, windows: int) -> float:
        """The days of event time from the begin of so many of the newest windows to the end of the last."""
        return (self.lines[-1].end - self.lines[-windows].start) / timedelta(days=1)

    def sample(self, lines: Sequence[LedgerLine], rows: float) -> Sample:
        """About so many rows of these windows, drawn by user."""
        held = sum(line.rows for line in lines)
        return Sample(tuple(line.window for line in lines), users=min(1.0, rows / held))

    def aging(self, sample: Sample) -> Aging:
        """The rows of a sample by age."""
        chosen = set(sample.windows)
        found = [(d, line.rows * sample.users) for d, line in zip(self.days, self.lines, strict=True)
                 if line.window in chosen]  # fmt: skip
        days, rows = np.array(found).T
        return Aging(days, rows)


def stale(ws: Workspace, as_of: datetime, *, on_progress: Watch) -> Staleness:
    """Measure how data ages as of an instant, and keep what was found.

    Raises:
        DataError: there is no exam yet, or too little history to tell old from new.
        BusyError: another process holds the workspace.
    """
    with locked(ws.cache, "stale"), on_progress() as listener, listening(listener):
        planned = plan(ws.ledger(), ws.config, as_of)
        found = _found(_history(ws, planned), planned, as_of)
        evidence.keep(ws, found)
    return found


def _found(history: History, planned: Plan, as_of: datetime) -> Staleness:
    ws, metric = history.ws, history.ws.config.metric
    samples = _samples(history)
    fresh = f"ends {len(history.lines)}"
    panels = {EXAM: retraining.panel(ws, planned.exam)}
    kinds = {
        name: Trial(
            ws,
            trials.samples(sample, place, trials.MOST if name in (ALL, fresh) else trials.SEEDS),
            ws.matrices(),
            panels,
        )
        for place, (name, sample) in enumerate(samples.items())
    }
    exams = trials.exams(panels)
    results, rows = (outcome := trials.run(kinds, exams, metric)).results, outcome.rows
    weigh = partial(contrasts.contrast, results=results, exams=exams, metric=metric)
    kept = {history.span(n): f"newest {n}" for n in _counts(history)}
    ends = [name for name in samples if name.startswith("ends ")]
    ages = [
        Aged(_older(history, samples[name]), weigh({(ends[0], EXAM): 1.0, (name, EXAM): -1.0})) for name in ends[1:]
    ]
    windows = [
        Kept(days, rows[name], weigh({(name, EXAM): 1.0, (ALL, EXAM): -1.0})) for days, name in sorted(kept.items())
    ]
    together = 1 - 0.05 / max(1, len(kept))  # Bonferroni: whichever is taken, its interval holds
    surely = {days: weigh({(name, EXAM): 1.0, (ALL, EXAM): -1.0}, confidence=together) for days, name in kept.items()}
    life = staleness.half_life(
        [history.aging(sample) for sample in samples.values()],
        np.array([results[name, EXAM].quality for name in samples]),
        contrasts.covariance(list(samples), EXAM, results, exams[EXAM]),
    )
    keep = staleness.shortened(surely, ws.config.gate.margin)
    told = _says(history, metric, ages, windows, life, keep)
    return Staleness(metric, as_of, tuple(ages), tuple(windows), life, keep, told)


def _history(ws: Workspace, planned: Plan) -> History:
    lines = {line.window: line for line in ws.ledger()}
    train = tuple(lines[name] for name in planned.train)
    if len(train) < FEWEST or planned.train_rows * min(NEWEST) < ws.config.train.min_rows:
        raise DataError(
            f"{planned.train_rows:,} rows in {len(train)} windows are too little to tell old from new",
            why=f"it takes {FEWEST} windows, and {ws.config.train.min_rows / min(NEWEST):,.0f} rows",
            next="flywheel turn, as data comes in",
        )
    middle = lines[planned.exam[0]].start + (lines[planned.exam[-1]].end - lines[planned.exam[0]].start) / 2
    days = [(middle - line.start - (line.end - line.start) / 2) / timedelta(days=1) for line in train]
    return History(ws, train, tuple(days))


def _samples(history: History) -> dict[str, Sample]:
    """What every kind of model learns from, by name: all; fewer; as many that end earlier; and the newest alone."""
    lines = history.lines
    ends = list(dict.fromkeys(history.upto(share) for share in ENDS))
    equal = sum(line.rows for line in lines[: ends[-1]])
    found = {ALL: history.sample(lines, history.rows)}
    found |= {f"fewer {share}": history.sample(lines, share * history.rows) for share in FEWER}
    found |= {f"ends {n}": history.sample(lines[:n], equal) for n in dict.fromkeys([len(lines), *ends])}
    return found | {f"newest {n}": history.sample(lines[-n:], history.rows) for n in _counts(history)}


def _counts(history: History) -> list[int]:
    """The numbers of newest windows that are tried alone."""
    counts = dict.fromkeys(history.newest(share) for share in NEWEST)
    return [n for n in counts if n < len(history.lines)]


def _older(history: History, sample: Sample) -> float:
    ends = next(line.end for line in history.lines if line.window == sample.windows[-1])
    return (history.lines[-1].end - ends) / timedelta(days=1)


def _says(
    history: History,
    metric: str,
    ages: Sequence[Aged],
    windows: Sequence[Kept],
    life: Estimate | None,
    keep: float | None,
) -> tuple[str, ...]:
    return (_aging(metric, ages), _halving(life), _keeping(history, metric, windows, keep))


def _aging(metric: str, ages: Sequence[Aged]) -> str:
    if not ages:
        return "The windows are too few to say how models age."
    oldest = max(ages, key=lambda one: one.days)
    loss = oldest.loss
    change = "loses" if loss.value >= 0 else "gains"
    unclear = ", which may be none" if loss.low <= 0 <= loss.high else ""
    return (
        f"At equal rows a model that is {oldest.days:.0f} days older {change} {abs(loss.value):.4f} {metric} "
        f"({loss.low:+.4f} to {loss.high:+.4f} lost){unclear}."
    )


def _halving(life: Estimate | None) -> str:
    if life is None:
        return "No aging of rows is seen: an old row is worth as much as a new one, as far as these models tell."
    return f"A row is worth half of a fresh one after {life.value:.0f} days ({life.low:.0f} to {life.high:.0f})."


def _keeping(history: History, metric: str, windows: Sequence[Kept], keep: float | None) -> str:
    every = history.span(len(history.lines))
    if keep is None:
        return (
            f"Keep all {every:.0f} days: learning from the newest rows alone is not better by more than the gate's "
            f"margin of {history.ws.config.gate.margin:g}."
        )
    best = next(one for one in windows if one.days == keep)
    return (
        f"Old rows hurt: the newest {keep:.0f} days alone, {best.rows:,} of {history.rows:,} rows, are better by "
        f"{best.gain.value:.4f} {metric} ({best.gain.low:.4f} to {best.gain.high:.4f}) than all {every:.0f} days. "
        f'Shorten by {every - keep:.0f} days: newest = "{keep:.0f}d" in [train].'
    )
