"""What was measured is kept beside the cache, so that the page shows what costs minutes to find without finding it."""

from pathlib import Path
from typing import TypeVar

import msgspec

from flywheel import evidence
from flywheel.fingerprint import atomic_write
from flywheel.workspace import Workspace

Found = TypeVar("Found")
KINDS = (
    evidence.Curve,
    evidence.Why,
    evidence.Staleness,
    evidence.Network,
    evidence.OffPolicy,
    evidence.Gain,
    evidence.Hazards,
)


def keep(ws: Workspace, found: object) -> Path:
    """Keep what was found, in place of what was found of its kind before; where."""
    path = _path(ws, type(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda at: at.write_bytes(msgspec.json.format(msgspec.json.encode(found))))
    return path


def kept(ws: Workspace, kind: type[Found]) -> Found | None:
    """What was found last of this kind; None where nothing was, or by a version that had other fields."""
    try:
        return msgspec.json.decode(_path(ws, kind).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _path(ws: Workspace, kind: type) -> Path:
    return ws.cache / "evidence" / f"{kind.__name__.lower()}.json"
