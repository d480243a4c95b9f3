"""Closing one more window after 10 M rows of history, against after 1 M: it should cost the window, not the history.

    python tests/benchmarks/closing.py [rows of the longer history]

A window has 16,000 rows. Each is closed as a turn does it: the counters are opened from disk in a fresh object, the
window's features are looked up, and it is folded and put. Both histories have the same users per row (one for 40)
and are closed in turns, window by window. The median is of 20 consecutive windows, the mean includes compactions.
"""

import sys
import tempfile
import time
from pathlib import Path

import features
import machine
import numpy as np

from flywheel.learn.state import advance
from flywheel.segments import Segments

WINDOW = 16_000
MORE = 20
BAR = 1.5


class History:
    def __init__(self, rows, folder, seed):
        self.spec, self.folder = features.spec(), Path(folder)
        self.windows = features.world(rows + (MORE + 1) * WINDOW, windows=rows // WINDOW + MORE + 1, seed=seed)
        self.newest = len(self.windows) - MORE - 2
        self.times = []
        for start in range(0, self.newest + 1, 60):
            block = {w: self.windows[w] for w in range(start, min(start + 60, self.newest + 1))}
            for _ in advance(self.open(), self.spec, block, {}):
                pass

    def open(self):
        return Segments(self.folder, self.spec.tables, keep=1, chain=str)

    def close_one(self):
        window = self.newest + 1
        began = time.perf_counter()
        list(advance(self.open(), self.spec, {window: self.windows[window]}, {window: window - 1}))
        self.times.append(time.perf_counter() - began)
        self.newest = window

    def size(self):
        return sum(path.stat().st_size for path in self.folder.glob("*.npy")) / 1e6


def main(longer=10_000_000, shorter=1_000_000):
    print(machine.describe("numpy"))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as ten:
        histories = {shorter: History(shorter, one, 1), longer: History(longer, ten, 2)}
        time.sleep(0.1)
        for history in histories.values():
            history.close_one()  # hashes what was just written, once
            history.times.clear()
        for _ in range(MORE):
            for history in histories.values():
                history.close_one()
        print(f"{'history':>12} {'counters MB':>12} {'median ms':>10} {'mean ms':>10} {'most ms':>10}")
        for rows, history in histories.items():
            ms = np.array(history.times) * 1000
            print(f"{rows:12,} {history.size():12.1f} {np.median(ms):10.1f} {ms.mean():10.1f} {ms.max():10.1f}")
    short, long = (np.array(history.times) for history in histories.values())
    met = machine.ceiling("the time after the shorter history, median", np.median(long) / np.median(short), BAR)
    print(f"        {long.mean() / short.mean():5.2f} × in the mean, compactions included")
    return met


if __name__ == "__main__":
    sys.exit(0 if main(*(int(float(a)) for a in sys.argv[1:])) else 1)
