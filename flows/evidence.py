"""What commands measure is kept in the workspace; the page and notebooks read it there."""

from pathlib import Path
from typing import TypeVar

from flywheel import found as kinds
from flywheel.workspace import Workspace

Found = TypeVar("Found")


def keep(ws: Workspace, found: object) -> Path:
    """Keep what was found, in place of what was found of its kind before; where."""
    return kinds.keep(ws.cache, found)


def kept(ws: Workspace, kind: type[Found]) -> Found | None:
    """What was found last of this kind; None where nothing was, or by a version that had other fields."""
    return kinds.kept(ws.cache, kind)
