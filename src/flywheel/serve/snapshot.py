"""All that a ranker needs, as a folder of plain files: a generation, the state it serves from, and how both are read.

snapshot.json     the small things, and the SHA-256 of every file, itself included
model.ubj         the model in XGBoost's own format; absent while there is none
golden.npy        rows of features, and in golden_scores.npy how the model scored them when it was fitted
<counter>.keys.npy, <counter>.entries.npy    the counters: ascending hashes, and what is remembered of each
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel import config as settings
from flywheel.config import Config
from flywheel.errors import IntegrityError
from flywheel.fingerprint import sha256, sync
from flywheel.segments import Entries, Keys, load

CONTENTS, MODEL = "snapshot.json", "model.ubj"
GOLDEN, GOLDEN_SCORES = "golden.npy", "golden_scores.npy"
FORMAT = 1
NEXT = "flywheel turn, which publishes it anew"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A generation and the state it serves from.

    Args:
        generation: the champion's number; 0 is the baseline.
        recipe: the fingerprint of how its features are made.
        config: the config it was trained by.
        state: the window that features are looked up as of, `schema.NOTHING` before there is one.
        counters: by table (`learn.features.table`) the keys, ascending, and the rest of their entries.
        vocabularies: by categorical column the number of each name known, by its hash.
        names: the model's columns; `types` are XGBoost's, `sizes` how many names each categorical one knew.
        model: UBJ, or None for the baseline.
        custom: the text of the workspace's features.py; empty where there is none.
        golden: rows of features, float32 of shape (n, len(names)); `golden_scores` are the model's for them.
    """

    generation: int
    recipe: str
    config: Config
    state: int
    counters: dict[str, tuple[Keys, Entries]]
    vocabularies: dict[str, dict[int, int]]
    names: tuple[str, ...]
    types: tuple[str, ...]
    sizes: dict[str, int]
    model: bytes | None
    custom: str
    golden: npt.NDArray[np.float32]
    golden_scores: npt.NDArray[np.float64]


def write(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot to `folder`, which is not there yet; it appears whole or not at all.

    A kill leaves at most a folder beside it whose name begins with a dot and ends in `.partial`.
    """
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        files = {name: _write(partial / name, content) for name, content in _files(snapshot).items()}
        told = _told(snapshot) | {"files": files}
        _write(partial / CONTENTS, json.dumps(told | {"sha256": _digest(told)}).encode())
        sync(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(folder.parent)


def read(folder: Path) -> Snapshot:
    """Read a snapshot back, byte by byte what was written; counters are mapped.

    Raises:
        IntegrityError: a file is missing, or is not what was written.
        ConfigError: its config is that of another version.
    """
    told = _contents(folder)
    for name, expected in told["files"].items():
        _verify(folder / name, expected)
    counters = {
        table: (_array(folder / f"{table}.keys.npy", "r"), _array(folder / f"{table}.entries.npy", "r"))
        for table in told["counters"]
    }
    return Snapshot(
        generation=told["generation"],
        recipe=told["recipe"],
        config=settings.parse(told["config"], where=str(folder / CONTENTS)),
        state=told["state"],
        counters=counters,
        vocabularies={c: {int(k): n for k, n in numbers.items()} for c, numbers in told["vocabularies"].items()},
        names=tuple(told["names"]),
        types=tuple(told["types"]),
        sizes=told["sizes"],
        model=(folder / MODEL).read_bytes() if MODEL in told["files"] else None,
        custom=told["custom"],
        golden=_array(folder / GOLDEN),
        golden_scores=_array(folder / GOLDEN_SCORES),
    )


def _told(snapshot: Snapshot) -> dict[str, Any]:
    """What is kept in snapshot.json."""
    return {
        "format": FORMAT,
        "generation": snapshot.generation,
        "recipe": snapshot.recipe,
        "config": snapshot.config.model_dump(mode="json", exclude_none=True),
        "state": snapshot.state,
        "counters": list(snapshot.counters),
        "vocabularies": {c: {str(k): n for k, n in v.items()} for c, v in snapshot.vocabularies.items()},
        "names": snapshot.names,
        "types": snapshot.types,
        "sizes": snapshot.sizes,
        "custom": snapshot.custom,
    }


def _files(snapshot: Snapshot) -> dict[str, bytes | npt.NDArray[Any]]:
    files: dict[str, bytes | npt.NDArray[Any]] = {GOLDEN: snapshot.golden, GOLDEN_SCORES: snapshot.golden_scores}
    if snapshot.model is not None:
        files[MODEL] = snapshot.model
    for table, (keys, entries) in snapshot.counters.items():
        files |= {f"{table}.keys.npy": keys, f"{table}.entries.npy": entries}
    return files


def _write(path: Path, content: bytes | npt.NDArray[Any]) -> str:
    """Write a file durably; its SHA-256."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=False)
    sync(path)
    return sha256(path)


def _digest(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> dict[str, Any]:
    path = folder / CONTENTS
    told = _reading(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(told, dict) or told.pop("sha256", None) != _digest(told):
        raise _broken(path, "its own hash does not fit it")
    if told["format"] != FORMAT:
        raise _broken(path, f"it has format {told['format']}, and this version reads {FORMAT}")
    return told


def _verify(path: Path, expected: str) -> None:
    found = _reading(path, lambda: sha256(path))
    if found != expected:
        raise _broken(path, f"expected {expected[:12]}, found {found[:12]}")


def _array(path: Path, mapped: Any = None) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = _reading(path, lambda: load(path, mapped))
    return array


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from None


def _broken(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{path.name} of the snapshot is not what was written", where=str(path), why=why, next=NEXT)
