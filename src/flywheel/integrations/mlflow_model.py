"""A model as it is kept: XGBoost's own UBJ, its columns as JSON, golden rows as .npy. Nothing is ever unpickled."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow.xgboost
import numpy as np
import numpy.typing as npt
import xgboost as xgb
import yaml  # type: ignore[import-untyped]
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.utils import requirements_utils

from flywheel.errors import IntegrityError
from flywheel.integrations.mlflow_store import Store
from flywheel.records import Finding
from flywheel.segments import load

MODEL, COLUMNS, GOLDEN = "model.ubj", "columns.json", "golden.npy"
TAGS = {MODEL: "model_sha256", COLUMNS: "columns_sha256", GOLDEN: "golden_sha256"}
TOLERANCE = 1e-6
_PACKAGES = "_MODULES_TO_PACKAGES"  # MLflow's list, which it makes when it is first asked


@dataclass(frozen=True)
class Parts:
    """A fitted model with what it needs to be served: `golden` is a float matrix in the order of `features`."""

    model: bytes
    features: tuple[str, ...]
    types: tuple[str, ...]
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    golden: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def files(self) -> dict[str, bytes]:
        """The files it is kept as."""
        columns = {"features": self.features, "types": self.types, "vocabulary": dict(self.vocabulary)}
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(self.golden, np.float32), allow_pickle=False)
        return {
            MODEL: self.model,
            COLUMNS: json.dumps(columns, ensure_ascii=False).encode(),
            GOLDEN: buffer.getvalue(),
        }

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each file, under the tag that keeps it."""
        return {TAGS[name]: hashlib.sha256(content).hexdigest() for name, content in self.files().items()}


@dataclass(frozen=True)
class Stored:
    """A model read back and verified."""

    generation: int
    booster: xgb.Booster
    parts: Parts

    def score(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """One score a row; the columns of `matrix` are in the order of `parts.features`."""
        names, types = list(self.parts.features), list(self.parts.types)
        rows = xgb.DMatrix(matrix, feature_names=names, feature_types=types, enable_categorical=True)
        return np.asarray(self.booster.predict(rows), np.float64)


def save(store: Store, run_id: str, parts: Parts) -> str:
    """Keep a model as a LoggedModel of the run; returns its id."""
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in parts.features]), outputs=Schema([ColSpec("double")])
    )
    with store.answering():
        return _save(store, run_id, parts, signature)


def _save(store: Store, run_id: str, parts: Parts, signature: ModelSignature) -> str:
    client = store.client
    logged = client.create_logged_model(store.experiment, name="model", source_run_id=run_id, tags=parts.hashes())
    with TemporaryDirectory() as scratch, _packages_unread():
        folder = Path(scratch) / "model"
        mlflow.xgboost.save_model(
            xgb.Booster(model_file=bytearray(parts.model)),
            str(folder),
            signature=signature,
            pip_requirements=[f"xgboost-cpu=={xgb.__version__}"],  # inferring them takes seconds
            model_format="ubj",
        )
        for name, content in parts.files().items():
            (folder / name).write_bytes(content)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


@contextmanager
def _packages_unread() -> Iterator[None]:
    """Keep MLflow from listing the files of every installed package, to find where a pinned one comes from."""
    known = vars(requirements_utils)
    read = known.get(_PACKAGES)
    known[_PACKAGES] = read or {}
    try:
        yield
    finally:
        known[_PACKAGES] = read


def keep(store: Store, run_id: str, parts: Parts) -> tuple[str, Stored]:
    """Keep a model, and read back what was kept: its id, and the model as whoever serves it will find it."""
    model_id = save(store, run_id, parts)
    folder = store.local(store.client.get_logged_model(model_id).artifact_location)
    return model_id, read(folder, 0, parts.hashes())


def read(folder: Path, generation: int, hashes: Mapping[str, str]) -> Stored:
    """Read a model back, byte by byte what was written.

    Raises:
        IntegrityError: a file is missing, was not written by Flywheel, or is not what was written.
    """
    foreign = sorted(set(TAGS.values()) - set(hashes))
    if foreign:
        why = f"it lacks {', '.join(foreign)}; it is {_flavours(folder)}"
        raise _broken(generation, "was not made by Flywheel and is not loaded", folder, why)
    content = {name: _verified(folder / name, generation, hashes[tag]) for name, tag in TAGS.items()}
    columns = json.loads(content[COLUMNS])
    golden = load(io.BytesIO(content[GOLDEN]))
    try:
        booster = xgb.Booster(model_file=bytearray(content[MODEL]))
    except xgb.core.XGBoostError as error:
        why = " ".join(str(error).split())[-150:]
        raise _broken(generation, f"cannot be read by XGBoost {xgb.__version__}", folder, why) from None
    features, types = tuple(columns["features"]), tuple(columns["types"])
    if booster.feature_names is not None and tuple(booster.feature_names) != features:
        odd = sorted(set(booster.feature_names) ^ set(features))[:5]
        why = f"in one list only: {', '.join(odd)}" if odd else "the same names in another order"
        raise _broken(generation, "has another feature list than its columns.json", folder, why)
    return Stored(generation, booster, Parts(content[MODEL], features, types, columns["vocabulary"], golden))


def servable(stored: Stored, expected: npt.NDArray[np.float64]) -> Finding:
    """Whether the stored model scores the golden rows as the fitted one did, to within 1e-6."""
    golden = stored.parts.golden
    name, threshold = "servable", TOLERANCE
    if len(golden) == 0 or len(golden) != len(expected):
        detail = f"{len(golden)} golden rows stored, {len(expected)} scored"
        return Finding(name, "fail", float("nan"), threshold, len(golden), detail)
    off = float(np.max(np.abs(stored.score(golden) - np.asarray(expected, np.float64))))
    detail = f"the stored model scores {len(golden)} golden rows as the fitted one did, to {off:.1e}"
    return Finding(name, "pass" if off <= threshold else "fail", off, threshold, len(golden), detail)


def _verified(path: Path, generation: int, sha256: str) -> bytes:
    if not path.is_file():
        raise _broken(generation, f"has lost {path.name}", path, "the file is missing")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        why = f"{len(content)} bytes with SHA-256 {found[:12]}, {sha256[:12]} was written"
        raise _broken(generation, f"has a {path.name} that is not what was written", path, why)
    return content


def _flavours(folder: Path) -> str:
    path = folder / "MLmodel"
    if not path.is_file():
        return "no MLflow model"
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = sorted(found.get("flavors", {})) if isinstance(found, dict) else []
    return f"of flavour {', '.join(named)}" if named else "of no known flavour"


def _broken(generation: int, what: str, where: Path, why: str) -> IntegrityError:
    next = "restore mlruns from a copy, or go back: flywheel rollback"
    return IntegrityError(f"the model of generation {generation} {what}", where=str(where), why=why, next=next)
