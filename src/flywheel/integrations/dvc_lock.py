"""What a killed process left of DVC's lock file."""

import json
import re
from pathlib import Path

import psutil  # type: ignore[import-untyped]


def clear_stale(path: Path) -> None:
    """Remove the lock file if no living process can have written what is in it; DVC itself sees dead ones only.

    Not seen by DVC are half a file, and a number that was given to another process since, as containers do.
    """
    try:
        text, written = path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mtime
    except FileNotFoundError:
        return
    holders = [int(number) for number in re.findall(r'"pid":\s*(\d{1,9})', text)]
    if (holders or not _is_json_object(text)) and not any(_was_alive(pid, written) for pid in holders):
        path.unlink(missing_ok=True)


def _was_alive(pid: int, at: float) -> bool:
    """Whether the process that has this number now had it then already; a second's grace for coarse clocks."""
    try:
        return bool(psutil.Process(pid).create_time() <= at + 1)
    except psutil.NoSuchProcess:
        return False


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
