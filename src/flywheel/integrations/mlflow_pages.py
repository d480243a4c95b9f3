"""The page that a turn leaves with its generation."""

from flywheel.integrations.mlflow_store import Store, answering
from flywheel.records import Generation

NAME = "report.html"


def log(store: Store, generation: Generation, html: str) -> None:
    """Put a page beside the other artifacts of a generation's run, which MLflow shows as it is."""
    with answering(store.root):
        store.client.log_text(generation.run_id, html, NAME)
