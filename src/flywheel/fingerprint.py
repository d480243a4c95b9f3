"""Files that are whole, and files that are still what they were.

A file written by `atomic_write` is either absent, old or complete, also after a power cut. A file checked by
`verify` is hashed again only if its stat has changed since it was last seen to be right.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from flywheel.errors import IntegrityError

LEFTOVER = "*.flywheel-tmp"
_SETTLED = 50_000_000  # ns; a file changed more recently may change again within the same tick of its clock


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Replace `path` by what `write` writes to the path that it is handed, durably and all at once.

    The temporary file stands in the same folder and ends in `.flywheel-tmp`; only a kill leaves one behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.flywheel-tmp")
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def link(source: str | Path, target: str | Path) -> None:
    """Have a file under another path as well, which shares its bytes where that can be and else has a copy."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def remove_leftovers(folder: Path) -> tuple[Path, ...]:
    """Remove what a killed `atomic_write` left in `folder` or below; hold the workspace's lock."""
    leftovers = tuple(sorted(folder.rglob(LEFTOVER)))
    for path in leftovers:
        path.unlink()
    return leftovers


class Seen:
    """Which files were seen to be right, and the stat they had then.

    Only a cache: a file that is missing or cannot be read is an empty one. It remembers size, inode, time of
    modification and time of change, the last because a time of modification can be set back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _read_entries(path)
        self._changed = False

    def knows(self, path: Path, expected: str) -> bool:
        """Whether `path` had this hash when its stat was what it is now."""
        return self._entries.get(str(path.resolve())) == [expected, *_stat(path)]

    def remember(self, path: Path, expected: str, stat: list[int]) -> None:
        """Note that `path` had this hash under this stat, unless it changed too recently to tell."""
        if time.time_ns() - max(stat[-2:]) > _SETTLED:
            self._entries[str(path.resolve())] = [expected, *stat]
            self._changed = True

    def save(self) -> None:
        """Write the cache, if anything was added."""
        if self._changed:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self._entries, indent=0, sort_keys=True)
            atomic_write(self.path, lambda path: path.write_text(text, encoding="utf-8"))
            self._changed = False


def verify(path: Path, expected: str, seen: Seen, *, next: str = "dvc checkout data.dvc") -> None:
    """Check that `path` has the hash `expected`; it is hashed only if its stat is not the one last seen.

    Raises:
        IntegrityError: it has another hash, or is missing.
    """
    if not path.is_file():
        raise IntegrityError(f"{path.name} is missing", where=str(path), why=f"expected {expected[:12]}", next=next)
    if seen.knows(path, expected):
        return
    stat = _stat(path)
    found = sha256(path)
    if found != expected:
        raise IntegrityError(
            f"{path.name} is not the file that was written",
            where=str(path),
            why=f"expected {expected[:12]}, found {found[:12]}",
            next=next,
        )
    if stat == _stat(path):
        seen.remember(path, expected, stat)


def verify_all(files: Iterable[tuple[Path, str]], seen: Seen, *, next: str = "dvc checkout data.dvc") -> None:
    """`verify` each of the files and keep what was learnt, also about those before the first wrong one."""
    try:
        for path, expected in files:
            verify(path, expected, seen, next=next)
    finally:
        seen.save()


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read_entries(path: Path) -> dict[str, list[str | int]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def sync(path: Path) -> None:
    """Have the disk keep a file or a folder's entries: what is renamed afterwards is there after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
