import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.utils import requirements_utils

from flywheel.errors import DataError, RegistryError
from flywheel.integrations import mlflow_curve, mlflow_registry, mlflow_tracking
from flywheel.integrations.mlflow_store import Store, create
from tests.integration.mlflow_world import QUIET, generation, log, parts, turn, world

pytestmark = QUIET


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = world(tmp_path_factory.mktemp("workspace"), 3)
    mlflow_registry.point(made, "champion", 2)
    mlflow_registry.point(made, "previous", 1)
    return made


def test_a_generation_is_read_back_as_it_was_logged(store: Store) -> None:
    back = mlflow_tracking.generations(store)
    assert [one.generation for one in back] == [1, 2, 3]
    assert [one.alias for one in back] == ["previous", "champion", ""]
    for one in back:
        logged = generation(one.generation, one.run_id, generation=one.generation, alias=one.alias)
        assert replace(one, tags={}) == replace(logged, tags={})
        assert one.tags["chain"] == "feed"


def test_metrics_stand_at_the_number_of_training_rows(store: Store) -> None:
    second = mlflow_tracking.generations(store)[1]
    [point] = store.client.get_metric_history(second.run_id, "auc")
    assert (point.step, point.value) == (20_000, second.metrics["auc"])


def test_the_model_carries_metric_step_and_dataset(store: Store) -> None:
    found = store.client.search_logged_models([store.experiment], "metrics.auc > 0.62")
    assert len(found) == 2
    [auc] = [m for m in found[0].metrics if m.key == "auc"]
    assert (auc.dataset_digest, auc.step) == ("0123456789abcdef0123456789abcdef.dir", auc.step)
    assert auc.step in (20_000, 30_000)


def test_the_run_names_its_dataset_decision_and_source(store: Store) -> None:
    third = mlflow_tracking.generations(store)[2]
    run = store.client.get_run(third.run_id)
    assert run.info.run_name == "generation 3"
    assert run.data.tags["mlflow.note.content"].startswith("**reject**: worse for new users by 0.0410")
    assert "auc is better \\| by far" in run.data.tags["mlflow.note.content"]
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.digest == third.dataset
    assert {tag.key: tag.value for tag in dataset.tags}["rows"] == "30000"
    assert run.data.params["train.seed"] == "7"


def test_artifacts_are_strict_json_and_pictures(store: Store) -> None:
    first = mlflow_tracking.generations(store)[0]

    def refuse(name: str) -> None:
        raise AssertionError(name)

    for name in ("findings.json", "slices.json", "evaluation.json", "importance.json"):
        assert json.loads(mlflow_tracking.artifact(store, first, name), parse_constant=refuse)
    assert mlflow_tracking.artifact(store, first, "config.toml").startswith(b"[product]")
    for name in ("plots/calibration.png", "plots/learning_so_far.png"):
        assert mlflow_tracking.artifact(store, first, name).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["absent.json", "../../../mlflow.db", "/etc/hostname"])
def test_an_artifact_that_is_not_there_is_named(store: Store, name: str) -> None:
    first = mlflow_tracking.generations(store)[0]
    with pytest.raises(RegistryError, match="generation 1 has no artifact"):
        mlflow_tracking.artifact(store, first, name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_refused_before_anything_is_logged(tmp_path: Path, value: float) -> None:
    store = create(tmp_path, "cinema")
    attempt = mlflow_tracking.begin(store, "t")
    one = generation(1, attempt.run_id, metrics={"auc": value})
    with pytest.raises(DataError, match=r"auc = (nan|inf)"):
        log(store, one, parts())
    assert store.client.get_run(attempt.run_id).data.metrics == {}
    assert not mlflow_tracking.generations(store)


def test_a_turn_run_again_finds_what_it_did(store: Store) -> None:
    before = mlflow_tracking.generations(store)
    assert turn(store, 2) == 2
    assert mlflow_tracking.generations(store) == before


def test_the_learning_curve_holds_each_generation_once(store: Store) -> None:
    turn(store, 3)
    curve = mlflow_curve.extend(store, mlflow_tracking.generations(store)[0])
    points = store.client.get_metric_history(curve, "auc")
    assert [point.step for point in points] == [10_000, 20_000, 30_000]
    assert "auc" in store.client.get_run(curve).data.metrics


def test_a_killed_attempt_is_marked_and_the_turn_made_anew(tmp_path: Path) -> None:
    store = create(tmp_path, "cinema")
    dead = mlflow_tracking.begin(store, "turn-1")
    assert (dead.number, dead.finished) == (1, False)
    assert turn(store, 1) == 1
    run = store.client.get_run(dead.run_id)
    assert run.info.status == "KILLED"
    assert "process died" in run.data.tags["killed"]
    assert mlflow_tracking.unfinished(store) == 1
    assert mlflow_tracking.begin(store, "turn-1").finished


def test_killed_between_finish_and_register_it_is_registered_once(tmp_path: Path) -> None:
    store = create(tmp_path, "cinema")
    attempt = mlflow_tracking.begin(store, "turn-1")
    one = generation(1, attempt.run_id)
    log(store, one, parts(1))
    assert mlflow_tracking.generations(store) == []
    assert turn(store, 1) == 1
    assert turn(store, 1) == 1
    assert mlflow_registry.state(store).generations == {1}
    assert len(mlflow_tracking.generations(store)) == 1


def test_a_failed_attempt_says_why(tmp_path: Path) -> None:
    store = create(tmp_path, "cinema")
    attempt = mlflow_tracking.begin(store, "turn-1")
    with pytest.raises(DataError), mlflow_tracking.failing(store, attempt.run_id):
        raise DataError("one class only")
    run = store.client.get_run(attempt.run_id)
    assert (run.info.status, run.data.tags["failed"]) == ("FAILED", "one class only")
    assert mlflow_tracking.begin(store, "turn-1").number == 2


def test_an_attempt_of_a_turn_that_never_comes_again_is_marked_too(tmp_path: Path) -> None:
    store = create(tmp_path, "cinema")
    dead = mlflow_tracking.begin(store, "turn-1")
    turn(store, 2)
    assert store.client.get_run(dead.run_id).info.status == "KILLED"


def test_what_mlflow_infers_for_others_is_left_alone(store: Store) -> None:
    """Generations were kept, and without MLflow's look at every installed package, which is half a second of a turn."""
    assert mlflow_tracking.generations(store)
    assert requirements_utils._MODULES_TO_PACKAGES != {}
