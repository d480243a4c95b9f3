"""The page that says whether the wheel turns, made from what is known already: nothing is measured for it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import deciding
from flows.evidence import kept
from flywheel import evidence
from flywheel.errors import ConfigError, RegistryError
from flywheel.fingerprint import atomic_write
from flywheel.found import PAGE
from flywheel.integrations import mlflow_pages, mlflow_registry, mlflow_tracking
from flywheel.integrations.mlflow_store import Store
from flywheel.measure import report as pages
from flywheel.measure.page.known import Known
from flywheel.records import Comparison, Finding, Generation, Interval, Slice
from flywheel.watched import Watched
from flywheel.workspace import Workspace

NAN = float("nan")


@dataclass(frozen=True)
class Reported:
    """Where a page is, and its first sentence."""

    path: str
    says: str


def report(ws: Workspace, out: Path | None = None) -> Reported:
    """Write the page, to `.flywheel/report.html` or to a file of one's choice.

    Raises:
        ConfigError: it cannot be written there.
    """
    told = known(ws)
    path = out or ws.cache / PAGE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda at: at.write_text(pages.page(told), encoding="utf-8"))
    except OSError as error:
        why = f"{type(error).__name__}: {error.strerror}"
        raise ConfigError(
            "the page cannot be written", where=str(path), why=why, next="flywheel report --out FILE"
        ) from None
    return Reported(str(path), pages.headline(told))


def log(ws: Workspace, generation: int) -> Path:
    """Write the page, and put it with the generation's run in MLflow; where it is in the workspace."""
    path = Path(report(ws).path)
    mlflow_pages.log(deciding.open_store(ws), deciding.generation(ws, generation), path)
    return path


def known(ws: Workspace) -> Known:
    """All that the page is made from; what nobody measured yet is left out."""
    store = deciding.open_store(ws)
    made = mlflow_tracking.generations(store)
    champion = mlflow_registry.state(store).champion
    serving = next((g for g in made if g.generation == champion), None)
    return Known(
        product=ws.config.product.name,
        metric=ws.config.metric,
        at=datetime.now(UTC),
        generations=tuple(made),
        champion=champion,
        moves=tuple(mlflow_registry.moves(store)),
        ledger=ws.ledger(),
        findings=tuple(_finding(f) for f in _artifact(store, made[-1:], "findings.json")),
        slices=tuple(_slice(s) for s in _artifact(store, made[-1:], "slices.json")),
        importance=dict(_artifact(store, [serving] if serving else [], "importance.json")),
        serves=ws.config.serve is not None,
        curve=kept(ws, evidence.Curve),
        why=kept(ws, evidence.Why),
        staleness=kept(ws, evidence.Staleness),
        network=kept(ws, evidence.Network),
        offpolicy=kept(ws, evidence.OffPolicy),
        exploration=kept(ws, evidence.Exploration),
        gain=kept(ws, evidence.Gain),
        hazards=kept(ws, evidence.Hazards),
        watched=kept(ws, Watched),
    )


def _artifact(store: Store, made: list[Generation], name: str) -> Any:
    """An artifact of the only generation; empty where there is none."""
    try:
        return json.loads(mlflow_tracking.artifact(store, made[0], name)) if made else {}
    except RegistryError:
        return {}


def _finding(told: dict[str, Any]) -> Finding:
    return Finding(**told | {key: NAN if told[key] is None else told[key] for key in ("value", "threshold")})


def _slice(told: dict[str, Any]) -> Slice:
    comparison = told["comparison"]
    difference = Interval(**_numbers(comparison["difference"]))
    return Slice(**told | {"comparison": Comparison(**_numbers(comparison) | {"difference": difference})})


def _numbers(told: dict[str, Any]) -> dict[str, Any]:
    """The values as they were before JSON, which has no word for what is no number."""
    return {key: NAN if value is None else value for key, value in told.items()}
