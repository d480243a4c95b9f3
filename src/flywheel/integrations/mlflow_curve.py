"""Quality against data in MLflow's line charts: the generations as one line, curves of one instant as others.

They do not say the same. Each generation sat an exam of its own, so their line mixes more data with other questions;
the points of a curve sat one exam, so it shows what data alone is worth. Both runs say so.
"""

import time
from collections.abc import Mapping

from mlflow.entities import Metric, RunTag

from flywheel.evidence import Curve
from flywheel.integrations.mlflow_store import Store
from flywheel.records import Generation

LEARNING_CURVE = "learning curve"
GENERATIONS, INSTANT = "learning-curve", "curve"  # the kinds of run, as their tags say
_OF_GENERATIONS = (
    "Every generation as one point of a line; Step is the number of rows it was trained on. The exams of the "
    "generations differ: what data alone is worth is told by the runs named `curve`, whose points sat one exam "
    "(`flywheel curve`)."
)
_OF_AN_INSTANT = (
    "Models fitted on ever more of the same rows, as of one instant; Step is the number of rows. All sat the same "
    "exam, unlike the generations, which the run `learning curve` shows as a line: each of them sat its own."
)


def extend(store: Store, generation: Generation) -> str:
    """Add the generation to the run `learning curve` unless it is there; returns that run's id."""
    step, now = generation.train_rows, int(time.time() * 1000)
    metrics = generation.metrics | {f"baseline_{name}": value for name, value in generation.baseline.items()}
    metrics |= {"generation": generation.generation}
    with store.answering():
        run_id = _run(store, GENERATIONS, LEARNING_CURVE, "all", _OF_GENERATIONS)
        there = store.client.get_metric_history(run_id, "generation")
        if all(point.value != generation.generation for point in there):
            store.client.log_batch(run_id, [Metric(k, float(v), now, step) for k, v in metrics.items()])
    return run_id


def log(store: Store, curve: Curve) -> str:
    """Keep a curve as a run of its own, with its forecast as further lines; the same curve is kept once."""
    now = int(time.time() * 1000)
    lines: list[tuple[str, float, int]] = []
    for point in curve.points:
        lines += [(curve.metric, point.quality, point.rows), (f"{curve.metric}_se", point.se, point.rows)]
    for ahead in curve.forecast:
        told = {"": ahead.quality.value, "_low": ahead.quality.low, "_high": ahead.quality.high}
        lines += [(f"{curve.metric}_{ahead.kind}{part}", value, ahead.rows) for part, value in told.items()]
    note = "\n\n".join([*curve.says, _OF_AN_INSTANT])
    with store.answering():
        run_id = _run(store, INSTANT, f"curve as of {curve.as_of:%Y-%m-%d}", curve.made_from, note)
        if not store.client.get_metric_history(run_id, curve.metric):
            metrics = [Metric(name, value, now, step) for name, value, step in lines]
            store.client.log_batch(run_id, metrics, tags=[RunTag(k, v) for k, v in _told(curve).items()])
    return run_id


def _told(curve: Curve) -> Mapping[str, str]:
    return {"as_of": curve.as_of.isoformat(), "shape": curve.shape, "region": curve.region}


def _run(store: Store, kind: str, name: str, made_from: str, note: str) -> str:
    """The run of a kind that was made from something, begun anew where there is none; it always says `note`."""
    wanted = f"tags.kind = '{kind}'" + ("" if kind == GENERATIONS else f" AND tags.made_from = '{made_from}'")
    found = store.client.search_runs([store.experiment], wanted, max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        store.client.set_tag(run_id, "mlflow.note.content", note)
        return run_id
    tags = {"kind": kind, "made_from": made_from, "mlflow.note.content": note}
    run = store.client.create_run(store.experiment, run_name=name, tags=tags)
    store.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
