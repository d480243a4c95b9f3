"""The registry: which generations there are, which one serves, and who moved that.

A generation's number is its model version. Nothing here takes a failure for an empty registry.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_model, shared_lock
from flywheel.integrations.mlflow_store import Store
from flywheel.records import Move

ALIASES = ("champion", "previous", "challenger", "canary", "waiting")
_CHAMPION, _CANARY = "move.", "canary."
_VERSION_TAGS = ("turn_id", "verdict", "reason", "dataset", *mlflow_model.TAGS.values())


@dataclass(frozen=True)
class State:
    """Where the aliases point, 0 for none, and the generations that the registry holds."""

    champion: int = 0
    previous: int = 0
    challenger: int = 0
    canary: int = 0
    waiting: int = 0
    generations: frozenset[int] = frozenset()


def state(store: Store) -> State:
    """What the registry holds now; a product without a model yet has the empty state.

    Raises:
        RegistryError: MLflow cannot answer, or an alias points at a version that is gone.
    """
    with store.answering():
        model = _model(store)
        if model is None:
            return State()
        held = frozenset(int(v.version) for v in _versions(store))
    aliases = {name: int(model.aliases[name]) for name in ALIASES if name in model.aliases}
    gone = sorted(name for name, number in aliases.items() if number not in held)
    if gone:
        why = (
            f"{gone[0]} points at generation {aliases[gone[0]]}; held are {', '.join(map(str, sorted(held))) or 'none'}"
        )
        raise RegistryError(
            "an alias points at a generation that is gone", why=why, next="flywheel promote N --why REASON"
        )
    return State(**aliases, generations=held)


def register(store: Store, run_id: str) -> int:
    """Register the model of a finished run, whatever its verdict; a run has one generation however often it is asked.

    Raises:
        RegistryError: the run is not finished, or has no model.
    """
    with store.answering():
        run = store.client.get_run(run_id)
        tags = run.data.tags
        if run.info.status != "FINISHED" or "model_id" not in tags:
            why = f"the run is {run.info.status}" + ("" if "model_id" in tags else " and has no model")
            raise RegistryError(f"run {run_id} cannot be registered", why=why, next="flywheel turn")
        shared_lock.demand()
        number = _held(store, run_id) or _create(store, run_id, tags, run.data.metrics)
        if tags.get("generation") != str(number):
            store.client.set_model_version_tag(store.product, str(number), "generation", str(number))
            store.client.update_run(run_id, name=f"generation {number}")
            store.client.set_tag(run_id, "generation", str(number))
    return number


def point(store: Store, alias: str, generation: int) -> None:
    """Point an alias at a generation; at 0, drop it. One call, one move.

    Raises:
        RegistryError: the registry does not hold the generation.
    """
    if generation == 0:
        drop(store, alias)
        return
    _version(store, generation)
    with store.answering():
        shared_lock.demand()
        store.client.set_registered_model_alias(store.product, alias, str(generation))


def drop(store: Store, alias: str) -> None:
    """Remove an alias; one that is not there is removed already."""
    with store.answering():
        model = _model(store)
        if model is not None and alias in model.aliases:
            shared_lock.demand()
            store.client.delete_registered_model_alias(store.product, alias)


def record(store: Store, move: Move) -> None:
    """Append a move to the registered model's own log of moves; the canary has one of its own.

    Raises:
        RegistryError: there is no registered model.
    """
    log = _CANARY if move.action == "canary" else _CHAMPION
    known = _moves(store, log)
    if known and known[-1] == move:
        return
    value = json.dumps(asdict(move) | {"when": move.when.isoformat()}, ensure_ascii=False)
    with store.answering():
        shared_lock.demand()
        store.client.set_registered_model_tag(store.product, f"{log}{len(known) + 1:04d}", value)


def moves(store: Store) -> list[Move]:
    """Every move of the champion, oldest first."""
    return _moves(store, _CHAMPION)


def canaries(store: Store) -> list[Move]:
    """Every move of the canary, oldest first; one to 0 is the end of one."""
    return _moves(store, _CANARY)


def _moves(store: Store, log: str) -> list[Move]:
    with store.answering():
        model = _model(store)
    logged = {key: value for key, value in (model.tags if model else {}).items() if key.startswith(log)}
    found = []
    for key in sorted(logged, key=lambda key: int(key.removeprefix(log))):
        values = json.loads(logged[key])
        found.append(Move(**values | {"when": datetime.fromisoformat(values["when"])}))
    return found


def load(store: Store, which: int | str) -> mlflow_model.Stored:
    """The model of a generation, or of the one that an alias points at, verified byte by byte.

    Raises:
        RegistryError: there is no such generation, or no such alias.
        IntegrityError: its files are not those that were written, or Flywheel did not write them.
    """
    number = which if isinstance(which, int) else getattr(state(store), which)
    if number == 0:
        raise RegistryError(f"there is no {which}", why="the baseline serves", next="flywheel generations")
    version = _version(store, number)
    with store.answering():
        tags = dict(version.tags)
        # the run is the witness: a version whose tags were edited does not vouch for itself
        tags |= {k: v for k, v in _run_tags(store, version).items() if k in mlflow_model.TAGS.values()}
        folder = store.client.get_model_version_download_uri(store.product, version.version)
    return mlflow_model.read(store.local(folder), number, tags)


def _run_tags(store: Store, version: ModelVersion) -> dict[str, str]:
    return dict(store.client.get_run(version.run_id).data.tags) if version.run_id else {}


def _model(store: Store) -> RegisteredModel | None:
    return next(iter(store.client.search_registered_models(f"name = '{store.product}'")), None)


def _versions(store: Store) -> list[ModelVersion]:
    return list(store.client.search_model_versions(f"name = '{store.product}'"))


def _version(store: Store, generation: int) -> ModelVersion:
    with store.answering():
        held = {int(version.version): version for version in _versions(store)}
    if generation not in held:
        why = f"it holds {', '.join(map(str, sorted(held))) or 'none'}"
        raise RegistryError(f"the registry has no generation {generation}", why=why, next="flywheel generations")
    return held[generation]


def _held(store: Store, run_id: str) -> int | None:
    return next((int(version.version) for version in _versions(store) if version.run_id == run_id), None)


def _create(store: Store, run_id: str, tags: dict[str, str], metrics: dict[str, float]) -> int:
    if _model(store) is None:
        store.client.create_registered_model(store.product)
    source = store.client.get_logged_model(tags["model_id"]).artifact_location
    stated = {key: tags[key] for key in _VERSION_TAGS if key in tags} | {"rows": str(int(metrics["train_rows"]))}
    version = store.client.create_model_version(
        store.product, source, run_id=run_id, model_id=tags["model_id"], tags=stated
    )
    return int(version.version)
