"""What was measured is kept beside the cache, so that pages and notebooks show at once what takes minutes to find."""

from pathlib import Path
from typing import TypeVar

import msgspec

from flywheel.errors import DataError
from flywheel.evidence import Curve, Exploration, Gain, Hazards, Network, OffPolicy, Staleness, Why
from flywheel.fingerprint import atomic_write
from flywheel.watched import Watched

Found = TypeVar("Found")
PAGE = "report.html"  # in the cache
COMMANDS: dict[type, str] = {  # what finds each kind
    Curve: "flywheel curve",
    Why: "flywheel compare A B --why",
    Staleness: "flywheel stale",
    Network: "flywheel network",
    OffPolicy: "flywheel value N",
    Exploration: "flywheel explore",
    Gain: "flywheel gain",
    Hazards: "flywheel hazards",
    Watched: "flywheel monitor",
}


def keep(cache: Path, found: object) -> Path:
    """Keep what was found, in place of what was found of its kind before; where."""
    path = _path(cache, type(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda at: at.write_bytes(msgspec.json.format(msgspec.json.encode(found))))
    return path


def kept(cache: Path, kind: type[Found]) -> Found | None:
    """What was found last of this kind; None where nothing was, or by a version that had other fields."""
    try:
        return msgspec.json.decode(_path(cache, kind).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def needed(cache: Path, kind: type[Found], what: str) -> Found:
    """What was found last of this kind.

    Raises:
        DataError: nothing was; with the command that finds it.
    """
    found = kept(cache, kind)
    if found is None:
        raise DataError(f"{what} is not measured yet", next=COMMANDS[kind])
    return found


def _path(cache: Path, kind: type) -> Path:
    return cache / "evidence" / f"{kind.__name__.lower()}.json"
