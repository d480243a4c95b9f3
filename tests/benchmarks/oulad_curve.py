"""OULAD's assessments: the learning curve at the end of the log. Bar: it says that more data still helps.

    python tests/benchmarks/oulad_curve.py [path of events.csv.gz]

A workspace as `flywheel init` proposes it, closed to the end; see oulad.py. That more helps is said where the interval
of what each doubling added over the largest half of the sizes lies above 0.
"""

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import machine
import oulad
from rich.console import Console

from flows import closing, curving, show_curve
from flywheel.measure import curves


def main(arguments):
    events = Path(arguments[0]) if arguments else oulad.EVENTS
    if not events.exists():
        print(f"{events} is not here: OULAD's assessments are needed; nothing was measured")
        return True
    print(machine.describe("xgboost-cpu", "numpy"))
    with tempfile.TemporaryDirectory() as name:
        ws = oulad.started(Path(name) / "oulad", events.resolve())
        grid = ws.config.windows.grid
        as_of = grid.closes_at(grid.index(oulad.END)) + timedelta(days=1)
        closing.take(ws, as_of, datetime.now(UTC))
        closing.close(ws, as_of)
        began = time.perf_counter()
        found = curving.curve_at(ws, as_of)
        print(f"curve in {oulad.elapsed(began)}")
        Console(width=150).print(show_curve.curve(found))
        print(f"laws {found.families}, widened by {found.scale:.2f}; elasticity {found.elasticity}")
        rise = curves.climb(found.points, found.metric)
    met = any("more data still helps." in sentence for sentence in found.says)
    return machine.bar("low end of what each doubling added", rise.low, 0, "{:+.4f}") and met


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
