"""What a workspace's own MLflow store holds, read from its file in milliseconds, without importing MLflow.

For those who only want to know: whoever decides asks `mlflow_registry`. A store on a server has no file to glance at.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from flywheel import trial
from flywheel.errors import RegistryError
from flywheel.records import Move
from flywheel.trial import Trial

DATABASE = Path("mlruns") / "mlflow.db"
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
_VERSIONS = "SELECT version, run_id FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'"
_MOVES = "SELECT key, value FROM registered_model_tags WHERE name = ? AND key LIKE 'move.%'"
_ROWS = "SELECT value FROM latest_metrics WHERE run_uuid = ? AND key = 'train_rows'"
_TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"
_UNFINISHED = """SELECT count(*) FROM runs JOIN experiments USING (experiment_id) JOIN tags USING (run_uuid)
    WHERE experiments.name = ? AND tags.key = 'kind' AND tags.value = 'generation'
    AND runs.status != 'FINISHED' AND runs.lifecycle_stage = 'active'"""


@dataclass(frozen=True)
class Glance:
    """Who serves, which generations there are, and the training rows of the newest; 0 is the baseline, or none.

    `canary` serves a share of people first and `waiting` waits, 0 is nobody; `trial` is how far either has come.
    """

    champion: int = 0
    previous: int = 0
    generations: int = 0
    unfinished: int = 0
    train_rows: int = 0
    moves: tuple[Move, ...] = ()
    canary: int = 0
    waiting: int = 0
    trial: Trial = field(default_factory=Trial)


def glance(root: Path, product: str) -> Glance:
    """What the store of the workspace at `root` holds.

    Raises:
        RegistryError: it is missing, or is none.
    """
    path = root / DATABASE
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            aliases = {alias: int(version) for alias, version in database.execute(_ALIASES, [product])}
            versions = dict(database.execute(_VERSIONS, [product]).fetchall())
            told = sorted((int(key[5:]), value) for key, value in database.execute(_MOVES, [product]))
            (unfinished,) = database.execute(_UNFINISHED, [product]).fetchone()
            newest = versions[max(versions)] if versions else ""
            rows = database.execute(_ROWS, [newest]).fetchone()
            canary, waiting = (aliases.get(name, 0) for name in ("canary", "waiting"))
            tags = dict(database.execute(_TAGS, [versions.get(canary or waiting, "")]).fetchall())
    except sqlite3.Error as error:
        what, next = "the workspace has no MLflow store that can be read", "restore it from a copy; or flywheel init ."
        raise RegistryError(what, where=str(path), why=str(error), next=next) from error
    return Glance(
        champion=aliases.get("champion", 0),
        previous=aliases.get("previous", 0),
        generations=len(versions),
        unfinished=unfinished,
        train_rows=int(rows[0]) if rows else 0,
        moves=tuple(_move(value) for _, value in told),
        canary=canary,
        waiting=waiting,
        trial=trial.read(tags),
    )


def _move(text: str) -> Move:
    values = json.loads(text)
    return Move(**values | {"when": datetime.fromisoformat(values["when"])})
