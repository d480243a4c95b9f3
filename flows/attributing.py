"""`flywheel compare A B --why`: what differs between two generations, exchanged cause by cause and trained again.

Generation A learned from fewer rows, ending earlier; so its kind of model is also trained on as many rows out of B's
span ("fresher but not more"), and both kinds on fewer. As many rows as B has, ending where A's do, never existed: what
they would have come to is extrapolated, from how the difference that fresher rows make changes with their number. No
model is examined on a time before its data ends, so none has seen a row of its exam, or of what came after.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from flows import deciding, evidence, retraining, trials, why_words
from flows.lock import locked
from flows.progress import listening
from flows.retraining import Panel, Sample
from flows.run import Watch
from flows.trials import Trial
from flywheel import config as settings
from flywheel.errors import ConfigError, DataError
from flywheel.evidence import Estimate, Part, Why
from flywheel.integrations import mlflow_tracking
from flywheel.learn.matrix import Recipe
from flywheel.measure import causes, contrasts
from flywheel.measure.causes import EXAM, FRESHER, MORE, RECIPE, Cell
from flywheel.records import Generation
from flywheel.workspace import Workspace

SMALLER = (0.25, 0.5)  # of the older generation's rows: sizes at which the worth of freshness is looked at as well
LARGE = 0.1  # an interaction is shown from this share of all parts on


@dataclass(frozen=True)
class Side:
    """One of the two generations, and what it was made from: config, recipe, windows and rows of today's dataset."""

    made: Generation
    ws: Workspace
    recipe: Recipe
    train: tuple[str, ...]
    exam: tuple[str, ...]
    rows: int

    @property
    def trained_by(self) -> tuple[str, str]:
        """What tells recipes apart: the columns, and how they are trained on."""
        return self.recipe.fingerprint, self.ws.config.train.model_copy(update={"seed": 0}).model_dump_json()


@dataclass(frozen=True)
class Split:
    """An older and a newer generation, and what can be exchanged between them."""

    older: Side
    newer: Side

    @cached_property
    def causes(self) -> tuple[str, ...]:
        """In what the two differ."""
        older, newer = self.older, self.newer
        differs = {
            EXAM: older.exam != newer.exam,
            FRESHER: older.train[-1] != newer.train[-1],
            MORE: older.train[-1] != newer.train[-1] and newer.rows > older.rows,
            RECIPE: older.trained_by != newer.trained_by,
        }
        return tuple(cause for cause, does in differs.items() if does)

    @cached_property
    def sizes(self) -> list[float]:
        """The numbers of rows at which older and fresher rows are compared."""
        least = 2 * max(side.ws.config.train.min_rows for side in (self.older, self.newer))
        fewer = [share * self.older.rows for share in SMALLER] if MORE in self.causes else []
        return [*(size for size in fewer if size >= least), float(self.older.rows)]

    def recipes(self) -> Iterator[Side]:
        """Whose recipes models are trained by."""
        yield self.newer
        if RECIPE in self.causes:
            yield self.older

    def name(self, rows: float, end: Side, recipe: Side) -> str:
        """What a kind of model is called."""
        recipe = recipe if RECIPE in self.causes else self.newer
        return f"{rows:.0f} rows to {end.train[-1]} by the recipe of {recipe.made.generation}"

    def value(self, cell: Cell) -> dict[tuple[str, str], float]:
        """The quality of a cell as a weighted sum of results."""
        recipe = self.newer if RECIPE in cell else self.older
        exam = "newer" if EXAM in cell or EXAM not in self.causes else "older"
        end = self.newer if FRESHER in cell else self.older
        if MORE not in cell or FRESHER in cell:
            rows = self.newer.rows if MORE in cell else self.older.rows
            return {(self.name(rows, end, recipe), exam): 1.0}
        total = {(self.name(self.newer.rows, self.newer, recipe), "newer"): 1.0}
        weights = causes.extrapolated(self.sizes, self.newer.rows)
        for size, weight in zip(self.sizes, weights, strict=True):
            fresh, old = (self.name(size, side, recipe) for side in (self.newer, self.older))
            total[fresh, "newer"] = -weight
            if exam == "newer":
                total[old, "newer"] = weight
            else:  # with what the exam costs added back, the newer one drops out
                total[old, "older"] = weight
        return total


def why(ws: Workspace, a: int, b: int, *, on_progress: Watch) -> Why:
    """Split the difference between two generations into parts that sum to it, and keep what was found.

    Raises:
        RegistryError: there is no such generation.
        DataError: their rows are gone, or they cannot be compared.
        BusyError: another process holds the workspace.
    """
    with locked(ws.cache, f"compare {a} {b} --why"), on_progress() as listener, listening(listener):
        one, other = (_side(ws, number) for number in (a, b))
        _check(ws, one, other)
        newer_first = one.train[-1] > other.train[-1]
        split = Split(other, one) if newer_first else Split(one, other)
        found = _found(split, ws.config.metric)
        found = _turned(found) if newer_first else found
        found = replace(found, says=why_words.says(found, split.older, split.newer, len(split.sizes), trials.SEEDS))
        evidence.keep(ws, found)
    return found


