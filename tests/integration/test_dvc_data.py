import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.errors import BusyError, ConfigError, IntegrityError
from flywheel.integrations import dvc_data, git_repo

ME = ("-c", "user.name=me", "-c", "user.email=me@example.com")


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *ME, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No identity and no configuration of this machine; DVC's own files under the test's folder."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert not list(home.rglob(".gitconfig"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "school"
    dvc_data.init(root)
    window(root, "w1", b"first")
    return root


def window(root: Path, name: str, content: bytes) -> None:
    path = root / "data" / "events" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cached(root: Path, name: str) -> Path:
    listing = dvc_data.pointer(root).md5
    text = (root / ".dvc/cache/files/md5" / listing[:2] / listing[2:]).read_text()
    oid = next(entry["md5"] for entry in json.loads(text) if entry["relpath"] == name)
    return root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


# a repository from nothing


def test_init_makes_git_and_dvc_and_commits_its_own_files_without_an_identity(root):
    assert git(root, "status", "--short", "--", ".dvc", ".gitignore", ".dvcignore") == ""
    assert git(root, "log", "--format=%an %s") == "flywheel Start a workspace"
    assert {"/inbox", "/.flywheel", "/mlruns/mlflow.db*", "/mlruns/artifacts"} < set(
        (root / ".gitignore").read_text().split()
    )
    config = (root / ".dvc/config").read_text()
    assert "analytics = False" in config
    assert "check_update = False" in config


def test_init_again_changes_nothing(root):
    before, head = tree(root), git(root, "rev-parse", "HEAD")
    dvc_data.init(root)
    after = tree(root)
    assert {k: v for k, v in after.items() if "/tmp/" not in k} == {k: v for k, v in before.items() if "/tmp/" not in k}
    assert git(root, "rev-parse", "HEAD") == head


