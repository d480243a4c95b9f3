"""The MLflow store of a workspace: SQLite under `mlruns/` and artifacts beside it, or where `[registry]` says.

A store is made once, under a lock, because MLflow's own first start is not safe against a second one. MLflow keeps
absolute paths; a workspace that was moved is given its new ones as it is opened.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from flywheel.errors import ConfigError, IntegrityError, RegistryError
from flywheel.integrations import shared_lock
from flywheel.sections import Registry

ARTIFACTS = Path("mlruns") / "artifacts"
DATABASE = Path("mlruns") / "mlflow.db"
NOTE = (
    "Each point is one generation; Step is the number of rows that it was trained on. "
    "A line that still climbs at its right end says that more data still makes a better model."
)
ROOM = "free some space, then run the same command again"
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("mlflow.utils.environment").setLevel(
    logging.ERROR
)  # warns where a venv has no pip; requirements are given
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what a database refuses, `answering` says


@dataclass(frozen=True)
class Store:
    """An open store: one product's experiment, and the client that reaches it."""

    root: Path
    product: str
    client: MlflowClient
    experiment: str
    registry: Registry | None = None

    def local(self, uri: str) -> Path:
        """Where this machine has what MLflow calls `uri`: its own copy, however far away or moved the original is.

        Raises:
            IntegrityError: the artifact is kept outside of where this workspace keeps its own.
            RegistryError: it cannot be fetched.
        """
        if self.registry is None or self.registry.artifacts is None:
            return self.root / ARTIFACTS / _tail(uri)
        return self._fetched(uri, self.registry.artifacts.rstrip("/"))

    def answering(self) -> AbstractContextManager[None]:
        """Turn whatever keeps MLflow from answering into a RegistryError."""
        return answering(self.root, self.registry)

    def _fetched(self, uri: str, base: str) -> Path:
        if not uri.startswith(f"{base}/") or ".." in uri.split("/"):
            why = f"Flywheel keeps models under {base} only"
            raise IntegrityError("an artifact lies outside of where generations are kept", where=uri, why=why)
        copy = self.root / ".flywheel" / "artifacts" / uri.removeprefix(f"{base}/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self.answering():
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(copy.parent)))


def address(root: Path, registry: Registry | None = None) -> str:
    """The tracking URI of the store of the workspace at `root`."""
    if registry is None:
        return f"sqlite:///{(root / DATABASE).resolve()}"
    url = shared_lock.server(registry.url) or make_url(registry.url)
    return url.render_as_string(hide_password=False)


def create(root: Path, product: str, registry: Registry | None = None) -> Store:
    """Make the store if there is none, and open it; safe while other processes of this machine do the same."""
    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    (root / ".flywheel").mkdir(exist_ok=True)
    with FileLock(root / ".flywheel" / "mlflow.lock"), answering(root, registry):
        client = MlflowClient(tracking_uri=address(root, registry))
        if client.get_experiment_by_name(product) is None:
            location = (registry and registry.artifacts) or str((root / ARTIFACTS).resolve())
            tags = {"mlflow.note.content": NOTE, "mlflow.experimentKind": "custom_model_development"}
            client.create_experiment(product, artifact_location=location, tags=tags)
    return open(root, product, registry)


def open(root: Path, product: str, registry: Registry | None = None) -> Store:
    """Open the store that `create` made.

    Raises:
        RegistryError: it is missing, unreadable, or of another version of MLflow. An absent store is no empty one:
            a gate that took it for one would find no champion, and promote.
    """
    path = root / DATABASE
    if registry is None and (not path.is_file() or path.stat().st_size == 0):
        raise _missing(str(path), f"{DATABASE} is {'empty' if path.is_file() else 'not there'}")
    with answering(root, registry):
        if registry is None:
            _follow_move(root)
        client = MlflowClient(tracking_uri=address(root, registry))
        experiment = client.get_experiment_by_name(product)
    if experiment is None:
        raise _missing(_where(root, registry), f"it has no experiment called {product}")
    return Store(root, product, client, experiment.experiment_id, registry)


@contextmanager
def answering(root: Path, registry: Registry | None = None) -> Iterator[None]:
    """Turn whatever keeps MLflow from answering into a RegistryError."""
    where = _where(root, registry)
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        why = " ".join(str(error).split())[:200]
        what = f"MLflow cannot answer: {type(error).__name__}"
        if "out-of-date database schema" in why:
            raise _other_version(why, where, registry) from error
        if "disk is full" in why or "No space left" in why:
            raise RegistryError("the disk is full", where=where, why=why, next=ROOM) from error
        next = f"restore {DATABASE} from a copy; without one, move mlruns away and run: flywheel init ."
        if registry is not None:
            next = "see to the database that registry.url names; what was begun is taken up by: flywheel turn"
        raise RegistryError(what, where=where, why=why, next=next) from error
    except ImportError as error:
        raise ConfigError(f"{where} needs {error.name}", next=f"pip install {error.name}") from None


def _other_version(why: str, where: str, registry: Registry | None) -> RegistryError:
    """A store whose tables are not those of this MLflow: earlier ones can be upgraded, later ones not be read."""
    found = re.search(r"found version (\w+)", why)
    ours = resources.files("mlflow.store.db_migrations") / "versions"
    if found and not any(file.name.startswith(f"{found[1]}_") for file in ours.iterdir()):
        next = "pip install --upgrade mlflow, or restore the copy that was made before the upgrade"
        return RegistryError("the MLflow store was made by a later version of MLflow", where=where, next=next)
    url = f"sqlite:///{DATABASE}" if registry is None else "the registry.url of flywheel.toml"
    what = "the MLflow store was made by an earlier version of MLflow"
    return RegistryError(what, where=where, next=f"mlflow db upgrade {url}")


def _where(root: Path, registry: Registry | None) -> str:
    """What people call the store: a file, or a server and database without user or password."""
    if registry is None:
        return str(root / DATABASE)
    return shared_lock.label(make_url(registry.url))


def _missing(where: str, why: str) -> RegistryError:
    next = "restore mlruns, or the registry's database, from a copy; to start with no generations: flywheel init ."
    return RegistryError("the workspace has no MLflow store", where=where, why=why, next=next)


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
