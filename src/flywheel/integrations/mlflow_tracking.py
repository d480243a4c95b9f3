"""A generation as an MLflow run: metrics with step = number of training rows, so that MLflow's own chart is quality
against data.

A turn killed on the way leaves a run that is not finished; the next attempt of any turn marks it killed. A run counts
as a generation once it is finished and registered.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, Run, RunTag

from flywheel.errors import DataError, RegistryError
from flywheel.integrations import mlflow_evidence, mlflow_model, mlflow_plots, shared_lock
from flywheel.integrations.mlflow_store import Store
from flywheel.records import Decision, Generation, Interval

_STATED = {
    "train_rows",
    "train_users",
    "exam_rows",
    "delta",
    "delta_low",
    "delta_high",
    "delta_se",
    "delta_rows",
    "delta_users",
}


@dataclass(frozen=True)
class Attempt:
    """One attempt of a turn. A finished one is done: nothing is logged to it again."""

    run_id: str
    number: int
    finished: bool


def begin(store: Store, turn_id: str, *, started: datetime | None = None) -> Attempt:
    """The finished attempt of this turn, or a new one; whoever calls this holds the workspace's lock.

    An unfinished attempt, of whatever turn, can then only be a dead one: it is marked KILLED, and says so.
    """
    with store.answering():
        before = _search(store, f"tags.turn_id = '{_quoted(turn_id)}'")
        done = next((run for run in before if run.info.status == "FINISHED"), None)
        if done is not None:
            return Attempt(done.info.run_id, int(done.data.tags["attempt"]), True)
        shared_lock.demand()  # else what it finds unfinished may be another machine's
        for run in _search(store, "tags.kind = 'generation' AND attributes.status = 'RUNNING'"):
            store.client.set_tag(run.info.run_id, "killed", "its process died; a later attempt found it unfinished")
            store.client.set_terminated(run.info.run_id, "KILLED")
        number = len(before) + 1
        at = None if started is None else int(started.timestamp() * 1000)
        tags = {"turn_id": turn_id, "attempt": str(number), "kind": "generation"}
        run = store.client.create_run(store.experiment, run_name=f"turn {turn_id}", tags=tags, start_time=at)
        return Attempt(run.info.run_id, number, False)


@contextmanager
def failing(store: Store, run_id: str) -> Iterator[None]:
    """End an attempt with the reason where what is done inside fails, if MLflow can still be told."""
    try:
        yield
    except Exception as error:
        with suppress(RegistryError), store.answering():
            shared_lock.demand()
            store.client.set_tag(run_id, "failed", str(error))
            store.client.set_terminated(run_id, "FAILED")
        raise


def finished(store: Store, turn_id: str) -> str | None:
    """The run of the finished attempt of a turn, or None."""
    with store.answering():
        done = _search(store, f"tags.turn_id = '{_quoted(turn_id)}' AND attributes.status = 'FINISHED'")
    return str(done[0].info.run_id) if done else None


def log(
    store: Store, generation: Generation, evidence: mlflow_evidence.Evidence, model: mlflow_model.Parts, model_id: str
) -> None:
    """Log everything about a generation to its run, whose model is kept already, and finish the run last.

    Raises:
        DataError: a metric is not a finite number.
    """
    metrics = _metrics(generation)
    run_id, step, now = generation.run_id, generation.train_rows, int(time.time() * 1000)
    with store.answering():
        tags = (
            _tags(generation)
            | model.hashes()
            | {"mlflow.note.content": mlflow_evidence.note(generation, evidence.verdict)}
        )
        params = [Param(key, str(value)[:6000]) for key, value in list(evidence.params.items())[:50]]
        dataset = _dataset(store, generation, model)
        # a dataset is one row for all runs that name its version; what this run took from it stands on the link
        rows = [InputTag("mlflow.data.context", "training"), InputTag("rows", str(generation.train_rows))]
        store.client.log_inputs(run_id, [DatasetInput(dataset, rows)])
        store.client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
        logged = [
            Metric(key, value, now, step, model_id, dataset.name, dataset.digest) for key, value in metrics.items()
        ]
        store.client.log_batch(run_id, logged, params, [RunTag(k, v) for k, v in tags.items()])
        mlflow_evidence.keep(store, run_id, evidence)
        _plots(store, generation, evidence)
        store.client.set_tag(run_id, "model_id", model_id)
        shared_lock.demand()
        store.client.set_terminated(run_id)


def say(store: Store, generation: Generation, name: str, text: str) -> None:
    """Tag the run of a generation with what became of it since."""
    with store.answering():
        store.client.set_tag(generation.run_id, name, text)


def generations(store: Store) -> list[Generation]:
    """Every generation, by number, with its aliases; attempts that came to nothing are left out."""
    with store.answering():
        versions = store.client.search_model_versions(f"name = '{store.product}'")
        held = store.client.search_registered_models(f"name = '{store.product}'")
        aliases: dict[int, list[str]] = {}
        for name, version in (held[0].aliases if held else {}).items():
            aliases.setdefault(int(version), []).append(name)
        runs = {run.info.run_id: run for run in _search(store, "attributes.status = 'FINISHED'")}
    found = []
    for version in versions:
        if version.run_id in runs and "as_of" in runs[version.run_id].data.tags:
            number = int(version.version)
            one = _generation(runs[version.run_id])
            found.append(replace(one, generation=number, alias=", ".join(sorted(aliases.get(number, [])))))
    return sorted(found, key=lambda one: one.generation)


def unfinished(store: Store) -> int:
    """How many attempts were started and came to nothing, or are on their way."""
    with store.answering():
        return len(_search(store, "tags.kind = 'generation' AND attributes.status != 'FINISHED'"))


def artifact(store: Store, generation: Generation, name: str) -> bytes:
    """The bytes of an artifact, such as `findings.json`.

    Raises:
        RegistryError: the generation has none of that name.
    """
    with store.answering():
        uri = store.client.get_run(generation.run_id).info.artifact_uri
        inside = ".." not in name and not name.startswith("/")
        folder = name.rpartition("/")[0] if inside else ""
        held = sorted(file.path for file in store.client.list_artifacts(generation.run_id, folder or None))
    if name not in held:
        why = f"it has: {', '.join(held) or 'none'}"
        raise RegistryError(f"generation {generation.generation} has no artifact {name}", where=uri, why=why)
    return store.local(f"{uri}/{name}").read_bytes()


def _quoted(text: str) -> str:
    if "'" in text:
        raise ValueError(f"turn id {text!r} may not hold a quote")
    return text


def _search(store: Store, filter: str) -> list[Run]:
    found: list[Run] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment], filter, max_results=1000, order_by=["attributes.start_time"], page_token=token
        )
        found, token = found + list(page), page.token
        if not token:
            return found


def _metrics(generation: Generation) -> dict[str, float]:
    metrics = dict(generation.metrics)
    metrics |= {f"baseline_{name}": value for name, value in generation.baseline.items()}
    metrics |= {
        "train_rows": generation.train_rows,
        "train_users": generation.train_users,
        "exam_rows": generation.exam_rows,
    }
    if generation.difference is not None:
        d = generation.difference
        metrics |= {"delta": d.estimate, "delta_low": d.low, "delta_high": d.high, "delta_se": d.se}
        metrics |= {"delta_rows": d.rows, "delta_users": d.users}
    broken = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    if broken:
        named = ", ".join(f"{name} = {metrics[name]}" for name in broken)
        why = "MLflow would store infinity as a number and leave NaN out"
        raise DataError(
            f"metrics that are no finite numbers are not logged: {named}", why=why, next="flywheel turn --debug"
        )
    return {name: float(value) for name, value in metrics.items()}


def _tags(generation: Generation) -> dict[str, str]:
    stated = {
        name: getattr(generation, name)
        for name in ("verdict", "reason", "dataset", "code", "config", "turn_id", "trigger")
    }
    numbers = {"seed": str(generation.seed), "examined_against": str(generation.examined_against)}
    windows = {
        "trained_windows": " ".join(generation.trained_windows),
        "exam_windows": " ".join(generation.exam_windows),
    }
    times = {"as_of": generation.as_of.astimezone(UTC).isoformat()}
    commit = {"mlflow.source.git.commit": generation.code, "mlflow.source.name": "flywheel turn"}
    return commit | generation.tags | stated | numbers | windows | times


def _generation(run: Run) -> Generation:
    metrics, tags = run.data.metrics, run.data.tags
    baseline = {k.removeprefix("baseline_"): v for k, v in metrics.items() if k.startswith("baseline_")}
    own = {k: v for k, v in metrics.items() if not k.startswith("baseline_") and k not in _STATED}
    difference = None
    if "delta" in metrics:
        estimate, low, high, se = (metrics[name] for name in ("delta", "delta_low", "delta_high", "delta_se"))
        difference = Interval(estimate, low, high, se, int(metrics["delta_rows"]), int(metrics["delta_users"]))
    trained, exam = tags["trained_windows"].split(" "), tags["exam_windows"].split(" ")
    return Generation(
        generation=0,
        as_of=datetime.fromisoformat(tags["as_of"]),
        train_rows=int(metrics["train_rows"]),
        train_users=int(metrics["train_users"]),
        exam_rows=int(metrics["exam_rows"]),
        metrics=own,
        baseline=baseline,
        difference=difference,
        verdict=cast(Decision, tags["verdict"]),
        reason=tags["reason"],
        examined_against=int(tags["examined_against"]),
        trained_windows=(trained[0], trained[-1]),
        exam_windows=(exam[0], exam[-1]),
        dataset=tags["dataset"],
        code=tags["code"],
        config=tags["config"],
        seed=int(tags["seed"]),
        run_id=run.info.run_id,
        turn_id=tags["turn_id"],
        trigger=tags["trigger"],
        tags={k: v for k, v in tags.items() if not k.startswith("mlflow.")},
    )


def _dataset(store: Store, generation: Generation, model: mlflow_model.Parts) -> Dataset:
    # built by hand: MLflow's own from_pandas hashes every row (16 s a million), and DVC has hashed them already
    columns = [{"name": name, "type": "double", "required": False} for name in model.features]
    return Dataset(
        name=store.product,
        digest=generation.dataset[:36] or "none",
        source_type="local",
        source=json.dumps({"uri": "data", "dvc": generation.dataset}),
        schema=json.dumps({"mlflow_colspec": columns}),
    )


def _plots(store: Store, generation: Generation, evidence: mlflow_evidence.Evidence) -> None:
    metric = evidence.evaluation.overall.metric
    points = [
        (one.train_rows, one.metrics[metric], one.baseline.get(metric))
        for one in [*generations(store), generation]
        if metric in one.metrics
    ]
    pictures = {"plots/learning_so_far.png": mlflow_plots.learning(points, metric)}
    if evidence.calibration:
        pictures["plots/calibration.png"] = mlflow_plots.calibration(evidence.calibration)
    for name, picture in pictures.items():
        store.client.log_figure(generation.run_id, picture, name)
