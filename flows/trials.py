"""Kinds of models that never serve, each trained with several seeds, and what they come to in exams."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flows import retraining
from flows.progress import tell
from flows.retraining import Panel, Sample
from flywheel.learn.matrix import Cache
from flywheel.measure import contrasts
from flywheel.measure.contrasts import Exam, Key, Result
from flywheel.workspace import Workspace

SEEDS = 3  # the fewest whose spread says something of the luck of training
MOST = 8  # for a kind that many others are set against: its luck is in every difference


@dataclass(frozen=True)
class Trial:
    """A kind of model: what it learns from, a sample a seed, how its columns are made, and the exams that it sits.

    `ws` has the config that it is trained by, and each exam's matrix is made by `cache`, as its own is.
    """

    ws: Workspace
    samples: tuple[Sample, ...]
    cache: Cache
    panels: Mapping[str, Panel]


@dataclass(frozen=True)
class Outcome:
    """What every kind of model came to in each of its exams, and the rows that it learned from, by kind."""

    results: dict[Key, Result]
    rows: dict[str, int]


def samples(sample: Sample, kind: int, seeds: int = SEEDS) -> tuple[Sample, ...]:
    """A sample for each seed, its users drawn anew; other users than any other `kind` draws."""
    return tuple(replace(sample, draw=kind * MOST + seed) for seed in range(seeds))


def exams(panels: Mapping[str, Panel]) -> dict[str, Exam]:
    """The rows of exams as contrasts weigh them."""
    made = contrasts.exams([(p.labels, p.users, p.requests) for p in panels.values()])
    return dict(zip(panels, made, strict=True))


def run(trials: Mapping[str, Trial], exams: Mapping[str, Exam], metric: str) -> Outcome:
    """Train every kind of model with each seed, and have it sit its exams.

    Raises:
        DataError: nothing can be learned from so few rows.
    """
    results: dict[Key, Result] = {}
    rows: dict[str, int] = {}
    every = sum(len(trial.samples) for trial in trials.values())
    done = 0
    tell("models", done, every)
    for name, trial in trials.items():
        held = retraining.pool(trial.ws, trial.samples[0].windows, trial.cache)
        fitted = []
        for seed, sample in enumerate(trial.samples):
            first = trial.ws.config.train.seed
            fitted.append(retraining.fit_from(trial.ws, held, sample, seed=first + seed))
            done += 1
            tell("models", done, every)
        rows[name] = round(sum(one.rows for one in fitted) / len(fitted))
        for exam, panel in trial.panels.items():
            scores = [retraining.scores(one, panel) for one in fitted]
            results[name, exam] = contrasts.sit(exams[exam], scores, metric)
    return Outcome(results, rows)
