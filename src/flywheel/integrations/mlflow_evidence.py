"""What goes with a generation's run beyond its numbers: findings, slices and files, and the note that MLflow shows."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flywheel.integrations.mlflow_store import Store
from flywheel.records import Evaluation, Generation, Verdict


@dataclass(frozen=True)
class Evidence:
    """What goes with a generation beyond its numbers.

    `config` is flywheel.toml as it was, `params` its feature and training sections, flattened. `calibration` maps a
    model's name to its (mean prediction, observed mean, rows) per bin. `files` are kept as they are, by name.
    """

    evaluation: Evaluation
    verdict: Verdict
    config: str
    params: Mapping[str, object] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def note(generation: Generation, verdict: Verdict) -> str:
    """The decision as the markdown that MLflow shows above a run."""
    lines = [f"**{verdict.decision}**: {_cell(verdict.reason)}", ""]
    lines += ["| finding | status | value | threshold | n | |", "|---|---|---:|---:|---:|---|"]
    lines += [
        f"| {_cell(f.name)} | {f.status} | {f.value:.4g} | {f.threshold:.4g} | {f.n:,} | {_cell(f.detail)} |"
        for f in verdict.findings
    ]
    trained, exam = generation.trained_windows, generation.exam_windows
    against = f"generation {generation.examined_against}" if generation.examined_against else "the baseline"
    lines += [
        "",
        f"Trained on {generation.train_rows:,} rows of windows {trained[0]} to {trained[1]}; examined against "
        f"{against} on {generation.exam_rows:,} rows of windows {exam[0]} to {exam[1]}.",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def keep(store: Store, run_id: str, evidence: Evidence) -> None:
    """Keep it as the run's artifacts, in strict JSON and as it is."""
    evaluation = asdict(evidence.evaluation)
    slices = evaluation.pop("slices")
    parts = {
        "findings.json": [asdict(finding) for finding in evidence.verdict.findings],
        "slices.json": slices,
        "evaluation.json": evaluation,
        "importance.json": dict(evidence.importance),
    }
    for name, value in parts.items():
        store.client.log_text(run_id, json.dumps(_plain(value), indent=1, allow_nan=False), name)
    for name, text in {"config.toml": evidence.config, **evidence.files}.items():
        store.client.log_text(run_id, text, name)


def _plain(value: Any) -> Any:
    """The value as strict JSON: what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
