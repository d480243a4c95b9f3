"""The MLflow store of a workspace: SQLite under `mlruns/`, artifacts beside it.

A store is made once, under a lock, because MLflow's own first start is not safe against a second one. MLflow keeps
absolute paths; a workspace that was moved is given its new ones as it is opened.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from flywheel.errors import IntegrityError, RegistryError

ARTIFACTS = Path("mlruns") / "artifacts"
DATABASE = Path("mlruns") / "mlflow.db"
NOTE = (
    "Each point is one generation; Step is the number of rows that it was trained on. "
    "A line that still climbs at its right end says that more data still makes a better model."
)
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("mlflow.utils.environment").setLevel(
    logging.ERROR
)  # warns where a venv has no pip; requirements are given


@dataclass(frozen=True)
class Store:
    """An open store: one product's experiment, and the client that reaches it."""

    root: Path
    product: str
    client: MlflowClient
    experiment: str

    def local(self, uri: str) -> Path:
        """Where this workspace keeps what MLflow calls `uri`, wherever the workspace was when it was written.

        Raises:
            IntegrityError: the artifact is kept outside of `mlruns/artifacts`.
        """
        return self.root / ARTIFACTS / _tail(uri)


def address(root: Path) -> str:
    """The tracking URI of the store of the workspace at `root`."""
    return f"sqlite:///{(root / DATABASE).resolve()}"


def create(root: Path, product: str) -> Store:
    """Make the store if there is none, and open it; safe while other processes do the same."""
    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    (root / ".flywheel").mkdir(exist_ok=True)
    with FileLock(root / ".flywheel" / "mlflow.lock"), answering(root):
        client = MlflowClient(tracking_uri=address(root))
        if client.get_experiment_by_name(product) is None:
            location = str((root / ARTIFACTS).resolve())
            tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
            client.create_experiment(product, artifact_location=location, tags=tags)
    return open(root, product)


def open(root: Path, product: str) -> Store:
    """Open the store that `create` made.

    Raises:
        RegistryError: it is missing, unreadable, or of another version of MLflow. An absent store is no empty one:
            a gate that took it for one would find no champion, and promote.
    """
    path = root / DATABASE
    if not path.is_file() or path.stat().st_size == 0:
        raise _missing(root, f"{DATABASE} is {'empty' if path.is_file() else 'not there'}")
    with answering(root):
        _follow_move(root)
        client = MlflowClient(tracking_uri=address(root))
        experiment = client.get_experiment_by_name(product)
    if experiment is None:
        raise _missing(root, f"{DATABASE} has no experiment called {product}")
    return Store(root, product, client, experiment.experiment_id)


@contextmanager
def answering(root: Path) -> Iterator[None]:
    """Turn whatever keeps MLflow from answering into a RegistryError."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        why = " ".join(str(error).split())[:200]
        what = f"MLflow cannot answer: {type(error).__name__}"
        if "out-of-date database schema" in why:
            raise RegistryError(
                "the MLflow store was made by another version of MLflow",
                where=str(root / DATABASE),
                next=f"mlflow db upgrade sqlite:///{DATABASE}",
            ) from error
        next = f"restore {DATABASE} from a copy; without one, move mlruns away and run: flywheel init ."
        raise RegistryError(what, where=str(root / DATABASE), why=why, next=next) from error


def _missing(root: Path, why: str) -> RegistryError:
    next = "restore mlruns from a copy; to start with no generations: flywheel init ."
    return RegistryError("the workspace has no MLflow store", where=str(root / DATABASE), why=why, next=next)


def _tail(uri: str) -> str:
    mark = f"/{ARTIFACTS.as_posix()}"
    _, found, tail = uri.rpartition(mark)
    parts = Path(tail.lstrip("/")).parts
    if not found or ".." in parts:
        why = "Flywheel keeps models in mlruns/artifacts only"
        raise IntegrityError("an artifact lies outside of the workspace", where=uri, why=why)
    return str(Path(*parts))


def _follow_move(root: Path) -> None:
    """Rewrite MLflow's absolute paths if the workspace is no longer where they say."""
    mark, here = f"/{ARTIFACTS.as_posix()}", str((root / ARTIFACTS).resolve())
    with closing(sqlite3.connect(root / DATABASE, timeout=30)) as database:
        stored = database.execute(
            "SELECT artifact_location FROM experiments WHERE artifact_location LIKE ?", [f"%{mark}"]
        )
        old = {location for (location,) in stored} - {here}
        with database:
            for location in old:
                for table, column in _PATHS:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        [here, len(location) + 1, len(location), location],
                    )
