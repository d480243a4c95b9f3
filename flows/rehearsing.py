"""A changed recipe, walked through all past turns: would it have helped, in every generation?

For each past generation a model is fitted by the new recipe on the windows that it was trained on, and sits the exam
that it sat, beside the generation's own model. Both are scored on the same rows, in the same run. It is no turn:
nothing is registered and no alias moves. The windows are those of today's dataset, so after a correction the training
rows may be others than then.
"""

import json
import math
import tomllib
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from flows import deciding, learning
from flows.progress import tell
from flywheel import config as settings
from flywheel.errors import ConfigError, DataError, FlywheelError
from flywheel.fingerprint import atomic_write
from flywheel.integrations import mlflow_tracking
from flywheel.learn import custom
from flywheel.learn.features import Spec
from flywheel.learn.matrix import Recipe
from flywheel.learn.plan import Plan
from flywheel.records import Generation
from flywheel.workspace import Workspace

SAME = ("contract", "attributes", "windows", "product")  # what the rows are made by; a recipe begins after it


@dataclass(frozen=True)
class Trial:
    """One generation's exam: its own model, and one by the recipe; the difference is positive where that is better."""

    generation: int
    as_of: datetime
    then: float
    with_it: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Rehearsal:
    """All of them, and those that could not be tried with the reason."""

    recipe: str
    metric: str
    trials: list[Trial]
    skipped: list[str]

    @property
    def says(self) -> str:
        """The result in a sentence."""
        better, worse = sum(t.low > 0 for t in self.trials), sum(t.high < 0 for t in self.trials)
        open_ones = len(self.trials) - better - worse
        return (
            f"of {len(self.trials)} generations the recipe is better in {better}, worse in {worse}, "
            f"and in {open_ones} the exam cannot tell"
        )


def rehearse(ws: Workspace, source: Path, span: tuple[datetime | None, datetime | None]) -> Rehearsal:
    """Try the recipe of a folder, a flywheel.toml or a features.py in every past turn of a span. Hold the workspace.

    Raises:
        ConfigError: there is no recipe, or it asks for other rows than the workspace has.
        DataError: there is no generation yet.
    """
    changed = recipe(ws, source)
    start, end = span
    made = [
        one
        for one in mlflow_tracking.generations(deciding.open_store(ws))
        if (start is None or one.as_of >= start) and (end is None or one.as_of <= end)
    ]
    if not made:
        raise DataError("there is no generation to try it beside", next="flywheel backfill --every 28d")
    trials, skipped = [], []
    for done, one in enumerate(made, start=1):
        try:
            trials.append(_trial(ws, changed, one))
        except FlywheelError as error:
            skipped.append(f"generation {one.generation} was left out: {error.what}")
        tell("generations", done, len(made))
    found = Rehearsal(changed.recipe.fingerprint, ws.config.metric, trials, skipped)
    _keep(ws, found)
    return found


def recipe(ws: Workspace, source: Path) -> Workspace:
    """The workspace as it would be by another recipe: a folder with flywheel.toml, features.py or both, or one file."""
    toml, own = (source / settings.FILE, source / custom.FILE) if source.is_dir() else (source, source)
    toml_found, own_found = toml.is_file() and toml.suffix == ".toml", own.is_file() and own.suffix == ".py"
    if not (toml_found or own_found):
        why = f"a folder with {settings.FILE} or {custom.FILE}, or one of such files, would be one"
        raise ConfigError(f"{source} holds no recipe", why=why, next="flywheel backfill --recipe FOLDER")
    values = tomllib.loads(toml.read_text(encoding="utf-8")) if toml_found else {}
    config = settings.parse(values, where=str(toml)) if toml_found else ws.config
    if config.fingerprint(*SAME) != ws.config.fingerprint(*SAME):
        differs = [name for name in SAME if config.fingerprint(name) != ws.config.fingerprint(name)]
        why = f"[{differs[0]}] is not the workspace's: past rows cannot be made by it"
        raise ConfigError("the recipe asks for other rows", where=str(toml), why=why, next=f"copy [{differs[0]}] over")
    mine = custom.from_text(own.read_text(encoding="utf-8"), str(own)) if own_found else ws.recipe.custom
    changed = Workspace(ws.root, config)
    changed.__dict__["recipe"] = Recipe(Spec(config), mine)  # where cached_property would put today's
    return changed


def _trial(ws: Workspace, changed: Workspace, made: Generation) -> Trial:
    planned = _planned(ws, made)
    trained = learning.fit(changed, planned, f"rehearsal-{deciding.turn_id(changed, planned)}")
    own = deciding.scorer(ws, made.generation, planned.exam[0])
    overall = learning.examine(changed, planned, trained, own).evaluation.overall
    gain = overall.difference
    if not math.isfinite(gain.estimate):
        raise DataError("its exam has no such metric")
    return Trial(made.generation, made.as_of, overall.champion, overall.challenger, gain.estimate, gain.low, gain.high)


def _planned(ws: Workspace, made: Generation) -> Plan:
    """The windows that a generation was trained and examined on, as they are today."""
    ledger = ws.ledger()
    spans = made.trained_windows, made.exam_windows
    train, exam = ([x for x in ledger if x.rows and first <= x.window <= last] for first, last in spans)
    if not train or not exam:
        raise DataError("its windows are not in the dataset any more")
    return Plan(
        tuple(line.window for line in train),
        tuple(line.window for line in exam),
        train_rows=sum(line.rows for line in train),
        exam_rows=sum(line.rows for line in exam),
        fingerprint=" ".join([made.turn_id, *(line.events_sha256 for line in (*train, *exam))]),
    )


def _keep(ws: Workspace, found: Rehearsal) -> None:
    path = ws.cache / "evidence" / f"rehearsal-{found.recipe}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(asdict(found) | {"says": found.says}, default=str, indent=1)
    atomic_write(path, lambda at: at.write_text(told))
