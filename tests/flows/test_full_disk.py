"""A disk that is full: nothing is acknowledged that is not on it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flywheel.sources.inbox import Inbox
from tests.flows import live
from tests.flows.test_serve import ASK, Served


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Have a folder be a file system of its own; whether it is one, for nothing can be mounted everywhere."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    with disk(tmp_path / "small", 48) as mounted:
        if not mounted:
            pytest.skip("nothing can be mounted here")
        yield tmp_path / "small"


def fill(folder: Path, free: int) -> Path:
    """Leave so many bytes free."""
    held = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(b"\1" * max(0, held.f_bavail * held.f_frsize - free))
    return ballast


@pytest.mark.slow
def test_what_a_full_disk_cannot_take_is_not_acknowledged(small: Path) -> None:
    ws = live.build(small / "live")
    served = Served(ws)
    try:
        ballast = fill(small, 200_000)
        answers = [served.ask("POST", "/v1/rank", ASK) for _ in range(400)]
        refused = [said for status, said in answers if status != 200]
        assert {status for status, _ in answers} == {200, 503}
        assert all("is not available" in said["error"]["what"] for said in refused)
        ballast.unlink()
        answers.append(served.ask("POST", "/v1/rank", ASK))
        assert answers[-1][0] == 200
        assert served.end() == 0
    finally:
        served.process.kill()
        served.process.communicate()
    inbox = Inbox.open(None, ws.root)
    assert inbox.arrived()["decisions"].kept == sum(status == 200 for status, _ in answers)
    inbox.close()
