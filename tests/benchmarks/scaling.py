"""What a million rows cost in each stage, and whether that foretells the cost of many times as many.

    python tests/benchmarks/scaling.py [million rows]        (8 without an argument)

A log of 100,000 rows a day is taken, closed, versioned, made features of and learned from (50 trees), each stage in one
process, at an eighth and at half of the rows. The line through both says what the whole should cost, then it is
measured. CPU seconds, of all threads and children, for those are what machines are paid for, and other work on the
machine moves them least. Bytes are of what each stage leaves. `docs/scaling.md` goes by this table.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import machine
import on_dask
import pyarrow.parquet as pq
import turn

from flows import closing, learning, spreading, starting
from flywheel import config
from flywheel.learn.plan import plan
from flywheel.workspace import Workspace

BAR = 1.25
TREES = 50
STAGES = ("take", "close", "version", "features", "fit")
VALUES = {**on_dask.VALUES, "source": {"url": "log/*.parquet"}, "train": {"rounds": TREES, "early_stopping": 0}}


def measured(folder, millions):
    """CPU seconds and bytes of each stage, for so many rows from an empty workspace on."""
    days = round(millions * 1_000_000) // turn.NEW
    (folder / "log").mkdir(parents=True)
    for window in range(days):
        pq.write_table(turn.delivery(window), folder / "log" / f"{window:04d}.parquet")
    suite = json.loads((Path(__file__).parent / "usual_suite.json").read_text())
    empty = {"name": "rows", "expectations": []}
    starting.create(folder, config.parse(VALUES), {"events": suite, "rows": empty, "features": empty})
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    ws, as_of = Workspace.open(folder), turn.START + timedelta(days=days)
    names = [f"{turn.START + timedelta(days=n):%Y-%m-%d}" for n in range(days)]
    windows = [ws.config.windows.grid.parse(name) for name in names]
    work = {
        "take": (lambda: closing.take(ws, as_of, as_of), (ws.inbox,)),
        "close": (lambda: closing.close(ws, as_of), (ws.data, ws.cache / "ids")),
        "version": (lambda: closing.version(ws), (folder / ".dvc" / "cache",)),
        "features": (lambda: spreading.build(ws.matrices(), windows), (ws.cache / "features", ws.cache / "state")),
        "fit": (lambda: learning.fit(ws, plan(ws.ledger(), ws.config, as_of), "bench"), (ws.cache / "turns",)),
    }
    found = {}
    for stage in STAGES:
        do, places = work[stage]
        before, held = cpu(), size(places)
        do()
        found[stage] = (cpu() - before, size(places) - held)
    return found


def cpu():
    return sum(os.times()[:4])


def size(folders):
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def main(millions=8.0):
    print(machine.describe("xgboost-cpu", "pyarrow", "great-expectations", "dvc"))
    parts = (millions / 8, millions / 2, millions)
    runs = []
    for part in parts:
        with tempfile.TemporaryDirectory() as name:
            runs.append(measured(Path(name) / "ws", part))
    heads = ("a million", "and once", f"{millions:g} M foretold", "measured", "MB a million")
    print("\nCPU seconds" + "".join(f"{head:>15}" for head in heads))
    total = {"foretold": 0.0, "measured": 0.0}
    for stage in STAGES:
        (a, _), (b, _), (whole, left) = (run[stage] for run in runs)
        each = (b - a) / (parts[1] - parts[0])
        once = a - each * parts[0]
        foretold = once + each * millions
        total = {"foretold": total["foretold"] + foretold, "measured": total["measured"] + whole}
        print(f"{stage:11}" + "".join(f"{v:>15.2f}" for v in (each, once, foretold, whole, left / millions / 1e6)))
    ratio = total["measured"] / total["foretold"]
    print(f"{'all':11}{total['foretold']:>45.2f}{total['measured']:>15.2f}\n")
    return all(
        [
            machine.ceiling("of what was foretold, all stages", ratio, BAR),
            machine.bar("of what was foretold, all stages", ratio, 1 / BAR),
        ]
    )


if __name__ == "__main__":
    sys.exit(0 if main(*(float(a) for a in sys.argv[1:])) else 1)
