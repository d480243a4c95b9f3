import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel import fingerprint
from flywheel.errors import IntegrityError
from flywheel.fingerprint import Seen, atomic_write, remove_leftovers, sha256, verify, verify_all

SRC = str(Path(fingerprint.__file__).parents[1])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that was last changed long enough ago to be remembered."""
    path = tmp_path / "w.parquet"
    path.write_bytes(b"rows")
    time.sleep(0.06)
    return path


def test_sha256_is_that_of_the_bytes(old):
    assert sha256(old) == "bc51e9e65d79e1c90ba544ab2eae1044ccdf8c1af7a559ba375cba4276f7d99e"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_fsync_is_not_a_success(tmp_path, monkeypatch):
    path = tmp_path / "f"

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        atomic_write(path, lambda temporary: temporary.write_text("new"))
    assert not path.exists()


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name[:2])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append("replace"), replace(a, b))[1])
    (tmp_path / "xx").mkdir()
    atomic_write(tmp_path / "xx" / "f", lambda temporary: temporary.write_text("new"))
    assert steps == [".f", "replace", "xx"]


def test_a_new_file_obeys_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "f", lambda temporary: temporary.write_text("new"))
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_what_a_kill_leaves_behind_is_found_and_removed(tmp_path):
    script = f"""
import os, pathlib
from flywheel.fingerprint import atomic_write
atomic_write(pathlib.Path({str(tmp_path)!r}) / "f", lambda path: (path.write_text("half"), os._exit(137)))
"""
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": SRC}, check=False)
    assert killed.returncode == 137
    (left,) = tmp_path.iterdir()
    (tmp_path / "mine.parquet").write_text("kept")
    assert remove_leftovers(tmp_path) == (left,)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.parquet"]


def test_a_file_that_did_not_change_is_hashed_once(tmp_path, old, monkeypatch):
    cache = tmp_path / ".flywheel" / "seen.json"
    expected = sha256(old)
    verify_all([(old, expected)], Seen(cache))
    monkeypatch.setattr(fingerprint, "sha256", lambda path: pytest.fail("hashed again"))
    verify_all([(old, expected)], Seen(cache))


def test_a_file_written_this_instant_is_not_trusted_to_its_stat(tmp_path):
    path = tmp_path / "new"
    path.write_bytes(b"rows")
    seen = Seen(tmp_path / "seen.json")
    verify(path, sha256(path), seen)
    assert not seen.knows(path, sha256(path))


@pytest.mark.parametrize("restore_mtime", [False, True])
def test_a_changed_byte_is_found_also_when_size_and_mtime_are_set_back(tmp_path, old, restore_mtime):
    seen = Seen(tmp_path / "seen.json")
    expected, before = sha256(old), old.stat()
    verify(old, expected, seen)
    old.write_bytes(b"rowz")
    if restore_mtime:
        os.utime(old, ns=(before.st_atime_ns, before.st_mtime_ns))
    complaint = f"expected {expected[:12]}, found {sha256(old)[:12]}\n  next:  dvc checkout"
    with pytest.raises(IntegrityError, match=complaint):
        verify(old, expected, seen)


def test_a_known_file_is_not_known_under_another_hash(tmp_path, old):
    seen = Seen(tmp_path / "seen.json")
    verify(old, sha256(old), seen)
    with pytest.raises(IntegrityError, match="is not the file"):
        verify(old, "0" * 64, seen)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(IntegrityError, match=r"gone\.parquet is missing"):
        verify(tmp_path / "gone.parquet", "0" * 64, Seen(tmp_path / "seen.json"))


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_garbage_cache_is_an_empty_one_and_is_rebuilt(tmp_path, old, garbage):
    cache = tmp_path / "seen.json"
    cache.write_bytes(garbage)
    verify_all([(old, sha256(old))], Seen(cache))
    assert str(old) in json.loads(cache.read_text())


def test_what_was_learnt_before_the_first_wrong_file_is_kept(tmp_path, old):
    cache = tmp_path / "seen.json"
    with pytest.raises(IntegrityError):
        verify_all([(old, sha256(old)), (tmp_path / "gone", "0" * 64)], Seen(cache))
    assert Seen(cache).knows(old, sha256(old))
