"""A turn with 100,000 new rows, minus matrix and fit, against the usual turn; and whole, against bare XGBoost.

    python tests/benchmarks/turn.py [--history 1 5] [--runs 2] [--rounds 50] [--alone]

All are whole processes from a cold start, on the same rows. The usual turn is what most pipelines do: one Prefect flow
that reads all the data, validates all of it, computes all features again with pandas, adds everything to DVC, fits,
and logs the model with MLflow's defaults. Bare XGBoost reads our matrices from Parquet and fits the same trees.
`--alone` leaves both out and compares ours at each size of history with ours at the first. Seconds are of the fastest
run, CPU seconds of all threads and children.
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

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
NEW = 100_000
START = datetime(2024, 1, 1, tzinfo=UTC)
LESS = {5: 8.0}  # × less than the usual turn, by million rows of history
BARE = {5: 1.25}
FLAT = 1.3


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


def workspace(folder: Path, windows: int, rounds: int = 50) -> Path:
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
        "train": {"rounds": rounds, "early_stopping": 0},
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


def matrices(root: Path, windows: int) -> Path:
    """What the turn at this many windows trained on, as Parquet files of features and labels, and its parameters."""
    from flows import fitting
    from flywheel.learn.plan import plan
    from flywheel.workspace import Workspace

    ws, folder = Workspace.open(root), root / "bare"
    folder.mkdir(exist_ok=True)
    planned = plan(ws.ledger(), ws.config, START + timedelta(days=windows))
    cache, names = ws.matrices(), ws.recipe.names
    for window in planned.train:
        batch = fitting.batch(ws, cache, window)
        columns = dict(zip(names, batch.load().T, strict=True))
        pq.write_table(pa.table({**columns, "label": batch.labels}), folder / f"{window}.parquet")
    told = {"params": ws.config.train.params, "rounds": ws.config.train.rounds, "types": ws.recipe.types}
    (folder / "told.json").write_text(json.dumps(told))
    return folder


def measured(folder: Path, millions: int, chosen: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Turns of each kind at one size of history, one after the other, so that other work falls on all."""
    windows = millions * 1_000_000 // NEW
    root = workspace(folder, windows, chosen.rounds)
    other = None if chosen.alone else usual(folder, windows)
    found: dict[str, list[dict[str, float]]] = {"ours": [], "usual": [], "bare": []}
    for attempt in range(chosen.runs):
        found["ours"].append(run_ours(root, windows + 1 + attempt))
        if other is not None:
            found["bare"].append(
                run([sys.executable, str(HERE / "turn_bare.py"), str(matrices(root, windows + 1 + attempt))])
            )
            found["usual"].append(run([sys.executable, str(HERE / "turn_usual.py"), str(other)]))
        pq.write_table(delivery(windows + 1 + attempt), root / "log" / f"{windows + 1 + attempt:04d}.parquet")
    shutil.rmtree(root)
    return found


def show(millions: int, found: dict[str, list[dict[str, float]]]) -> tuple[float, list[bool]]:
    """Print one size of history; the seconds of ours minus matrix and fit, and which bars are met."""
    least = {name: {key: min(run[key] for run in runs) for key in runs[0]} for name, runs in found.items() if runs}
    rest = {name: min(run["all"] - run["fit"] for run in found[name]) for name in least}
    print(f"\n{millions} M rows{'':6} {'all s':>8} {'CPU s':>8} {'fit s':>8} {'the rest s':>11} {'CPU s':>8}")
    for name, best in least.items():
        cpu = min(run["cpu"] - run["fit_cpu"] for run in found[name])
        print(f"{name:14} {best['all']:8.1f} {best['cpu']:8.1f} {best['fit']:8.1f} {rest[name]:11.1f} {cpu:8.1f}")
    met = []
    if "usual" in least:
        what = f"with 100,000 new rows after {millions} M"
        machine.beside(
            f"a turn {what}, minus matrix and fit", "s", {"flywheel": rest["ours"], "the usual turn": rest["usual"]}
        )
        whole = {"flywheel": least["ours"]["all"], "bare XGBoost": least["bare"]["all"]}
        machine.beside(f"a whole turn {what}", "s", whole | {"the usual turn": least["usual"]["all"]})
        less, over = rest["usual"] / rest["ours"], least["ours"]["all"] / least["bare"]["all"]
        met.append(machine.bar(f"less than the usual turn after {millions} M", less, LESS.get(millions, 2.0)))
        met.append(machine.ceiling(f"bare XGBoost, the whole turn after {millions} M", over, BARE.get(millions, 9.0)))
    return rest["ours"], met


def main() -> bool:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=int, nargs="+", default=[1, 5], help="million rows of history")
    parser.add_argument("--runs", type=int, default=2, help="turns of each kind")
    parser.add_argument("--rounds", type=int, default=50, help="trees")
    parser.add_argument("--alone", action="store_true", help="ours only")
    chosen = parser.parse_args()
    print(machine.describe("xgboost-cpu", "prefect", "mlflow", "dvc", "great-expectations"))
    rest, met = {}, []
    for millions in chosen.history:
        with tempfile.TemporaryDirectory() as scratch:
            rest[millions], more = show(millions, measured(Path(scratch), millions, chosen))
            met += more
    first = chosen.history[0]
    for millions in chosen.history[1:]:
        met.append(machine.ceiling(f"at {millions} M against {first} M", rest[millions] / rest[first], FLAT))
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
