"""The repository's root is a workspace that a fresh clone can work in: `dvc pull`, `flywheel init .`, go on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.data import dataset
from flywheel.fingerprint import Seen
from flywheel.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 3_000_000

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs the git repository that holds it"
)


def run(root: Path, *words: str) -> str:
    done = subprocess.run([*words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is committed, with the data that `dvc pull` brings."""
    root = tmp_path_factory.mktemp("clone") / "flywheel"
    run(ROOT, "git", "clone", "-q", "--no-local", str(ROOT), str(root))
    run(root, sys.executable, "-m", "dvc", "pull", "-q")
    return root


def test_dvc_pull_brings_eight_weeks_of_closed_windows(clone: Path, tmp_path: Path) -> None:
    ws = Workspace.open(clone)
    ledger = ws.ledger()
    assert (ledger[0].window, ledger[-1].window, len(ledger)) == ("2026-01-05", "2026-03-01", 56)
    dataset.verify_windows(ws.data, ledger, Seen(tmp_path / "seen.json"))
    assert set(ws.rows()["label"]) == {0, 1}


def test_the_example_and_the_remote_that_ships_with_it_are_small(clone: Path) -> None:
    for folder in ("data", ".dvc/remote"):
        held = [path.stat().st_size for path in (clone / folder).rglob("*") if path.is_file()]
        assert 0 < sum(held) <= MOST_BYTES / 2


def test_init_gives_a_clone_its_store_and_changes_nothing_that_is_committed(clone: Path) -> None:
    flywheel = (sys.executable, "-m", "flows.cli", "-C", str(clone))
    refused = subprocess.run([*flywheel, "generations"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "flywheel init ." in refused.stderr
    run(ROOT, *flywheel, "init", str(clone))
    run(ROOT, *flywheel, "init", str(clone))
    assert "56 closed, the newest 2026-03-01" in run(ROOT, *flywheel, "status")
    assert run(ROOT, *flywheel, "generations", "--json").strip() == "[]"
    assert run(clone, "git", "status", "--porcelain") == ""
