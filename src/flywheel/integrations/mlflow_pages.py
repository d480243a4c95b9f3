"""The page that a turn leaves with its generation."""

from pathlib import Path

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from flywheel.integrations.mlflow_store import Store
from flywheel.records import Generation


def log(store: Store, generation: Generation, page: Path) -> None:
    """Put a page beside the other artifacts of a generation's run, under its own name; MLflow shows it as it is."""
    with store.answering():
        uri = store.client.get_run(generation.run_id).info.artifact_uri
        # the client itself remembers for good where a run's artifacts went first, also of a workspace that moved
        get_artifact_repository(uri).log_artifact(str(page))  # type: ignore[no-untyped-call]
