"""What `flywheel curve` costs: its time against that of one full training, at 1 M training rows.

    python tests/benchmarks/curve_cost.py [training rows] [--quick]

A log of 100,000 rows a day, zipf-distributed users and items (turn.py's), through the real flow with the settings for
training that `flywheel init` writes. The one full training chooses its number of trees and fits on all rows; features
are built beforehand and count for neither. Both are CPU seconds of this process, so that other work on the machine
counts for neither. Bar: at most 10 ×.
"""

import resource
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import machine
import pyarrow.parquet as pq
import turn

from flows import closing, curving, retraining, starting
from flows.retraining import Sample
from flywheel import config
from flywheel.learn.plan import plan
from flywheel.workspace import Workspace

BAR = 10


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def workspace(root, windows):
    """A workspace of so many closed days."""
    (root / "log").mkdir(parents=True)
    for window in range(windows):
        pq.write_table(turn.delivery(window), root / "log" / f"{window:04d}.parquet")
    roles = {"timestamp": "ts", "label": "label", "user": "user", "item": "item", "event_id": "event_id"}
    lives = ["7d", "28d"]
    counters = [
        {"key": ["user"], "half_lives": lives},
        {"key": ["item"], "half_lives": lives},
        {"key": ["user", "genre"], "half_lives": lives, "backoff": "user"},
        {"key": ["item", "device"], "half_lives": lives, "backoff": "item"},
    ]
    values = {
        "product": {"name": "bench"},
        "source": {"url": "log/*.parquet"},
        "contract": {**roles, "numeric": ["hour"], "categorical": ["genre", "device"]},
        "windows": {"every": "1d"},
        "features": {"counters": counters},
        "exam": {"windows": 1, "rows": 50_000},
    }
    empty = {"name": "rows", "expectations": []}
    starting.create(root, config.parse(values), dict.fromkeys(("events", "rows", "features"), empty))
    ws, as_of = Workspace.open(root), turn.START + timedelta(days=windows)
    closing.take(ws, as_of, as_of)
    closing.close(ws, as_of)
    return ws, as_of


def main(rows):
    print(machine.describe("xgboost-cpu", "numpy"))
    with tempfile.TemporaryDirectory() as name:
        ws, as_of = workspace(Path(name) / "bench", max(2, rows // turn.NEW + 1))
        planned = plan(ws.ledger(), ws.config, as_of)
        retraining.panel(ws, planned.exam)
        ws.matrices().build([ws.config.windows.grid.parse(name) for name in planned.train])
        began, used = time.perf_counter(), cpu()
        trained = retraining.fit(ws, Sample(planned.train), seed=0)
        full, full_cpu = time.perf_counter() - began, cpu() - used
        began, used = time.perf_counter(), cpu()
        found = curving.curve_at(ws, as_of)
        took, took_cpu = time.perf_counter() - began, cpu() - used
    print(f"{planned.train_rows:,} rows, {trained.rounds} trees: {full:.1f} s, {full_cpu:.1f} CPU s")
    print(f"curve of {len(found.points)} sizes and {len(found.grid)} thinned: {took:.1f} s, {took_cpu:.1f} CPU s")
    print("\n".join(found.says))
    return machine.ceiling("the CPU time of one full training", took_cpu / full_cpu, BAR)


if __name__ == "__main__":
    numbers = [int(float(a)) for a in sys.argv[1:] if not a.startswith("--")]
    sys.exit(0 if main(numbers[0] if numbers else 200_000 if "--quick" in sys.argv else 1_000_000) else 1)
