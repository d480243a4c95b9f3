"""DVC, through its Python API: versions of `data/`, and an older one in a scratch folder.

DVC's own locks are kept, and what a killed process left of them is cleared. Its cache keeps the default links
(reflink or copy), so nothing in `data/` shares bytes with it, and `verify_cache` is the check that it lacks.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError
from dvc_data.hashfile.hash_info import HashInfo

from flywheel.errors import BusyError, ConfigError, IntegrityError
from flywheel.fingerprint import LEFTOVER, atomic_write
from flywheel.integrations import git_repo
from flywheel.integrations.dvc_lock import clear_stale
from flywheel.integrations.git_repo import code_version

__all__ = [
    "DataVersion",
    "checkout",
    "code_version",
    "commit_pointer",
    "init",
    "pointer",
    "push",
    "verify_cache",
    "version",
]

IGNORED = ("/inbox", "/.flywheel", "/mlruns/mlflow.db*", "/mlruns/artifacts", "/data")
OWNED = (".dvc/config", ".dvc/.gitignore", ".dvcignore")
logging.getLogger("dvc").setLevel(logging.WARNING)  # it tells people to `git add` what flywheel commits


@dataclass(frozen=True)
class DataVersion:
    """One version of `data/`: the hash of its listing (ends in `.dir`), how many files, and their bytes."""

    md5: str
    files: int
    size: int


def init(root: Path) -> None:
    """Make `root` a DVC repository, in the git repository around it or a new one. Again: no change.

    A folder that the repository around it ignores gets its own. Without git on the machine, DVC does without too.
    Only in a git repository that was made here is anything committed.
    """
    root.mkdir(parents=True, exist_ok=True)
    top = git_repo.top(root)
    ignored = top is not None and git_repo.git(root, "check-ignore", "-q", ".").returncode == 0
    made = (top is None or ignored) and git_repo.git(root, "init", "-q").returncode == 0
    top = git_repo.top(root)
    if not (root / ".dvc").is_dir():
        below = top is not None and top.resolve() != root.resolve()
        with _translated(root):
            Repo.init(str(root), no_scm=top is None, subdir=below).close()
    with _opened(root) as repo, repo.config.edit() as settings:
        settings["core"] |= {"analytics": False, "check_update": False}
    _append_lines(root / ".dvcignore", (LEFTOVER,))
    if top is not None:
        _append_lines(root / ".gitignore", IGNORED)
    if made:
        git_repo.commit(root, "Start a workspace", [*OWNED, ".gitignore"])


def version(root: Path) -> DataVersion:
    """Take in `data/` as it is, and move `data.dvc` to it; without a change nothing moves.

    Raises:
        BusyError: another living process uses DVC here.
        IntegrityError: there is no `data/`, or `data.dvc` is not what DVC wrote.
    """
    if not (root / "data").is_dir():
        raise IntegrityError("there is no data/ to take a version of", where=str(root), next="dvc checkout data.dvc")
    with _opened(root) as repo:
        out = repo.add(str(root / "data"))[0].outs[0]
        return DataVersion(out.hash_info.value, out.meta.nfiles, out.meta.size)


def pointer(root: Path) -> DataVersion | None:
    """The version that `data.dvc` points at, or None if there is none yet."""
    if not (root / "data.dvc").exists():
        return None
    with _opened(root) as repo:
        out = repo.stage.load_one(str(root / "data.dvc")).outs[0]
        return DataVersion(out.hash_info.value, out.meta.nfiles, out.meta.size)


def commit_pointer(root: Path, message: str) -> str | None:
    """Commit `data.dvc` and DVC's own files, and return the commit; what anybody else has staged stays as it is.

    None if there is no git or nothing new; `uncommitted: ` and why if git refuses.
    """
    new = [path for path in OWNED if git_repo.git(root, "cat-file", "-e", f"HEAD:./{path}").returncode]
    ours = [".gitignore"] if git_repo.only_adds(root, ".gitignore", IGNORED) else []
    return git_repo.commit(root, message, ["data.dvc", *new, *ours])


def checkout(root: Path, md5: str, target: Path) -> Path:
    """Put the version of `data/` with this hash into `target`; the workspace and its pointer are not touched.

    What the cache lacks comes from the remote, if there is one. Every file's bytes are checked against its hash.

    Raises:
        IntegrityError: an object is nowhere to be had, or is not what its name says.
    """
    with _opened(root) as repo:
        for name, oid in _listing(repo, md5, fetch=True):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_object(repo, oid), path)
            if _md5(path) != oid:
                path.unlink()
                raise _corrupted(name, _object(repo, oid))
    return target


def push(root: Path) -> str:
    """Send the current version to the remote; says what happened, and a failure is an answer: `unpushed: why`."""
    try:
        with _opened(root) as repo:
            if not repo.config["core"].get("remote"):
                return "no remote"
            count = repo.push(targets=[str(root / "data.dvc")])
    except (DvcException, OSError, ValueError, RuntimeError, BusyError, IntegrityError) as error:
        return f"unpushed: {_gist(error)}"
    return f"pushed {count} files" if count else "nothing to push"


def verify_cache(root: Path) -> tuple[str, ...]:
    """What is wrong with the cached objects of the current version, a sentence each; empty if nothing is."""
    current = pointer(root)
    if current is None:
        return ()
    wrong = []
    with _opened(root) as repo:
        try:
            listed = list(_listing(repo, current.md5, fetch=False))
        except IntegrityError as error:
            return (error.what,)
        for name, oid in listed:
            path = _object(repo, oid)
            if not path.exists():
                wrong.append(f"{name} is missing from the cache ({oid[:12]})")
            elif _md5(path) != oid:
                wrong.append(_corrupted(name, path).what)
    return tuple(wrong)


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[Any]:
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"{root} is not a DVC repository", next=f"flywheel init {root}")
    clear_stale(root / ".dvc" / "tmp" / "rwlock")
    with _translated(root), contextlib.closing(Repo(str(root))) as repo:
        yield repo


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    lock = root / ".dvc" / "tmp" / "rwlock"
    try:
        yield
    except (RWLockFileCorruptedError, RWLockFileFormatError) as error:
        raise IntegrityError(
            "DVC's lock file is garbage", where=str(lock), why=_gist(error), next=f"rm {lock}"
        ) from None
    except LockError as error:
        why = " ".join(str(error).partition("If there are no processes")[0].split())[:300]
        raise BusyError("another process uses DVC in this workspace", where=str(root), why=why) from None
    except DvcException as error:
        raise IntegrityError("DVC cannot do this", where=str(root), why=_gist(error), next="dvc status") from None


def _listing(repo: Any, md5: str, *, fetch: bool) -> Iterator[tuple[str, str]]:
    """Each file of a version with its hash; with `fetch`, all of them are in the cache by then."""
    if fetch:
        _fetch(repo, [md5])
    path = _object(repo, md5)
    if not path.exists():
        why = "neither the cache nor a remote has its listing" if fetch else "the cache has no listing"
        raise IntegrityError(f"data version {md5[:12]} is not here", why=why, next="dvc pull")
    if _md5(path) != md5.removesuffix(".dir"):
        raise _corrupted(f"the listing of data version {md5[:12]}", path)
    listed = [(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(path.read_bytes())]
    if fetch:
        _fetch(repo, [oid for _, oid in listed])
    for name, oid in listed:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise IntegrityError(f"data version {md5[:12]} names a file outside of it", why=name)
        if fetch and not _object(repo, oid).exists():
            why = "neither the cache nor a remote has it"
            raise IntegrityError(f"{name} of data version {md5[:12]} is not here", why=why, next="dvc pull")
        yield name, oid


def _fetch(repo: Any, oids: Sequence[str]) -> None:
    lacking = [HashInfo("md5", oid) for oid in dict.fromkeys(oids) if not _object(repo, oid).exists()]
    if lacking and repo.config["core"].get("remote"):
        repo.cloud.pull(lacking)


def _object(repo: Any, oid: str) -> Path:
    return Path(repo.cache.local.oid_to_path(oid))


def _corrupted(name: str, path: Path) -> IntegrityError:
    why = "DVC's cache names a file by its bytes, and these have changed"
    what = f"{name} is not what its name in DVC's cache says"
    return IntegrityError(what, where=str(path), why=why, next=f"rm -f {path}, then dvc pull")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _gist(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _append_lines(path: Path, lines: Sequence[str]) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lacking = [line for line in lines if line not in text.splitlines()]
    if lacking:
        start = text if not text or text.endswith("\n") else text + "\n"
        atomic_write(path, lambda new: new.write_text(start + "\n".join(lacking) + "\n", encoding="utf-8"))
