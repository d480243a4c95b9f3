"""Served is trained: what the ranker looked up is recomputed from the dataset before anything is learned."""

import json

import numpy as np

from flows import deciding, spreading
from flows.progress import tell
from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.fingerprint import atomic_write
from flywheel.learn.matrix import Recipe
from flywheel.measure import skew
from flywheel.workspace import Workspace

MARK = "compared.json"  # the newest window compared, with its address: rebuildable, like all of `.flywheel`


def compare(ws: Workspace) -> int:
    """Compare the windows closed since the last comparison; how many rows were recomputed.

    What the comparison builds is what the next fit needs: the matrices of these windows, and the state after them.

    Raises:
        IntegrityError: a row was served with other features than the dataset gives.
    """
    grid = ws.config.windows.grid
    chain = dataset.chain(ws.ledger())
    names = list(chain)
    since = _compared(ws, chain)
    fresh = names[names.index(since) + 1 :] if since else names
    if not fresh:  # what an hourly collect finds most of the time
        return 0
    recipes = serving_recipes(ws)
    compared = 0
    for recipe in recipes:
        cache = ws.matrices(recipe)
        spreading.build(cache, [grid.parse(name) for name in fresh])
        for name in fresh:
            compared += _window(ws, recipe, name)
            tell("compare", compared)
    mark = {"window": names[-1], "address": chain[names[-1]]}
    atomic_write(ws.cache / MARK, lambda path: path.write_text(json.dumps(mark)))
    return compared


def serving_recipes(ws: Workspace) -> list[Recipe]:
    """The recipes that answer people: today's, and the champion's and the canary's where they are others."""
    serve = deciding.champion(ws), deciding.canary(ws)
    own = [deciding.recipe_of(ws, deciding.generation(ws, number)) for number in serve if number]
    return list({recipe.fingerprint: recipe for recipe in (ws.recipe, *own)}.values())


def _window(ws: Workspace, recipe: Recipe, name: str) -> int:
    """Compare the rows of a window that this recipe served; how many there were."""
    table = dataset.read_window(ws.data, name, ["event_id", "recipe", "features"])
    theirs = np.array([served == recipe.fingerprint for served in table["recipe"].to_pylist()], dtype=bool)
    if not theirs.any():
        return 0
    at = np.flatnonzero(theirs)
    matrix = ws.matrices(recipe).load(ws.config.windows.grid.parse(name))[at]
    off = skew.differing(table["features"].take(at).to_numpy(), matrix)
    if len(off):
        ids = table["event_id"].take(at[off[:3]]).to_pylist()
        raise IntegrityError(
            f"{len(off):,} of {len(at):,} rows of window {name} were served with other features than the dataset gives",
            where=f"event {', '.join(map(str, ids))}",
            why="what a model learned from such rows is not what it will be asked with",
            next="flywheel serve again if its code is older than this; else see where the state was changed by hand",
        )
    return len(at)


def _compared(ws: Workspace, chain: dict[str, str]) -> str | None:
    """The newest window compared, of this very dataset; None where it is not known."""
    try:
        mark = json.loads((ws.cache / MARK).read_text())
        return str(mark["window"]) if chain.get(mark["window"]) == mark["address"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