def test_init_says_nothing(tmp_path, capfd):
    dvc_data.init(tmp_path / "quiet")
    window(tmp_path / "quiet", "w1", b"x")
    dvc_data.version(tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")


def test_init_within_a_repository_stays_within_it_and_commits_nothing(tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    (outer / "mine.txt").write_text("mine")
    git(outer, "add", "mine.txt")
    inner = outer / "wheel"
    dvc_data.init(inner)
    window(inner, "w1", b"x")
    dvc_data.version(inner)
    assert not (inner / ".git").exists()
    assert git(outer, "status", "--short", "mine.txt") == "A  mine.txt"
    assert dvc_data.commit_pointer(inner, "First window")
    assert git(outer, "status", "--short", "mine.txt") == "A  mine.txt"
    assert git(outer, "ls-files") == "\n".join(
        [
            "mine.txt",
            "wheel/.dvc/.gitignore",
            "wheel/.dvc/config",
            "wheel/.dvcignore",
            "wheel/.gitignore",
            "wheel/data.dvc",
        ]
    )


def test_init_in_an_ignored_folder_gets_its_own_repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/scratch/\n")
    dvc_data.init(tmp_path / "scratch")
    assert git(tmp_path / "scratch", "log", "--format=%s") == "Start a workspace"


def test_without_git_dvc_does_without_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    root = tmp_path / "bare"
    dvc_data.init(root)
    window(root, "w1", b"x")
    assert dvc_data.version(root).files == 1
    assert dvc_data.commit_pointer(root, "First window") is None
    assert dvc_data.code_version(root) is None
    assert not (root / ".gitignore").exists()


def test_a_folder_that_is_no_dvc_repository_is_refused(tmp_path, root):
    inner = root / "inner"
    (inner / "data").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is not a DVC repository"):
        dvc_data.version(inner)


# versions


def test_a_version_moves_with_the_data_and_only_with_it(root):
    first = dvc_data.version(root)
    assert (first.files, first.size, first.md5[-4:]) == (1, 5, ".dir")
    pointer = (root / "data.dvc").read_bytes()
    assert dvc_data.version(root) == first == dvc_data.pointer(root)
    assert (root / "data.dvc").read_bytes() == pointer
    window(root, "w2", b"second")
    second = dvc_data.version(root)
    assert (second.files, second.md5 == first.md5) == (2, False)
    (root / "data/events/w2.parquet").unlink()
    assert dvc_data.version(root) == first


def test_a_half_written_file_is_in_no_version(root):
    first = dvc_data.version(root)
    (root / "data/events/.w2.parquet.1-ab.flywheel-tmp").write_bytes(b"PAR1")
    assert dvc_data.version(root) == first


def test_there_is_no_version_of_nothing(tmp_path):
    dvc_data.init(tmp_path / "empty")
    assert dvc_data.pointer(tmp_path / "empty") is None
    with pytest.raises(IntegrityError, match="there is no data/"):
        dvc_data.version(tmp_path / "empty")


def test_a_garbage_pointer_is_named(root):
    (root / "data.dvc").write_text("outs: [\n")
    with pytest.raises(IntegrityError, match=r"data\.dvc") as raised:
        dvc_data.version(root)
    assert len(str(raised.value).splitlines()) <= 6


# locks


def lock(root: Path, text: str, age: float = 0) -> Path:
    path = root / ".dvc/tmp/rwlock"
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def held(root: Path, pid: int) -> str:
    return f'{{"write": {{"{root}/data": {{"pid": {pid}, "cmd": "dvc add"}}}}, "read": {{}}}}'


@pytest.fixture
def other():
    """A living process of somebody else's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(0.1)
    yield process.pid
    process.kill()
    process.wait()


def test_a_dead_process_holds_nothing(root):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock(root, held(root, gone.pid))
    assert dvc_data.version(root).files == 1


def test_a_number_given_to_another_process_since_holds_nothing(root, other):
    lock(root, held(root, other), age=3600)
    assert dvc_data.version(root).files == 1


@pytest.mark.parametrize("text", ["", '{"write": {"', "\0\0\0", "[]"])
def test_half_a_lock_file_holds_nothing(root, text):
    lock(root, text)
    assert dvc_data.version(root).files == 1


def test_a_living_process_is_waited_for_by_nobody_and_named(root, other):
    lock(root, held(root, other))
    with pytest.raises(BusyError, match=f"(?s)another process uses DVC.*PID {other}") as raised:
        dvc_data.version(root)
    assert raised.value.exit_code == 75
    assert len(str(raised.value).splitlines()) <= 6


def test_half_a_lock_file_of_a_living_process_is_named_and_left(root, other):
    path = lock(root, held(root, other)[:-9])
    with pytest.raises(IntegrityError, match=r"(?s)lock file is garbage.*rm .*rwlock"):
        dvc_data.version(root)
    assert path.exists()


# commits


def test_a_commit_holds_the_pointer_and_nothing_that_others_staged(root):
    (root / "notes.txt").write_text("mine")
    (root / "half.txt").write_text("mine")
    git(root, "add", "notes.txt")
    dvc_data.version(root)
    made = dvc_data.commit_pointer(root, "First window")
    assert git(root, "show", "--format=%H %s", "--name-only").split() == [made, "First", "window", "data.dvc"]
    assert git(root, "status", "--short") == "A  notes.txt\n?? half.txt"
    assert dvc_data.commit_pointer(root, "Again") is None


def test_an_edited_gitignore_is_left_to_its_editor(root):
    with (root / ".gitignore").open("a") as file:
        file.write("/mine\n")
    dvc_data.version(root)
    assert dvc_data.commit_pointer(root, "First window")
    assert git(root, "status", "--short") == "M .gitignore"


def test_an_identity_of_their_own_is_used(root):
    git(root, "config", "user.name", "somebody")
    git(root, "config", "user.email", "somebody@example.com")
    dvc_data.version(root)
    dvc_data.commit_pointer(root, "First window")
    assert git(root, "log", "-1", "--format=%an %ae %cn") == "somebody somebody@example.com somebody"


def test_a_detached_head_an_unborn_branch_a_failing_hook_and_signing_do_not_matter(root, tmp_path):
    hook = root / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git(root, "config", "commit.gpgsign", "true")
    git(root, "checkout", "-q", "--detach")
    dvc_data.version(root)
    assert len(dvc_data.commit_pointer(root, "Detached")) == 40
    git(root, "checkout", "-q", "--orphan", "fresh")
    git(root, "rm", "-rq", "--cached", ".")
    assert len(dvc_data.commit_pointer(root, "Unborn")) == 40
    assert git(root, "log", "--format=%s") == "Unborn"


def test_a_merge_under_way_is_an_answer(root):
    git(root, "checkout", "-qb", "side")
    git(root, "commit", "-q", "--allow-empty", "-m", "side")
    git(root, "checkout", "-q", "-")
    git(root, "commit", "-q", "--allow-empty", "-m", "main")
    git(root, "merge", "-q", "--no-ff", "--no-commit", "side")
    dvc_data.version(root)
    assert "during a merge" in dvc_data.commit_pointer(root, "First window")
    assert dvc_data.commit_pointer(root, "First window").startswith("uncommitted: ")


def test_a_hook_that_runs_the_wheel_does_not_lead_it_to_another_repository(root, tmp_path, monkeypatch):
    dvc_data.init(tmp_path / "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere/.git"))
    found = git_repo.git(root, "rev-parse", "--absolute-git-dir").stdout.strip()
    assert found == str(root / ".git")


# the version of the code


def test_the_version_of_code_is_its_commit_and_what_differs_from_it(root):
    clean = dvc_data.code_version(root)
    assert clean == git(root, "rev-parse", "HEAD")
    (root / "features.py").write_text("x = 1\n")
    untracked = dvc_data.code_version(root)
    git(root, "add", "features.py")
    staged = dvc_data.code_version(root)
    (root / "features.py").write_text("x = 2\n")
    changed = dvc_data.code_version(root)
    assert all(found.startswith(f"{clean}+dirty.") for found in (untracked, staged, changed))
    assert len({untracked, staged, changed}) == 3
    git(root, "commit", "-qam", "features")
    assert dvc_data.code_version(root) == git(root, "rev-parse", "HEAD")


def test_a_moved_pointer_is_no_change_of_code(root):
    dvc_data.version(root)
    dvc_data.commit_pointer(root, "First window")
    window(root, "w2", b"second")
    dvc_data.version(root)
    assert dvc_data.code_version(root) == git(root, "rev-parse", "HEAD")


def test_code_that_git_ignores_or_has_never_committed_has_no_version(root, tmp_path):
    (root / ".flywheel" / "lib").mkdir(parents=True)
    assert dvc_data.code_version(root / ".flywheel" / "lib") is None
    (tmp_path / "unborn").mkdir()
    git(tmp_path / "unborn", "init", "-q")
    assert dvc_data.code_version(tmp_path / "unborn") is None


# an older version


def test_an_older_version_comes_back_beside_the_workspace(root, tmp_path):
    first, then = dvc_data.version(root), tree(root / "data")
    window(root, "w2", b"second")
    dvc_data.version(root)
    now, pointer = tree(root / "data"), (root / "data.dvc").read_bytes()
    assert tree(dvc_data.checkout(root, first.md5, tmp_path / "old")) == then
    assert (tree(root / "data"), (root / "data.dvc").read_bytes()) == (now, pointer)


def remote(root: Path, at: Path) -> None:
    at.mkdir(exist_ok=True)
    settings = f"[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = {at}\n"
    (root / ".dvc/config.local").write_text(settings)


def test_what_the_cache_lacks_comes_from_the_remote(root, tmp_path):
    remote(root, tmp_path / "shelf")
    window(root, "w2", b"second")
    first = dvc_data.version(root)
    assert dvc_data.push(root) == "pushed 3 files"
    assert dvc_data.push(root) == "nothing to push"
    subprocess.run(["rm", "-rf", str(root / ".dvc/cache")], check=True)
    old = dvc_data.checkout(root, first.md5, tmp_path / "old")
    assert tree(old) == {"events/w1.parquet": b"first", "events/w2.parquet": b"second"}


def test_a_version_that_is_nowhere_is_named(root, tmp_path):
    with pytest.raises(IntegrityError, match="data version 000000000000 is not here"):
        dvc_data.checkout(root, "0" * 32 + ".dir", tmp_path / "old")


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_corrupted_object_is_not_handed_out_and_is_found(root, tmp_path):
    now = dvc_data.version(root)
    assert dvc_data.verify_cache(root) == ()
    overwrite(cached(root, "events/w1.parquet"), b"fir5t")
    with pytest.raises(IntegrityError, match=r"events/w1\.parquet is not what its name in DVC's cache says"):
        dvc_data.checkout(root, now.md5, tmp_path / "old")
    assert tree(tmp_path / "old") == {}
    assert "events/w1.parquet is not what its name" in dvc_data.verify_cache(root)[0]


def test_a_listing_cannot_lead_out_of_the_folder(root, tmp_path):
    text = json.dumps([{"md5": "8b04d5e3775d298e78455efc5ca404d5", "relpath": "../stolen"}]).encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    dvc_data.version(root)
    path = root / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}.dir"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    with pytest.raises(IntegrityError, match="names a file outside of it"):
        dvc_data.checkout(root, f"{md5}.dir", tmp_path / "old")
    assert not (tmp_path / "stolen").exists()


def test_missing_objects_and_listings_are_found(root, tmp_path):
    now = dvc_data.version(root)
    cached(root, "events/w1.parquet").unlink()
    assert "is missing from the cache" in dvc_data.verify_cache(root)[0]
    with pytest.raises(IntegrityError, match="neither the cache nor a remote has it"):
        dvc_data.checkout(root, now.md5, tmp_path / "old")
    listing = root / ".dvc/cache/files/md5" / now.md5[:2] / now.md5[2:]
    overwrite(listing, b"[]")
    assert "the listing of data version" in dvc_data.verify_cache(root)[0]
    with pytest.raises(IntegrityError, match="the listing of data version"):
        dvc_data.checkout(root, now.md5, tmp_path / "old")


# the remote


def test_pushing_nowhere_or_in_vain_is_an_answer(root, tmp_path):
    dvc_data.version(root)
    assert dvc_data.push(root) == "no remote"
    remote(root, tmp_path / "shelf")
    (tmp_path / "shelf").rmdir()
    (tmp_path / "shelf").write_text("a file, not a folder")
    assert dvc_data.push(root).startswith("unpushed: ")
    assert dvc_data.pointer(root) is not None
