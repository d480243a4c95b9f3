"""A fitted challenger becomes a recorded generation, and, if the gate lets it, the champion."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import tomlkit

from flows import learning
from flows.failpoints import failpoint
from flows.learning import Examined, Scorer
from flywheel import config as settings
from flywheel.errors import DataError, RegistryError
from flywheel.integrations import (
    dvc_data,
    mlflow_curve,
    mlflow_evidence,
    mlflow_model,
    mlflow_registry,
    mlflow_store,
    mlflow_tracking,
)
from flywheel.integrations.mlflow_store import Store
from flywheel.learn import custom, gate, history
from flywheel.learn.features import Spec
from flywheel.learn.history import History
from flywheel.learn.matrix import Recipe
from flywheel.learn.plan import Plan
from flywheel.learn.train import Columns, Trained
from flywheel.records import Finding, Generation, Verdict
from flywheel.workspace import Workspace

OWN_FEATURES = "features.py"
CONFIG = "config.json"


@dataclass(frozen=True)
class Turn:
    """What a generation is made for: whom it is examined against (0 is the baseline), on which data, and why now."""

    turn_id: str
    as_of: datetime
    trigger: str
    dataset: str
    champion: int


def open_store(ws: Workspace) -> Store:
    """The workspace's MLflow store.

    Raises:
        RegistryError: it is missing or cannot answer.
    """
    return mlflow_store.open(ws.root, ws.config.product.name, ws.config.registry)


def turn_id(ws: Workspace, planned: Plan) -> str:
    """What tells one turn from another: the rows, the config and the code that its generation is made from."""
    return hashlib.sha256(f"{planned.fingerprint} {ws.recipe.fingerprint}".encode()).hexdigest()[:12]


def find(ws: Workspace, turn: str) -> Generation | None:
    """The generation of a turn, if it was recorded; one that was recorded and not registered is registered now."""
    store = open_store(ws)
    run_id = mlflow_tracking.finished(store, turn)
    if run_id is None:
        return None
    number = mlflow_registry.register(store, run_id)
    state = mlflow_registry.state(store)
    if number == max(state.generations) != state.challenger:
        mlflow_registry.point(store, "challenger", number)
    made = generation(ws, number)
    mlflow_curve.extend(store, made)
    return made


def generation(ws: Workspace, number: int) -> Generation:
    """A generation by its number.

    Raises:
        RegistryError: there is none of that number.
    """
    made = {g.generation: g for g in mlflow_tracking.generations(open_store(ws))}
    if number not in made:
        held = ", ".join(map(str, sorted(made))) or "none"
        raise RegistryError(f"there is no generation {number}", why=f"there are: {held}", next="flywheel generations")
    return made[number]


def champion(ws: Workspace) -> int:
    """Who serves, by the registry; 0 is the baseline."""
    return mlflow_registry.state(open_store(ws)).champion


def canary(ws: Workspace) -> int:
    """Who serves a share of people before becoming champion; 0 is nobody, and so is the champion."""
    state = mlflow_registry.state(open_store(ws))
    return 0 if state.canary == state.champion else state.canary


def rehearsed_champion(ws: Workspace, as_of: datetime) -> int:
    """Who would have served at `as_of`, had every verdict of the backfill been followed; 0 is the baseline."""
    passed = [
        g
        for g in mlflow_tracking.generations(open_store(ws))
        if g.trigger == "backfill" and g.verdict == "promote" and g.as_of < as_of
    ]
    return max(passed, key=lambda g: g.as_of).generation if passed else 0


Worth = Callable[[Workspace, Scorer, Sequence[str]], Finding | None]


def record(ws: Workspace, planned: Plan, turn: Turn, worth: Worth) -> int:
    """Examine the challenger of a turn, decide, and record all of it as one generation; its number.

    `worth` finds what the challenger would have earned in the exam's windows; None where nobody can tell.
    """
    store = open_store(ws)
    trained = learning.fit(ws, planned, turn.turn_id)  # taken up where it is finished
    ancestor = ancestor_of(ws, turn.champion)
    first = planned.exam[0]
    sits = None if ancestor == turn.champion else partial(scorer, ws, ancestor, first)
    examined = learning.examine(ws, planned, trained, scorer(ws, turn.champion, first), sits)
    failpoint("record:before")
    attempt = mlflow_tracking.begin(store, turn.turn_id, started=datetime.now(UTC))
    with mlflow_tracking.failing(store, attempt.run_id):
        parts = mlflow_model.Parts(
            trained.model, trained.columns.names, trained.columns.types, trained.columns.vocabulary, examined.golden
        )
        model_id, stored = mlflow_model.keep(store, attempt.run_id, parts)
        failpoint("record:mid")
        earlier = [one for one in mlflow_tracking.generations(store) if one.as_of <= turn.as_of]
        known = History(
            ancestor,
            examined.against,
            examined.absent,
            history.exams(earlier),
            history.uses(earlier, planned.exam, (ws.config.fingerprint(), ws.recipe.fingerprint)),
        )
        earned = worth(ws, Scorer(-1, ws.recipe, trained.columns, trained.model), planned.exam)
        verdict = gate.decide(
            examined.evaluation,
            ws.config.gate,
            kind=ws.config.contract.kind,
            servable=mlflow_model.servable(stored, examined.golden_scores),
            champion_generation=turn.champion,
            history=known,
            beside=() if earned is None else (earned,),
        )
        compared = examined.evaluation.overall if ancestor == turn.champion else examined.against
        made = _generation(ws, planned, turn, trained, examined, verdict, attempt.run_id)
        made = replace(made, tags=made.tags | history.tags(compared, ancestor))
        mlflow_tracking.log(store, made, _evidence(ws, trained, examined, verdict), parts, model_id)
    failpoint("register:before")
    number = mlflow_registry.register(store, attempt.run_id)
    failpoint("record:after")
    mlflow_curve.extend(store, replace(made, generation=number))
    mlflow_registry.point(store, "challenger", number)
    return number


def ancestor_of(ws: Workspace, number: int) -> int:
    """The ancestor while this generation is champion, as its own run tells it; 0 is the baseline."""
    return history.ancestor(generation(ws, number) if number else None)


def scorer(ws: Workspace, number: int, first: str) -> Scorer:
    """A generation as an exam needs it that begins with window `first`, with the recipe that it was trained by.

    Raises:
        DataError: it was fitted on windows that the exam examines.
        RegistryError: there is no such generation any more.
        IntegrityError: its model is not what was written.
    """
    if number == 0:
        return Scorer(0, ws.recipe)
    store = open_store(ws)
    told = generation(ws, number)
    grid = ws.config.windows.grid
    if grid.closes_at(grid.parse(told.trained_windows[1])) > grid.start(grid.parse(first)):
        raise DataError(
            f"generation {number} cannot sit this exam",
            why=f"it was fitted on windows up to {told.trained_windows[1]}, and the exam begins with {first}",
            next="flywheel turn with a later --as-of",
        )
    stored = mlflow_registry.load(store, number)
    columns = Columns(stored.parts.features, stored.parts.types, dict(stored.parts.vocabulary))
    return Scorer(number, recipe_of(ws, told), columns, stored.parts.model)


def recipe_of(ws: Workspace, made: Generation) -> Recipe:
    """The recipe that a generation was trained by, as its run tells it."""
    store = open_store(ws)
    values = json.loads(mlflow_tracking.artifact(store, made, CONFIG))
    own = custom.from_text(mlflow_tracking.artifact(store, made, OWN_FEATURES).decode())
    return Recipe(Spec(settings.parse(values)), own)


def _generation(
    ws: Workspace,
    planned: Plan,
    turn: Turn,
    trained: Trained,
    examined: Examined,
    verdict: Verdict,
    run_id: str,
) -> Generation:
    difference = examined.evaluation.overall.difference
    return Generation(
        generation=0,  # until it is registered
        as_of=turn.as_of,
        train_rows=planned.train_rows,
        train_users=learning.train_users(ws, planned),
        exam_rows=planned.exam_rows,
        metrics=_finite(examined.evaluation.challenger),
        baseline=_finite(examined.baseline),
        difference=difference if all(map(math.isfinite, (difference.estimate, difference.se))) else None,
        verdict=verdict.decision,
        reason=verdict.reason,
        examined_against=turn.champion,
        trained_windows=(planned.train[0], planned.train[-1]),
        exam_windows=(planned.exam[0], planned.exam[-1]),
        dataset=turn.dataset,
        code=dvc_data.code_version(ws.root) or "",
        config=ws.config.fingerprint(),
        seed=ws.config.train.seed,
        run_id=run_id,
        turn_id=turn.turn_id,
        trigger=turn.trigger,
        tags={
            "recipe": ws.recipe.fingerprint,
            "matrix_hash": trained.matrix_hash,
            "rounds": str(trained.rounds),
            "parts": str(trained.parts),
        },
    )


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that are numbers: of an exam with one class AUC is none, and the gate has said so."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _evidence(ws: Workspace, trained: Trained, examined: Examined, verdict: Verdict) -> mlflow_evidence.Evidence:
    config = ws.config
    own = ws.root / custom.FILE
    params = {f"train.{k}": v for k, v in config.train.model_dump(exclude={"params"}).items()} | dict(
        config.train.params
    )
    params |= {
        "windows.every": str(config.windows.every),
        "features.counters": [c.name for c in config.features.counters],
    }
    return mlflow_evidence.Evidence(
        evaluation=examined.evaluation,
        verdict=verdict,
        config=tomlkit.dumps(config.told.model_dump(mode="json", exclude_none=True)),
        params=params | {"rounds": trained.rounds},
        importance=trained.importance,
        calibration=examined.calibration,
        files={CONFIG: config.told.model_dump_json(), OWN_FEATURES: own.read_text() if own.exists() else ""},
    )
