"""What serves is written down as plain files whenever it changes, for a server that knows neither MLflow nor data.

A process of its own, for the registry takes a second to import and its answers would hold up those of the server. It
tells its parent, a line of JSON each: `{"snapshot": FOLDER}` once there is something new, with a `"canary"` and its
`"share"` where one serves, or why it cannot in `"no_canary"`; `{"unchanged": true}` when it looked and there is not;
`{"failed": WHY}` when it could not tell; and it ends when its parent does.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from flows import deciding
from flywheel import trial
from flywheel.errors import FlywheelError
from flywheel.integrations import mlflow_registry
from flywheel.learn import train
from flywheel.learn.matrix import Recipe
from flywheel.learn.train import Columns
from flywheel.schema import NOTHING
from flywheel.serve import snapshot as snapshots
from flywheel.serve.snapshot import Snapshot
from flywheel.workspace import Workspace

EVERY = 3.0  # seconds between two looks at the registry
KEPT = 3  # snapshots: the newest, and those that a server may still be reading


def folder_of(ws: Workspace) -> Path:
    """Where the snapshots of a workspace are, all of them rebuildable."""
    return ws.cache / "serving"


def canary_folder_of(ws: Workspace) -> Path:
    """Where those of canaries are, apart: a server that begins takes the newest snapshot for that of everybody."""
    return ws.cache / "canary"


def current(ws: Workspace) -> Snapshot:
    """What serves now: the registry's champion, or the baseline, and the newest state of its recipe.

    Raises:
        RegistryError: the registry cannot answer.
        IntegrityError: the champion is not what was stored, or the state changed while it was read.
    """
    return of(ws, deciding.champion(ws))


def trying(ws: Workspace) -> tuple[Snapshot, float] | None:
    """What a share of the wheel's users is served by first, and the share; None while there is no canary.

    Raises:
        RegistryError: the registry cannot answer.
        IntegrityError: the canary is not what was stored, or the state changed while it was read.
    """
    number = deciding.canary(ws)
    told = trial.read(deciding.generation(ws, number).tags).canary if number else None
    return None if told is None else (of(ws, number), told.share)


def of(ws: Workspace, number: int) -> Snapshot:
    """A generation, or the baseline, with the newest state of its recipe.

    Raises:
        RegistryError: the registry cannot answer.
        IntegrityError: it is not what was stored, or the state changed while it was read.
    """
    if number == 0:
        return _snapshot(ws, 0, ws.recipe, Columns(ws.recipe.names, ws.recipe.types, {}), None, _no_rows(ws.recipe))
    stored = mlflow_registry.load(deciding.open_store(ws), number).parts
    recipe = deciding.recipe_of(ws, deciding.generation(ws, number))
    columns = Columns(stored.features, stored.types, dict(stored.vocabulary))
    return _snapshot(ws, number, recipe, columns, stored.model, stored.golden)


def publish(ws: Workspace) -> dict[str, object]:
    """Write down what serves now, if it is not there already; what the parent is told of it."""
    told: dict[str, object] = {"snapshot": str(_written(ws, folder_of(ws), current(ws)))}
    try:
        tried = trying(ws)
        if tried is not None:
            told |= {"canary": str(_written(ws, canary_folder_of(ws), tried[0])), "share": tried[1]}
    except (FlywheelError, OSError) as error:  # the champion serves everybody then
        told |= {"no_canary": " ".join(str(error).split())}
    return told


def _written(ws: Workspace, under: Path, made: Snapshot) -> Path:
    chain = ws.matrices().chain
    address = chain[made.state][:12] if made.state in chain else "nothing"
    folder = under / f"{made.generation}-{made.recipe}-{address}"
    if not folder.exists():
        snapshots.write(folder, made)
    os.utime(folder)
    newest = sorted(under.glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns)
    for old in newest[:-KEPT]:
        shutil.rmtree(old)
    return folder


def watch(root: Path) -> None:
    """Publish whenever champion or state changes, until the parent is gone."""
    parent, seen = os.getppid(), None
    while os.getppid() == parent:
        told: dict[str, object]
        try:
            ws = Workspace.open(root)
            now = _changes(ws)
            told = {"unchanged": True} if now == seen else publish(ws)
            seen = now
        except (FlywheelError, OSError) as error:
            told, seen = {"failed": " ".join(str(error).split())}, None
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        time.sleep(EVERY)


def _changes(ws: Workspace) -> tuple[object, ...]:
    """What a snapshot is made from, as cheaply as can be told."""
    manifests = sorted((ws.cache / "state").glob("*/manifest.json"))
    serves = deciding.champion(ws), deciding.canary(ws)
    return *serves, ws.config, *((path, path.stat().st_mtime_ns) for path in manifests)


def _no_rows(recipe: Recipe) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.empty((0, len(recipe.names)), np.float32)


def _snapshot(
    ws: Workspace,
    number: int,
    recipe: Recipe,
    columns: Columns,
    model: bytes | None,
    golden: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
) -> Snapshot:
    known = ws.matrices(recipe).known()
    return Snapshot(
        generation=number,
        recipe=recipe.fingerprint,
        config=recipe.spec.config,
        state=known.window if known else NOTHING,
        counters=known.counters if known else {},
        vocabularies=known.vocabularies if known else {},
        names=columns.names,
        types=columns.types,
        sizes=columns.vocabulary,
        model=model,
        custom=recipe.custom.text,
        golden=golden,
        golden_scores=train.predict(model, columns, golden) if model else np.empty(0),
    )


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
