"""A turn with 100,000 new rows, minus matrix and fit, against the usual turn, at 1 M and 5 M rows of history.

    python tests/benchmarks/turn.py [--history 1 5] [--runs 2]

Both turns are whole processes from a cold start, on the same rows. The usual turn is what most pipelines do: one
Prefect flow that reads all the data, validates all of it, computes all features again with pandas, adds everything to
DVC, fits, and logs the model with MLflow's defaults. Bars: ours at most 1/2 of it at 1 M rows and 1/4 at 5 M, and at
5 M at most 1.3 × as long as at 1 M.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
NEW = 100_000
START = datetime(2024, 1, 1, tzinfo=UTC)
BARS = {1: 0.5, 5: 0.25}


def delivery(window: int) -> pa.Table:
    """The rows of one day: 100,000 of them, users and items zipf-distributed."""
    rng = np.random.default_rng([7, window])
    user, item = rng.zipf(1.3, NEW) % 125_000, rng.zipf(1.2, NEW) % 2_000
    at = np.sort(rng.integers(0, 86_400, NEW))
    taste = np.sin(user * 0.7 + item % 20)
    label = rng.random(NEW) < 0.25 + 0.15 * taste
    base = int((START + timedelta(days=window)).timestamp())
    return pa.table(
        {
            "event_id": [f"e{window}-{i}" for i in range(NEW)],
            "ts": pa.array((base + at) * 1_000_000, pa.timestamp("us", tz="UTC")),
            "user": [f"u{u}" for u in user],
            "item": [f"i{i}" for i in item],
            "genre": [f"g{i % 20}" for i in item],
            "device": [("tv", "phone", "web", "car")[d] for d in rng.integers(0, 4, NEW)],
            "hour": (at // 3600).astype(np.float64),
            "label": label.astype(np.int64),
        }
    )


def workspace(folder: Path, windows: int) -> Path:
    """A workspace whose history is closed and which has one generation; then one more delivery has arrived."""
    from flows import closing, starting
    from flywheel import config
    from flywheel.workspace import Workspace

    root = folder / f"ours-{windows}"
    (root / "log").mkdir(parents=True)
    for window in range(windows):
        pq.write_table(delivery(window), root / "log" / f"{window:04d}.parquet")
    half_lives = ["7d", "28d"]
    counters = [
        {"key": ["user"], "half_lives": half_lives},
        {"key": ["item"], "half_lives": half_lives},
        {"key": ["user", "genre"], "half_lives": half_lives, "backoff": "user"},
        {"key": ["item", "device"], "half_lives": half_lives, "backoff": "item"},
    ]
    roles = {"timestamp": "ts", "label": "label", "user": "user", "item": "item", "event_id": "event_id"}
    values = {
        "product": {"name": "bench"},
        "source": {"url": "log/*.parquet"},
        "contract": {**roles, "numeric": ["hour"], "categorical": ["genre", "device"]},
        "windows": {"every": "1d"},
        "features": {"counters": counters},
        "train": {"rounds": 50, "early_stopping": 0},
        "exam": {"windows": 1, "rows": 50_000},
    }
    suite = json.loads((HERE / "usual_suite.json").read_text())
    empty = {"name": "rows", "expectations": []}
    starting.create(root, config.parse(values), {"events": suite, "rows": empty, "features": empty})
    ws, as_of = Workspace.open(root), START + timedelta(days=windows)
    closing.take(ws, as_of, as_of)
    closing.close(ws, as_of)
    run_ours(root, windows)  # the generation before
    pq.write_table(delivery(windows), root / "log" / f"{windows:04d}.parquet")
    return root


def run_ours(root: Path, windows: int) -> dict[str, float]:
    """One turn of ours in a process of its own: seconds in all, and in matrix and fit."""
    as_of = (START + timedelta(days=windows)).isoformat()
    return run([sys.executable, str(HERE / "turn_ours.py"), str(root), as_of])


def run(command: list[str]) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parents[1] / 'src'}"}
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    took, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    cpu = sum(after[2:4]) - sum(before[2:4])  # of the process and of what it waited for, the history's API included
    return {"all": took, "cpu": cpu, **told}


def usual(folder: Path, windows: int) -> Path:
    """The usual pipeline's folder: one growing Parquet file a day, a DVC repository, an MLflow store."""
    root = folder / f"usual-{windows}"
    (root / "data").mkdir(parents=True)
    for window in range(windows + 1):
        pq.write_table(delivery(window), root / "data" / f"{window:04d}.parquet")
    shutil.copy(HERE / "usual_suite.json", root)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=int, nargs="+", default=[1, 5], help="million rows of history")
    parser.add_argument("--runs", type=int, default=2, help="turns of each kind; the fastest counts")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; seconds, matrix and fit taken off")
    print(f"{'history':>10} {'ours':>8} {'usual':>8} {'ratio':>7} {'bar':>6}")
    ours: dict[int, float] = {}
    for millions in chosen.history:
        windows = millions * 1_000_000 // NEW
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            root, other = workspace(folder, windows), usual(folder, windows)
            mine, theirs = [], []
            for attempt in range(chosen.runs):
                turned = run_ours(root, windows + 1 + attempt)
                mine.append(turned["all"] - turned["fit"])
                pq.write_table(delivery(windows + 1 + attempt), root / "log" / f"{windows + 1 + attempt:04d}.parquet")
                done = run([sys.executable, str(HERE / "turn_usual.py"), str(other)])
                theirs.append(done["all"] - done["fit"])
        ours[millions] = min(mine)
        ratio, bar = min(mine) / min(theirs), BARS.get(millions, 1.0)
        said = "met" if ratio <= bar else "MISSED"
        print(f"{millions:>8} M {min(mine):>8.1f} {min(theirs):>8.1f} {ratio:>7.2f} {bar:>6.2f} {said}", flush=True)
    if {1, 5} <= ours.keys():
        growth = ours[5] / ours[1]
        print(f"ours at 5 M against 1 M: {growth:.2f}, bar 1.30: {'met' if growth <= 1.3 else 'MISSED'}")


if __name__ == "__main__":
    main()
