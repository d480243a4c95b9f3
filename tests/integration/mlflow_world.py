"""Synthetic generations for the MLflow tests: tiny boosters, fitted in milliseconds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from flywheel.integrations import mlflow_curve, mlflow_model, mlflow_registry, mlflow_tracking
from flywheel.integrations.mlflow_evidence import Evidence
from flywheel.integrations.mlflow_model import Parts
from flywheel.integrations.mlflow_store import Store, create
from flywheel.records import Comparison, Evaluation, Finding, Generation, Interval, Slice, Verdict

QUIET = [
    # mlflow 3.17 asks SQLAlchemy 2.1 for a strategy that 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"),
    # mlflow.pyfunc warns of its own type hints as it is imported
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
FEATURES = ("user_mean", "item_mean", "genre")


def parts(seed: int = 0) -> Parts:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 3)).astype(np.float32)
    rows[:, 2] = rng.integers(0, 3, 60)
    types = ["float", "float", "c"]
    data = xgb.DMatrix(
        rows, rng.integers(0, 2, 60), feature_names=list(FEATURES), feature_types=types, enable_categorical=True
    )
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, data, num_boost_round=3)
    model = bytes(booster.save_raw("ubj"))
    return Parts(model, FEATURES, tuple(types), {"genre": ["drama", "comédie", '"|"']}, rows[:10])


def generation(number: int, run_id: str = "", **changes: object) -> Generation:
    auc = 0.6 + 0.04 * np.log(number)
    as_of = datetime(2014, 6, 1, tzinfo=UTC) + timedelta(days=28 * number)
    one = Generation(
        generation=0,
        as_of=as_of,
        train_rows=10_000 * number,
        train_users=300 * number,
        exam_rows=2_000,
        metrics={"auc": auc, "log_loss": 0.6 - 0.01 * number},
        baseline={"auc": 0.58, "log_loss": 0.65},
        difference=Interval(0.01, -0.002, 0.022, 0.006, 2_000, 250),
        verdict="promote" if number % 3 else "reject",
        reason="better by 0.0100 auc on 2,000 rows" if number % 3 else "worse for new users by 0.0410",
        examined_against=0 if number == 1 else number - 1,
        trained_windows=("2014-01-06", "2014-05-05"),
        exam_windows=("2014-05-12", "2014-05-19"),
        dataset="0123456789abcdef0123456789abcdef.dir",
        code="c0ffee",
        config="a1b2c3",
        seed=7,
        run_id=run_id,
        turn_id=f"turn-{number}",
        trigger="test",
        tags={"chain": "feed"},
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def evidence(one: Generation) -> Evidence:
    comparison = Comparison("auc", one.metrics["auc"], 0.6, one.difference or Interval(0, 0, 0, 0, 0, 0))
    odd = Slice("user", "a|b", 3, 1, replace(comparison, challenger=float("nan")))
    finding = Finding("margin", "pass", 0.01, -0.002, 2_000, "auc is better | by far")
    return Evidence(
        Evaluation(one.exam_rows, 250, one.metrics, one.baseline, comparison, (odd,)),
        Verdict(one.verdict, one.reason, (finding,)),
        '[product]\nname = "cinema"\n',
        {"train.seed": 7, "train.rounds": 3},
        {"user_mean": 3.5},
        {"challenger": [(0.2, 0.1, 50), (0.7, 0.8, 40)], "champion": [(0.3, 0.2, 45), (0.6, 0.9, 45)]},
    )


def log(store: Store, one: Generation, made: Parts) -> None:
    model_id, _ = mlflow_model.keep(store, one.run_id, made)
    mlflow_tracking.log(store, one, evidence(one), made, model_id)


def turn(store: Store, number: int, **changes: object) -> int:
    attempt = mlflow_tracking.begin(store, f"turn-{number}")
    one = generation(number, attempt.run_id, **changes)
    if not attempt.finished:
        log(store, one, parts(number))
    registered = mlflow_registry.register(store, attempt.run_id)
    mlflow_curve.extend(store, replace(one, generation=registered))
    return registered


def world(root: Path, count: int, product: str = "cinema") -> Store:
    store = create(root, product)
    for number in range(1, count + 1):
        turn(store, number)
    return store
