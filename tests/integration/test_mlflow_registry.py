import pickle
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from flywheel.errors import IntegrityError, RegistryError
from flywheel.integrations import mlflow_model, mlflow_registry, mlflow_tracking
from flywheel.integrations.mlflow_registry import State
from flywheel.integrations.mlflow_store import DATABASE, Store, create
from flywheel.integrations.mlflow_store import open as open_store
from flywheel.records import Move
from tests.integration.mlflow_world import FEATURES, QUIET, parts, world

pytestmark = QUIET

WHEN = datetime(2014, 12, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("made"), 2).root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    shutil.copytree(made, tmp_path / "copy")
    return open_store(tmp_path / "copy", "cinema")


def folder(store: Store, generation: int) -> Path:
    version = store.client.get_model_version("cinema", str(generation))
    return store.local(store.client.get_model_version_download_uri("cinema", version.version))


def test_an_empty_registry_is_a_state_that_was_looked_up(tmp_path: Path) -> None:
    store = create(tmp_path, "cinema")
    assert mlflow_registry.state(store) == State()
    assert mlflow_registry.moves(store) == []


def test_a_registry_that_cannot_answer_is_no_empty_one(store: Store) -> None:
    (store.root / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(RegistryError, match="MLflow cannot answer"):
        mlflow_registry.state(store)


def test_aliases_move_and_go(store: Store) -> None:
    assert mlflow_registry.state(store) == State(generations=frozenset({1, 2}))
    mlflow_registry.point(store, "champion", 2)
    mlflow_registry.point(store, "previous", 1)
    assert mlflow_registry.state(store) == State(champion=2, previous=1, generations=frozenset({1, 2}))
    mlflow_registry.point(store, "champion", 0)
    mlflow_registry.drop(store, "champion")
    assert mlflow_registry.state(store).champion == 0
    with pytest.raises(RegistryError, match="the registry has no generation 9"):
        mlflow_registry.point(store, "champion", 9)


def test_an_alias_on_a_deleted_generation_is_an_error(store: Store) -> None:
    mlflow_registry.point(store, "champion", 2)
    store.client.delete_model_version("cinema", "2")
    # MLflow drops the alias with the version; then there is no champion, and it was looked up
    assert mlflow_registry.state(store) == State(generations=frozenset({1}))


def test_a_version_says_where_it_comes_from(store: Store) -> None:
    tags = store.client.get_model_version("cinema", "2").tags
    assert tags["generation"] == "2"
    assert (tags["turn_id"], tags["verdict"], tags["rows"]) == ("turn-2", "promote", "20000")
    assert set(mlflow_model.TAGS.values()) <= set(tags)


def test_an_unfinished_run_is_not_registered(store: Store) -> None:
    attempt = mlflow_tracking.begin(store, "turn-3")
    with pytest.raises(RegistryError, match="cannot be registered"):
        mlflow_registry.register(store, attempt.run_id)
    assert mlflow_registry.state(store).generations == {1, 2}


def test_moves_are_appended_and_read_back_in_order(store: Store) -> None:
    first = Move("promote", 0, 1, "ann", WHEN, 'better, "she" said')
    second = Move("rollback", 1, 0, "bob", WHEN, "naïve\nafter all")
    for move in (first, second, second):
        mlflow_registry.record(store, move)
    assert mlflow_registry.moves(store) == [first, second]


def test_a_model_is_loaded_as_it_was_fitted(store: Store) -> None:
    mlflow_registry.point(store, "champion", 2)
    made = parts(2)
    stored = mlflow_registry.load(store, "champion")
    assert stored.generation == 2
    assert stored.parts.model == made.model
    assert stored.parts.features == FEATURES
    assert stored.parts.vocabulary == made.vocabulary
    assert np.array_equal(stored.parts.golden, made.golden)
    with pytest.raises(RegistryError, match="there is no previous"):
        mlflow_registry.load(store, "previous")


def test_a_stored_model_is_servable_if_it_scores_as_the_fitted_one(store: Store) -> None:
    made = parts(2)
    fitted = xgb.Booster(model_file=bytearray(made.model))
    rows = xgb.DMatrix(
        made.golden, feature_names=list(FEATURES), feature_types=list(made.types), enable_categorical=True
    )
    scores = fitted.predict(rows).astype(np.float64)
    stored = mlflow_registry.load(store, 2)
    assert mlflow_model.servable(stored, scores).status == "pass"
    assert mlflow_model.servable(stored, scores + 2e-6).status == "fail"
    assert mlflow_model.servable(stored, scores * np.nan).status == "fail"
    assert mlflow_model.servable(stored, scores[:-1]).status == "fail"
    assert mlflow_model.servable(mlflow_registry.load(store, 1), scores).status == "fail"


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", list(mlflow_model.TAGS))
@pytest.mark.parametrize(
    "harm", [flip, lambda b: b[:-1], lambda _: b"", lambda _: pickle.dumps({})], ids=["bit", "cut", "empty", "pickle"]
)
def test_a_file_that_is_not_what_was_written_is_refused(
    store: Store, name: str, harm: Callable[[bytes], bytes]
) -> None:
    path = folder(store, 1) / name
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(IntegrityError, match=f"generation 1 has a {name} that is not what was written") as caught:
        mlflow_registry.load(store, 1)
    assert "next:" in str(caught.value)


@pytest.mark.parametrize("name", list(mlflow_model.TAGS))
def test_a_missing_file_is_named(store: Store, name: str) -> None:
    (folder(store, 1) / name).unlink()
    with pytest.raises(IntegrityError, match=f"generation 1 has lost {name}"):
        mlflow_registry.load(store, 1)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_a_foreign_flavour_under_our_name_is_never_unpickled(store: Store) -> None:
    run = store.client.create_run(store.experiment)
    store.client.log_text(run.info.run_id, "flavors:\n  sklearn:\n    pickled_model: model.pkl\n", "model/MLmodel")
    path = store.local(run.info.artifact_uri) / "model"
    (path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    store.client.create_model_version("cinema", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    with pytest.raises(IntegrityError, match=r"was not made by Flywheel.*\n.*\n.*of flavour sklearn"):
        mlflow_registry.load(store, 3)


def test_a_version_does_not_vouch_for_itself(store: Store) -> None:
    other = folder(store, 2) / mlflow_model.MODEL
    path = folder(store, 1) / mlflow_model.MODEL
    path.write_bytes(other.read_bytes())
    sha256 = store.client.get_model_version("cinema", "2").tags["model_sha256"]
    store.client.set_model_version_tag("cinema", "1", "model_sha256", sha256)
    with pytest.raises(IntegrityError, match="not what was written"):
        mlflow_registry.load(store, 1)


def test_another_feature_list_is_refused_with_the_odd_names(store: Store, tmp_path: Path) -> None:
    made = parts(1)
    strange = mlflow_model.Parts(made.model, ("user_mean", "item_mean", "year"), made.types, {}, made.golden)
    for name, content in strange.files().items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(IntegrityError, match="in one list only: genre, year"):
        mlflow_model.read(tmp_path, 1, strange.hashes())
