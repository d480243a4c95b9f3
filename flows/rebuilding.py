"""A generation made again from nothing but its MLflow run: its data, config, code and seed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from flows import deciding, learning
from flows.learning import Scorer
from flows.progress import listening
from flows.run import Watch
from flows.spreading import spreading
from flywheel import config as settings
from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.fingerprint import Seen
from flywheel.integrations import dvc_data, mlflow_tracking
from flywheel.learn.plan import plan
from flywheel.records import Generation
from flywheel.workspace import Workspace


@dataclass(frozen=True)
class Rebuilt:
    """Whether a generation came out the same again."""

    generation: int
    same_matrix: bool
    same_metrics: bool
    differences: dict[str, tuple[float, float]]
    scratch: str

    @property
    def identical(self) -> bool:
        """Whether training matrix and metrics are the same, to the last bit."""
        return self.same_matrix and self.same_metrics

    @property
    def says(self) -> str:
        """The result in words."""
        if self.identical:
            return f"generation {self.generation} rebuilt: training matrix and metrics are identical"
        matrix = "the same" if self.same_matrix else "another"
        moved = ", ".join(f"{name} {then:.6f} → {now:.6f}" for name, (then, now) in self.differences.items())
        return f"generation {self.generation} rebuilt: {matrix} training matrix; {moved or 'the same metrics'}"


def rebuild(ws: Workspace, number: int, *, on_progress: Watch) -> Rebuilt:
    """Train a generation again in a scratch folder, and compare.

    Raises:
        RegistryError: there is no such generation.
        IntegrityError: its data is gone, or not what it was.
    """
    made = deciding.generation(ws, number)
    scratch, parts = _scratch(ws, made), int(made.tags.get("parts", 1))
    compute = ws.config.compute.model_copy(update={"engine": "dask" if parts > 1 else "local", "workers": parts})
    with on_progress() as listener, listening(listener), spreading(scratch, compute):
        planned = plan(scratch.ledger(), scratch.config, made.as_of)
        trained = learning.fit(scratch, planned, "rebuild")
        examined = learning.examine(scratch, planned, trained, Scorer(0, scratch.recipe))
    now = examined.evaluation.challenger
    differences = {k: (v, now[k]) for k, v in made.metrics.items() if now.get(k) != v}
    return Rebuilt(
        number, trained.matrix_hash == made.tags["matrix_hash"], not differences, differences, str(scratch.root)
    )


def _scratch(ws: Workspace, made: Generation) -> Workspace:
    """A workspace of its own with the generation's data and config, and nothing cached."""
    root = ws.cache / "rebuild" / str(made.generation)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    store = deciding.open_store(ws)
    config = settings.parse(json.loads(mlflow_tracking.artifact(store, made, deciding.CONFIG)))
    (root / deciding.OWN_FEATURES).write_bytes(mlflow_tracking.artifact(store, made, deciding.OWN_FEATURES))
    dvc_data.checkout(ws.root, made.dataset, root / "data")
    scratch = Workspace(root, config)
    dataset.verify_windows(scratch.data, scratch.ledger(), Seen(Path(scratch.cache) / "seen.json"))
    if scratch.recipe.fingerprint != made.tags["recipe"]:
        commit = made.code.split("+")[0] or "its commit"
        raise IntegrityError(
            f"generation {made.generation} was made by another version of the code",
            why=f"its columns were made by recipe {made.tags['recipe']}, today's is {scratch.recipe.fingerprint}",
            next=f"rebuild with the Flywheel that made it, and the workspace at {commit}",
        )
    return scratch
