"""A backfill of 200 windows, killed at random ten times, against one that was never killed.

    python tests/benchmarks/backfill_kills.py [--windows 200] [--kills 10] [--seed 1] [--quick]

A month of the simulator's log in windows of three hours, a twentieth of it late. Then a rule changes, so that every
window has to be closed again, and the late rows have to go home. The backfill runs as a process of its own with two
windows at once; it is killed (SIGKILL) once a number of windows drawn at random is made, and started again. Bars: the
same bytes in data/ and data.dvc as without a kill, and no window that was made before a kill is made again.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import ceiling, describe

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from flows import branching, closing  # noqa: E402
from flywheel.fingerprint import sha256  # noqa: E402
from flywheel.simulator.deliveries import write_table  # noqa: E402
from tests.flows import world  # noqa: E402

NOW = datetime(2026, 4, 1, tzinfo=UTC)
EVERY, WAIT = timedelta(hours=3), timedelta(hours=1)
RUN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from flows import correcting
from flywheel.workspace import Workspace
ws = Workspace.open(Path(sys.argv[1]))
correcting.correct(ws, (None, None), "changed", 2, now=datetime(2026, 4, 1, tzinfo=UTC), wait=False)
"""


def build(root, windows):
    """A workspace with so many closed windows, some of whose events came late, and another rule since."""
    log = world.days(0, 30)
    rng = np.random.default_rng(0)
    late = rng.random(log.num_rows) < 0.05
    (root / "log").mkdir(parents=True)
    write_table(log.filter(pa.array(~late)), root / "log" / "0.parquet")
    ws = world.found(root, str(root / "log" / "*"))
    ws = world.amend(root, windows={"every": "3h", "attribution": "1h"})
    for count, part in ((windows // 2, None), (windows, log.filter(pa.array(late)))):
        if part is not None:
            write_table(part, root / "log" / "1.parquet")
        as_of = world.START + count * EVERY + WAIT
        closing.take(ws, as_of, NOW)
        closing.close(ws, as_of)
    closing.version(ws)
    return world.amend(root, max_quarantined=0.9)


def start(ws):
    """The backfill as a process."""
    return subprocess.Popen([sys.executable, "-c", RUN, str(ws.root)], cwd=Path(__file__).resolve().parents[2])


def made(ws):
    """When each window of the branch was made, by where it is kept."""
    found = {}
    for path in branching.root_of(ws).glob("*/*/*/ledger.parquet"):
        try:
            found[str(path)] = path.stat().st_mtime_ns
        except FileNotFoundError:  # the branch is being removed
            continue
    return found


def watch(running, ws, before, until=None):
    """Wait for the end, or for so many windows; what was made, and which of those before were made again."""
    again, now = set(), before
    while running.poll() is None and (until is None or len(now) < until):
        now = made(ws) or now
        again |= {path for path, at in before.items() if now.get(path, at) != at}
        time.sleep(0.01)
    return now, again


def contents(ws):
    """Every file of the dataset with its hash, and its pointer."""
    files = [*(path for path in ws.data.rglob("*") if path.is_file()), ws.root / "data.dvc"]
    return {str(path.relative_to(ws.root)): sha256(path) for path in files}


def main():
    """Build, run once calm and once killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20 windows, 3 kills")
    args = parser.parse_args()
    windows, kills = (20, 3) if args.quick else (args.windows, args.kills)
    print(describe("pyarrow", "great_expectations", "dvc"))
    with tempfile.TemporaryDirectory() as scratch:
        calm = build(Path(scratch) / "calm", windows)
        killed = world.copy(calm.root, Path(scratch) / "killed")
        before = contents(calm)
        began = time.monotonic()
        assert start(calm).wait() == 0
        alone = time.monotonic() - began
        lines = calm.ledger()
        home = sum(line.returned for line in lines)
        print(f"{len(lines)} windows, {sum(line.rows for line in lines):,} rows, {home:,} of them went home")
        draw, kept, again, died = random.Random(args.seed), {}, set(), 0
        began = time.monotonic()
        for until in sorted(draw.sample(range(1, 2 * windows), kills)):
            running = start(killed)
            kept, more = watch(running, killed, kept, until)
            running.kill()
            died += running.wait() < 0
            kept, again = made(killed), again | more
            whole = contents(killed) in (before, contents(calm))
            print(f"killed with {len(kept)} made; the dataset is {'whole' if whole else 'TORN'}", flush=True)
        running = start(killed)
        _, more = watch(running, killed, kept)
        assert running.wait() == 0
        took = time.monotonic() - began
        print(f"alone {alone:.1f} s; with {died} kills {took:.1f} s, imports at each start included")
        differing = {n for n in contents(calm) | contents(killed) if contents(calm).get(n) != contents(killed).get(n)}
        met = [
            ceiling("files that differ from those of a run never killed", len(differing), 0, "{}"),
            ceiling("windows made again that were made before a kill", len(again | more), 0, "{}"),
        ]
        shutil.rmtree(killed.root)
    return 0 if all(met) and died == kills else 1


if __name__ == "__main__":
    sys.exit(main())