def _found(split: Split, metric: str) -> Why:
    if not split.causes:
        a, b = split.older.made.generation, split.newer.made.generation
        raise DataError(
            f"generations {a} and {b} have the same rows, recipe and exam",
            why="what tells them apart is chance, and chance has no parts",
            next="flywheel generations",
        )
    panels = {
        recipe.made.generation: {
            name: retraining.panel(recipe.ws, side.exam, recipe.recipe)
            for name, side in (("older", split.older), ("newer", split.newer))
        }
        for recipe in split.recipes()
    }
    exams = trials.exams(panels[split.newer.made.generation])
    outcome = trials.run(_trials(split, panels), exams, metric)
    values = {cell: split.value(cell) for cell in causes.cells(split.causes)}
    weigh = partial(contrasts.contrast, results=outcome.results, exams=exams, metric=metric)
    ends = {frozenset(split.causes): 1.0, frozenset[str](): -1.0}
    parts = [Part(name, weigh(causes.mixed(of, values))) for name, of in causes.parts(split.causes).items()]
    both = [
        Part(" × ".join(pair), weigh(causes.mixed(of, values)))
        for pair, of in causes.interactions(split.causes).items()
    ]
    return Why(
        a=split.older.made.generation,
        b=split.newer.made.generation,
        metric=metric,
        total=weigh(causes.mixed(ends, values)),
        parts=tuple(sorted(parts, key=lambda part: -abs(part.effect.value))),
        interactions=tuple(part for part in both if _large(part.effect, parts)),
        says=(),
    )


def _trials(split: Split, panels: dict[int, dict[str, Panel]]) -> dict[str, Trial]:
    """Every kind of model that some cell needs, with the exams that it may sit."""
    kinds = [(size, split.older) for size in split.sizes]
    if FRESHER in split.causes:
        kinds += [(size, split.newer) for size in split.sizes]
    if MORE in split.causes:
        kinds.append((split.newer.rows, split.newer))
    made: dict[str, Trial] = {}
    for recipe in split.recipes():
        cache = recipe.ws.matrices(recipe.recipe)
        sat = panels[recipe.made.generation]
        for rows, end in kinds:
            may = sat if end is split.older else {"newer": sat["newer"]}
            drawn = trials.samples(Sample(end.train, users=min(1.0, rows / end.rows)), len(made))
            made[split.name(rows, end, recipe)] = Trial(recipe.ws, drawn, cache, may)
    return made


def _side(ws: Workspace, number: int) -> Side:
    made = deciding.generation(ws, number)
    lines = {line.window: line for line in ws.ledger() if line.rows}
    train, exam = (
        tuple(name for name in lines if first <= name <= last)
        for first, last in (made.trained_windows, made.exam_windows)
    )
    if {*made.trained_windows, *made.exam_windows} - set(lines):
        first, last = made.trained_windows[0], made.exam_windows[1]
        raise DataError(
            f"the rows of generation {number} are not all here",
            where=str(ws.data),
            why=f"it learned and was examined from {first} to {last}",
            next=f"dvc pull, or flywheel rebuild {number}, which brings its rows back",
        )
    told = settings.parse(json.loads(mlflow_tracking.artifact(deciding.open_store(ws), made, deciding.CONFIG)))
    rows = sum(lines[name].rows for name in train)
    return Side(made, Workspace(ws.root, told), deciding.recipe_of(ws, made), train, exam, rows)


def _check(ws: Workspace, one: Side, other: Side) -> None:
    if one.made.generation == other.made.generation:
        raise ConfigError(f"{one.made.generation} is compared with itself", next="flywheel generations")
    for side in (one, other):
        if side.ws.config.fingerprint("contract", "windows") != ws.config.fingerprint("contract", "windows"):
            raise DataError(
                f"generation {side.made.generation} was made under another contract",
                why="its rows or windows were cut otherwise than today's, so nothing of both can be exchanged",
                next=f"flywheel compare {one.made.generation} {other.made.generation}",
            )


def _turned(found: Why) -> Why:
    """The same difference seen from the other side."""

    def less(part: Part) -> Part:
        return Part(part.name, _less(part.effect))

    return replace(
        found,
        a=found.b,
        b=found.a,
        total=_less(found.total),
        parts=tuple(map(less, found.parts)),
        interactions=tuple(map(less, found.interactions)),
    )


def _less(effect: Estimate) -> Estimate:
    return Estimate(-effect.value, -effect.high, -effect.low)


def _large(effect: Estimate, parts: Sequence[Part]) -> bool:
    all_parts = sum(abs(part.effect.value) for part in parts)
    return not effect.low <= 0 <= effect.high and abs(effect.value) >= LARGE * all_parts
