"""Training streamed window by window, into memory and into pages on disk, against bare XGBoost on one array in memory.

    python tests/benchmarks/training.py [rows] [rounds]        (5,000,000 and 30 without an argument)

Time and peak memory. 20 columns, two of them categorical, one fifth missing; 50 windows. All fit as many trees with the
same parameters, from `.npy` files: one a window, loaded and verified as the cache does, or one of all. Each runs
in its own process; its memory is the peak (VmHWM) less what was resident after the imports. Linux only.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import xgboost as xgb

from flywheel.learn import matrix, train
from flywheel.sections import Train

COLUMNS = 20
WINDOWS = 50
NAMES = tuple(f"f{i}" for i in range(COLUMNS))
TYPES = ("q",) * (COLUMNS - 2) + ("c",) * 2
CATEGORIES = 30
TIME_BAR, MEMORY_BAR = 1.05, 0.65  # no loss of time, within what one run tells
REPEATS = 2


def make(folder, rows):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=COLUMNS - 2)
    whole = np.lib.format.open_memmap(folder / "whole.npy", "w+", np.float32, (rows, COLUMNS))
    labels = []
    for window, part in enumerate(np.array_split(np.arange(rows), WINDOWS)):
        block = rng.normal(size=(len(part), COLUMNS)).astype(np.float32)
        score = block[:, :-2] @ weights / 4 + rng.normal(size=len(part))
        block[rng.random(block.shape) < 0.2] = np.nan
        block[:, -2:] = rng.integers(0, CATEGORIES, (len(part), 2))
        whole[part[0] : part[-1] + 1] = block
        np.save(folder / f"{window:03}-{matrix._checksum(block)}.npy", block)
        labels.append((score > 0).astype(np.float32))
    whole.flush()
    np.save(folder / "labels.npy", np.concatenate(labels))


def resident(field):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def streamed(folder, rounds, pages=None):
    labels = np.load(folder / "labels.npy")
    files = sorted(folder.glob("0*.npy"))
    parts = np.array_split(labels, WINDOWS)
    batches = [
        train.Batch(path.stem, part, lambda path=path: matrix._read(path))
        for path, part in zip(files, parts, strict=True)
    ]
    policy = Train(rounds=rounds, early_stopping=0)
    columns = train.Columns(NAMES, TYPES, dict.fromkeys(NAMES[-2:], CATEGORIES))
    return train.fit(batches, columns, kind="binary", policy=policy, pages=pages).model


def paged(folder, rounds):
    with tempfile.TemporaryDirectory(dir=folder) as pages:
        return streamed(folder, rounds, Path(pages))


def bare(folder, rounds):
    array, labels = np.load(folder / "whole.npy"), np.load(folder / "labels.npy")
    data = xgb.QuantileDMatrix(
        array,
        labels,
        feature_names=list(NAMES),
        feature_types=list(TYPES),
        enable_categorical=True,
    )
    params = {**Train().params, "objective": "binary:logistic", "tree_method": "hist", "seed": 0}
    return xgb.train(params, data, rounds).save_raw("ubj")


def run(how, folder, rounds):
    """In a process of its own: seconds and MB."""
    before = resident("VmRSS")
    began = time.perf_counter()
    {"streamed": streamed, "paged": paged, "bare": bare}[how](folder, rounds)
    print(time.perf_counter() - began, resident("VmHWM") - before, before)


def main(rows=5_000_000, rounds=30):
    print(machine.describe("xgboost-cpu", "numpy"))
    found = {"streamed": [], "paged": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), rows)
        for _ in range(REPEATS):
            for how, runs in found.items():
                command = [sys.executable, __file__, how, name, str(rounds)]
                told = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
                runs.append([float(number) for number in told.stdout.split()])
    print(f"{rows:,} × {COLUMNS}, {rounds} trees, best of {REPEATS}\n{'':10} {'s':>8} {'MB':>8} {'imports MB':>11}")
    best = {how: np.min(runs, axis=0) for how, runs in found.items()}
    for how, (seconds, memory, imports) in best.items():
        print(f"{how:10} {seconds:8.1f} {memory:8.0f} {imports:11.0f}")
    for what, unit, i in (("time", "s", 0), ("memory", "MB", 1)):
        figures = {f"flywheel, {how}": best[how][i] for how in ("streamed", "paged")} | {
            "bare XGBoost, in memory": best["bare"][i]
        }
        machine.beside(f"training on {rows:,} × {COLUMNS}: {what}", unit, figures)
    seconds, memory, _ = best["streamed"] / best["bare"]
    return all([machine.ceiling("the time", seconds, TIME_BAR), machine.ceiling("the memory", memory, MEMORY_BAR)])


if __name__ == "__main__":
    if sys.argv[1:2] in (["streamed"], ["paged"], ["bare"]):
        run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(0 if main(*(int(float(a)) for a in sys.argv[1:])) else 1)
