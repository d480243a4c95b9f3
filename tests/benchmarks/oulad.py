"""OULAD's assessments: quality on the newest quarter, and quality against data in a walk-forward backfill.

    python tests/benchmarks/oulad.py [path of events.csv.gz] [--exam-only]

(i) A workspace as `flywheel init` proposes it, with only the grid's origin and the exam set, so that the exam is all
from 2014-12-02 and training stops at what was known then; through the same stages as a turn. Bar: AUC ≥ .845.
(ii) `flywheel backfill --every 28d` in that workspace, with the exam as proposed. Bar: AUC rises with rows
(Spearman's correlation > 0, the last quarter of the generations above the first).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import machine
import numpy as np
from scipy.stats import spearmanr

from flows import closing, learning, starting
from flywheel.learn.plan import plan
from flywheel.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT.parent / "shared/data/oulad-assessments/events.csv.gz"
EXAM = datetime(2014, 12, 2, tzinfo=UTC)
END = datetime(2015, 9, 16, tzinfo=UTC)  # the day after the last event
BAR = 0.845


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def started(root, events):
    """The workspace as proposed, on a grid on which a window begins with the exam."""
    os.environ["FLYWHEEL_WINDOWS__ORIGIN"] = EXAM.isoformat()
    starting.start(root, str(events), {}, name="oulad")
    ws = Workspace.open(root)
    counters = ", ".join(f"{c.name}" for c in ws.config.features.counters)
    windows = ws.config.windows
    print(f"windows of {windows.every}, attribution {windows.attribution}; counters {counters}")
    return ws


def examined(ws):
    """Train on what was known before the exam and sit it; AUC with its interval."""
    grid = ws.config.windows.grid
    last = grid.index(END)
    os.environ["FLYWHEEL_EXAM__WINDOWS"] = str(last - grid.index(EXAM) + 1)
    os.environ["FLYWHEEL_EXAM__ROWS"] = "1"
    ws = Workspace.open(ws.root)
    as_of = grid.closes_at(last) + timedelta(days=1)
    began = time.perf_counter()
    closing.take(ws, as_of, datetime.now(UTC))
    closed = closing.close(ws, as_of)
    print(f"{len(closed)} windows with {sum(line.rows for line in closed):,} rows closed in {elapsed(began)}")
    planned = plan(ws.ledger(), ws.config, as_of)
    assert planned.exam[0] == grid.name(grid.index(EXAM)), planned.exam[0]
    began, used = time.perf_counter(), cpu()
    trained = learning.fit(ws, planned, "benchmark")
    print(
        f"features and fit of {trained.rows:,} rows, {trained.rounds} trees: {elapsed(began)}, {cpu() - used:.1f} CPU s"
    )
    exam = learning.examine(ws, planned, trained, learning.Scorer(0, ws.recipe)).evaluation
    difference = exam.overall.difference
    print(f"AUC {exam.challenger['auc']:.4f} on {exam.rows:,} rows of {exam.users:,} users from {planned.exam[0]}")
    print(f"above the baseline's {exam.champion['auc']:.4f} by {difference.low:.4f} to {difference.high:.4f}")
    for name in ("FLYWHEEL_EXAM__WINDOWS", "FLYWHEEL_EXAM__ROWS"):
        del os.environ[name]
    return machine.bar("AUC", exam.challenger["auc"], BAR, "{:.4f}")


def backfilled(ws):
    """Walk forward, and set AUC against rows."""
    flywheel = str(Path(sys.executable).with_name("flywheel"))
    began = time.perf_counter()
    subprocess.run([flywheel, "backfill", "--every", "28d"], cwd=ws.root, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run([flywheel, "generations", "--json"], cwd=ws.root, check=True, capture_output=True, text=True)
    made = sorted(json.loads(told.stdout), key=lambda one: one["generation"])
    print(f"{len(made)} generations in {elapsed(began)}")
    for one in made:
        line = f"{one['generation']:3} {one['as_of'][:10]} {one['train_rows']:9,} {one['metrics']['auc']:.4f}"
        print(line, one["verdict"])
    rows, auc = [one["train_rows"] for one in made], np.array([one["metrics"]["auc"] for one in made])
    quarter = max(1, len(made) // 4)
    print(f"first {quarter} generations {auc[:quarter].mean():.4f}, last {quarter} {auc[-quarter:].mean():.4f}")
    rises = machine.bar("Spearman's correlation of rows and AUC", spearmanr(rows, auc)[0], 0, "{:.3f}")
    gain = auc[-quarter:].mean() - auc[:quarter].mean()
    return machine.bar("AUC of the last quarter less that of the first", gain, 0, "{:.4f}") and rises


def elapsed(began):
    return f"{time.perf_counter() - began:.1f} s"


def main(arguments):
    paths = [Path(a) for a in arguments if not a.startswith("--")]
    events = paths[0] if paths else EVENTS
    if not events.exists():
        print(f"{events} is not here: OULAD's assessments are needed; nothing was measured")
        return True
    print(machine.describe("xgboost-cpu", "numpy"))
    with tempfile.TemporaryDirectory() as name:
        ws = started(Path(name) / "oulad", events.resolve())
        met = [examined(ws)]
        if "--exam-only" not in arguments:
            met.append(backfilled(ws))
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
