"""The usual turn: one Prefect flow that does everything again each time; see turn.py. Nothing of Flywheel is used."""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(
    DO_NOT_TRACK="true", PREFECT_SERVER_ANALYTICS_ENABLED="false", MLFLOW_DISABLE_TELEMETRY="true",
    GX_ANALYTICS_ENABLED="false", DVC_NO_ANALYTICS="1", PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
)  # fmt: skip
ROOT = Path(sys.argv[1]).resolve()
os.chdir(ROOT)
os.environ["PREFECT_HOME"] = str(ROOT / ".prefect")

import great_expectations as gx  # noqa: E402
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xgboost as xgb  # noqa: E402
from dvc.repo import Repo  # noqa: E402
from prefect import flow, task  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

KEYS = (["user"], ["item"], ["user", "genre"], ["item", "device"])
FIT = {"fit": 0.0, "fit_cpu": 0.0}


@task
def read() -> pd.DataFrame:
    frame = pd.read_parquet("data")
    return frame.drop_duplicates("event_id").sort_values("ts", ignore_index=True)


@task
def validate(frame: pd.DataFrame) -> None:
    context = gx.get_context(mode="ephemeral")
    suite = context.suites.add(gx.ExpectationSuite(**json.loads(Path("usual_suite.json").read_text())))
    batches = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="v", data=batches, suite=suite))
    if not definition.run(batch_parameters={"dataframe": frame}).success:
        raise ValueError("the data is not as expected")


@task
def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Point-in-time counts and smoothed means per key and day, two half-lives each."""
    day = ((frame["ts"] - frame["ts"].min()) // pd.Timedelta(days=1)).astype(int)
    out = pd.DataFrame({"hour": frame["hour"], "genre": frame["genre"].astype("category").cat.codes,
                        "device": frame["device"].astype("category").cat.codes})  # fmt: skip
    for keys in KEYS:
        daily = frame.assign(day=day).groupby([*keys, "day"])["label"].agg(["count", "sum"]).reset_index()
        for half_life in (7, 28):
            growth = 2.0 ** (daily["day"] / half_life)
            sums = (daily[["count", "sum"]].mul(growth, axis=0)).groupby([daily[k] for k in keys])
            before = sums.cumsum() - daily[["count", "sum"]].mul(growth, axis=0)
            name = "_".join(keys)
            daily[f"{name}_n{half_life}"] = before["count"] / growth
            daily[f"{name}_m{half_life}"] = (before["sum"] / growth + 3) / (before["count"] / growth + 10)
        merged = frame[keys].assign(day=day).merge(daily.drop(columns=["count", "sum"]), on=[*keys, "day"], how="left")
        out = pd.concat([out, merged.drop(columns=[*keys, "day"])], axis=1)
    return out


@task
def train(matrix: pd.DataFrame, labels: pd.Series) -> tuple[xgb.XGBClassifier, float]:
    cut = len(matrix) - 100_000
    began, cpu = time.perf_counter(), time.process_time()
    model = xgb.XGBClassifier(n_estimators=50, max_depth=6, learning_rate=0.05, tree_method="hist")
    model.fit(matrix[:cut], labels[:cut])
    FIT.update(fit=time.perf_counter() - began, fit_cpu=time.process_time() - cpu)
    return model, float(roc_auc_score(labels[cut:], model.predict_proba(matrix[cut:])[:, 1]))


@task
def log(model: xgb.XGBClassifier, auc: float, matrix: pd.DataFrame) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{ROOT / 'mlflow.db'}")
    mlflow.set_experiment("usual")
    with mlflow.start_run():
        mlflow.log_metrics({"auc": auc, "rows": len(matrix)})
        mlflow.xgboost.log_model(model, name="model", input_example=matrix[:5].astype(np.float64),
                                 registered_model_name="usual")  # fmt: skip


@task
def version() -> None:
    Repo(".").add("data")


@flow
def usual() -> None:
    frame = read()
    validate(frame)
    version()
    matrix = features(frame)
    model, auc = train(matrix, frame["label"])
    log(model, auc, matrix)


if __name__ == "__main__":
    usual()
    print(json.dumps(FIT))
