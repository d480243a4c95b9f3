"""What files, settings and arguments may do to a wheel."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flywheel.config import load
from flywheel.errors import BlockedError, ConfigError, IntegrityError, SourceError
from flywheel.simulator.deliveries import write_table
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import ROOT, Shell


def test_a_truncated_parquet_file_is_not_taken(turned: Workspace) -> None:
    path = world.deliver(turned, world.days(30, 33), "cut.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    error = world.refused(turned, SourceError)
    assert error.what == "cut.parquet cannot be read"
    path.write_bytes(whole)
    assert world.turn(turned, 11).closed == 3


def test_a_truncated_gzip_is_not_taken(turned: Workspace) -> None:
    path = world.deliver(turned, world.days(30, 33), "cut.csv")
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    path = path.with_name("cut.csv.gz")
    path.write_bytes(whole[: len(whole) * 2 // 3])
    error = world.refused(turned, SourceError)
    assert error.what == "cut.csv.gz is cut short or damaged"
    assert "after row" in error.where
    path.write_bytes(whole)
    assert world.turn(turned, 11).closed == 3


def test_a_source_that_is_gone_is_named(turned: Workspace) -> None:
    world.amend(turned.root, source={"url": "elsewhere/*.csv"})
    error = world.refused(turned, SourceError)
    assert "elsewhere/*.csv" in str(error)


def test_an_unknown_key_is_named_with_the_nearest_known_one(turned: Workspace, shell: Shell) -> None:
    path = turned.root / "flywheel.toml"
    path.write_text(path.read_text().replace('every = "3d"', 'evry = "3d"'))
    done = shell.run(turned.root, "turn")
    assert done.code == 2
    assert done.out == ""
    world.told_well(done.err)
    assert "unknown key windows.evry" in done.err
    assert "the nearest known key is windows.every" in done.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("backfill", "--every", "soon"), "--every soon cannot be read"),
        (("backfill", "--every", "0d"), "--every 0d never gets anywhere"),
        (("turn", "--as-of", "yesterday"), "'yesterday' is not a time"),
        (("explain", "7"), "there is no generation 7"),
        (("promote", "7", "--why", "hope"), "generation 7 is not in the registry"),
        (("replay", "2026-01-05"), "window 2026-01-05 has no quarantine"),
        (("replay", "../../etc/passwd"), "window ../../etc/passwd has no quarantine"),
    ],
)
def test_an_argument_that_means_nothing_is_answered(
    turned: Workspace, shell: Shell, argv: tuple[str, ...], says: str
) -> None:
    before = world.ends(turned)
    done = shell.run(turned.root, *argv)
    assert done.code in (1, 2)
    assert says in done.err.splitlines()[0]
    assert len(done.err.splitlines()) <= 6
    assert "Traceback" not in done.said
    assert world.ends(turned) == before


def test_no_workspace_is_no_workspace(tmp_path: Path, shell: Shell) -> None:
    done = shell.run(tmp_path, "status")
    assert done.code == 2
    world.told_well(done.err)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_turn_tells_its_error_once_and_nothing_else(turned: Workspace, shell: Shell) -> None:
    """A real process with a real history: Prefect's own words about the failure stay there."""
    world.deliver(turned, world.put(world.days(30, 33), hour=["noon"] * world.days(30, 33).num_rows))
    done = shell.run(turned.root, "turn", "--as-of", world.closes(world.SECOND).isoformat())
    assert done.code == BlockedError.exit_code
    assert done.out == ""
    world.told_well(done.err)
    assert "more.csv, row 1" in done.err
    shown = shell.run(turned.root, "--debug", "turn", "--as-of", world.closes(world.SECOND).isoformat())
    assert "Traceback" in shown.err


@pytest.mark.slow
def test_a_command_that_boots_its_own_history_is_as_quiet(turned: Workspace) -> None:
    """Nothing shared, nothing warm: as a person runs it."""
    (turned.root / "mlruns" / "mlflow.db").unlink()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "turn"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        command, cwd=turned.root, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    world.told_well(done.stderr)
    assert "the workspace has no MLflow store" in done.stderr


def test_a_dataset_file_changed_by_hand_is_noticed_before_training(turned: Workspace) -> None:
    path = next((turned.data / "events").iterdir())
    whole = path.read_bytes()
    pq.write_table(pq.read_table(path).slice(1), path)
    error = world.refused(turned, IntegrityError)
    assert error.what == f"{path.name} is not the file that was written"
    assert error.next == "dvc checkout data.dvc"
    path.write_bytes(whole)
    path.touch()
    assert world.turn(turned, world.SECOND).status == "promoted"


def test_a_dataset_file_changed_with_nothing_new_to_close_is_noticed_too(turned: Workspace) -> None:
    """Another seed makes another generation from the same windows: they are verified all the same."""
    path = sorted((turned.data / "events").iterdir())[2]
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    world.amend(turned.root, train={"seed": 5})
    error = world.refused(turned, IntegrityError, world.FIRST)
    assert path.name in str(error)


@pytest.mark.parametrize("harm", ["truncated", "missing", "flipped"])
def test_a_damaged_ledger_is_noticed(turned: Workspace, harm: str) -> None:
    path = turned.data / "ledger.parquet"
    whole = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        whole[len(whole) // 3] ^= 0xFF
        path.write_bytes(whole)
    with pytest.raises(IntegrityError) as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert "dvc checkout" in caught.value.next


def test_a_broken_suite_is_a_setting_to_mend(turned: Workspace) -> None:
    (turned.root / "expectations" / "rows.json").write_text('{"name": "rows", "expectations": [')
    error = world.refused(turned, ConfigError)
    assert "rows.json" in str(error)


def test_settings_survive_a_round_trip(turned: Workspace) -> None:
    assert load(turned.root) == turned.config


@pytest.mark.slow
def test_200_mb_of_csv_are_read_line_by_line(fresh: Workspace, tmp_path: Path) -> None:
    """The events of one window, many times over under other ids, in one file; memory stays far below its size."""
    for path in (fresh.root / "log").iterdir():
        path.unlink()
    write_table(world.days(0, 6), tmp_path / "part.csv")
    header, *lines = (tmp_path / "part.csv").read_bytes().splitlines(keepends=True)
    block = b"".join(lines)
    big = fresh.root / "log" / "big.csv"
    with big.open("wb") as file:
        file.write(header)
        for number in range(200_000_000 // len(block) + 1):
            file.write(block.replace(b'"r0', b'"r%d-' % number))
    assert big.stat().st_size > 200_000_000
    program = (
        "import sys; from pathlib import Path; from tests.flows import world; from flows import closing;"
        "from flywheel.workspace import Workspace; ws = Workspace.open(Path(sys.argv[1]));"
        "print(sum(t.rows for t in closing.take(ws, world.closes(2), world.closes(12))));"
        "print(Path('/proc/self/status').read_text())"
    )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(fresh.root)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said, status = done.stdout.split("\n", 1)
    assert int(said) == len(lines) * (200_000_000 // len(block) + 1)
    # Not what getrusage tells: that begins with the peak of the process that starts this one.
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak * 1024 < 1_000_000_000, f"{peak / 1e6:.2f} GB"
