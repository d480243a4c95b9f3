"""Git as Flywheel uses it: which code runs, and commits of its own files only.

Nothing here is needed for correctness. Where there is no git, no commit yet or no identity, that is an answer and
not an error; files that somebody else has staged stay staged, and no configuration is written.
"""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # set inside a hook, and meant for that repository
_FALLBACK = ("-c", "user.name=flywheel", "-c", "user.email=flywheel@localhost")
_CODE = (".py", ".toml", ".json")


def git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git in `root`; a machine without git answers as git does where there is no repository, with 128."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, check=False, encoding="utf-8", errors="surrogateescape"
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 128, "", "there is no git here, or no such folder")


def top(root: Path) -> Path | None:
    """The root of the work tree that `root` is in, or None."""
    found = git(root, "rev-parse", "--show-toplevel")
    return Path(found.stdout.rstrip("\n")) if found.returncode == 0 and found.stdout.strip() else None


def code_version(root: Path) -> str | None:
    """The commit of the code in `root`, with a hash of what differs from it, or None where git does not know.

    `1f2e3d…` or `1f2e3d…+dirty.4c5b6a7988aa`. `data.dvc` is data and does not count; untracked code does.
    """
    head = git(root, "rev-parse", "--verify", "HEAD")
    if head.returncode != 0 or git(root, "check-ignore", "-q", ".").returncode == 0:
        return None
    changes = git(
        root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--", ".", ":(exclude)data.dvc"
    ).stdout
    digest = hashlib.sha256(changes.encode("utf-8", "surrogateescape"))
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z").stdout.split("\0")
    untracked = sorted(name for name in listed if name.endswith(_CODE))
    for name in untracked:
        digest.update(b"\0" + os.fsencode(name) + b"\0" + (root / name).read_bytes())
    dirty = f"+dirty.{digest.hexdigest()[:12]}" if changes or untracked else ""
    return head.stdout.strip() + dirty


def commit(root: Path, message: str, paths: Sequence[str]) -> str | None:
    """Commit these paths and nothing else, and return the commit; None if there is no git or nothing to commit.

    Hooks are for people's commits and are not run. Where git refuses (a merge is under way), the answer is
    `uncommitted: ` and why. Without an identity this one commit is flywheel's.
    """
    if top(root) is None:
        return None
    present = [path for path in paths if (root / path).exists()]
    if not git(root, "status", "--porcelain", "--untracked-files=all", "--", *present).stdout or not present:
        return None
    identity = () if _has_identity(root) else _FALLBACK
    added = git(root, "add", "--intent-to-add", "--", *present)
    done = (
        added
        if added.returncode
        else git(
            root,
            *identity,
            "-c",
            "commit.gpgsign=false",
            "commit",
            "--no-verify",
            "-q",
            "-m",
            message,
            "--only",
            "--",
            *present,
        )
    )
    if done.returncode:
        return f"uncommitted: {' '.join((done.stderr or done.stdout).split())[:200]}"
    return git(root, "rev-parse", "HEAD").stdout.strip()


def only_adds(root: Path, path: str, lines: Sequence[str]) -> bool:
    """Whether `path` differs from what is committed by nothing but these lines, added."""
    committed = git(root, "show", f"HEAD:./{path}")
    before = committed.stdout.splitlines() if committed.returncode == 0 else []
    after = (root / path).read_text(encoding="utf-8").splitlines() if (root / path).exists() else []
    return [line for line in after if line not in lines] == [line for line in before if line not in lines]


def _has_identity(root: Path) -> bool:
    return all(git(root, "var", name).returncode == 0 for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"))
