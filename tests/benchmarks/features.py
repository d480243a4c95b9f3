"""Features of a whole history, against DuckDB, polars and pandas computing the same from the same tables in memory.

    python tests/benchmarks/features.py [rows ...]        (1,000,000 and 10,000,000 without an argument)

Four keys (user, item, user × genre, item × device) with two half-lives each, back-off, and windows since first and
last seen; 60 windows; zipf users (one for 40 rows) and items. The peers come with `pip install --group bench` (pip
25.1 or newer) or `pip install duckdb polars`. Results are compared before anything is timed. Where `python
tests/benchmarks` has installed Feast, which needs an environment of its own, it is asked too, for 100,000 rows: see
`feast_lookup.py`.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "2")

import machine
import numpy as np
import pandas as pd
import peers
import pyarrow as pa

from flywheel import config
from flywheel.learn.features import Spec
from flywheel.learn.state import advance
from flywheel.segments import Segments

WINDOWS = 60
BARS = {1_000_000: 3.0, 10_000_000: 2.0}  # × the better of DuckDB and polars
PANDAS_BAR = 6.0
REPEATS = {1_000_000: 5, 10_000_000: 2}
FEAST = Path(__file__).parents[2] / ".bench" / "feast" / "bin" / "python"
FEAST_ROWS = 100_000


def spec():
    lives = [f"{h}d" for h in peers.LIVES]
    counters = [
        {"key": list(keys), "half_lives": lives, "backoff": None if parent == "everything" else parent}
        for keys, parent in list(peers.KEYS.values())[1:]
    ]
    return Spec(
        config.parse(
            {
                "product": {"name": "benchmark"},
                "source": {"url": "none.csv"},
                "contract": {
                    "timestamp": "ts",
                    "label": "label",
                    "user": "user",
                    "item": "item",
                    "categorical": ["genre", "device"],
                },
                "windows": {"every": "1d"},
                "features": {"counters": counters, "smoothing": peers.SMOOTHING},
            }
        )
    )


def world(rows, windows=WINDOWS, seed=0):
    """Windows of equal size: who met what, of which genre, on which device, and whether they liked it."""
    rng = np.random.default_rng(seed)
    users, items = rows // 40, 2000
    user, item = rng.zipf(1.3, rows) % users, rng.zipf(1.2, rows) % items
    drawn = {"user": user, "item": item, "genre": item % 20, "device": rng.integers(0, 4, rows)}
    names = {k: pa.array([f"{k}{i}" for i in range(n)]) for k, n in zip(drawn, (users, items, 20, 4), strict=True)}
    label = (rng.random(rows) < 0.3).astype(np.float64)
    size = rows // windows
    return {
        w: pa.table(
            {
                k: pa.DictionaryArray.from_arrays(pa.array(v[w * size : (w + 1) * size].astype(np.int32)), names[k])
                for k, v in drawn.items()
            }
            | {"label": label[w * size : (w + 1) * size], "late": np.zeros(size, dtype=bool)}
        )
        for w in range(windows)
    }


def with_flywheel(made, windows):
    with tempfile.TemporaryDirectory() as folder:
        store = Segments(Path(folder), made.tables, keep=made.config.windows.grid.lag, chain=str)
        return dict(advance(store, made, windows, {w: w - 1 for w in windows}))


def assert_same(made, ours, name, theirs):
    """Stop where a peer says anything else of any row."""
    order = np.argsort(theirs["r"].to_numpy())
    for i, column in enumerate(peers.NAMES):
        assert made.names[i] == column
        mine = np.concatenate([matrix[:, i] for matrix in ours.values()])
        other = theirs[column].to_numpy().astype(np.float32)[order]
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, err_msg=f"{name}: {column}")


def installed():
    return [name for name in peers.PEERS if importlib.util.find_spec(name)]


def measure(rows):
    made, windows = spec(), world(rows)
    table = peers.rows(windows)
    runs = {"flywheel": lambda: with_flywheel(made, windows)}
    for name in installed():
        if name != "pandas" or rows <= 1_000_000:
            runs[name] = lambda name=name: peers.PEERS[name](table)
    ours = runs["flywheel"]()
    for name in list(runs)[1:]:
        assert_same(made, ours, name, runs[name]())
    del ours
    times = {name: [] for name in runs}
    for _ in range(REPEATS.get(rows, 3)):
        for name, run in runs.items():  # in turns, so that other work on the machine falls on all
            began, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - began, time.process_time() - cpu))
    return {name: min(both) for name, both in times.items()}


def show(rows, best):
    ours = best["flywheel"][0]
    print(f"\n{rows:,} rows, the fastest run\n{'':18} {'s':>8} {'CPU s':>8} {'ratio':>7}")
    for name, (wall, cpu) in best.items():
        print(f"{name:18} {wall:8.2f} {cpu:8.2f} {wall / ours:6.1f}×")
    machine.beside(f"features of {rows:,} rows", "s", {name: wall for name, (wall, _) in best.items()})
    rivals = [best[name][0] for name in ("duckdb", "polars") if name in best]
    met = []
    if rivals and rows in BARS:
        met.append(machine.bar("the better of DuckDB and polars", min(rivals) / ours, BARS[rows]))
    if "pandas" in best and rows in BARS:
        met.append(machine.bar("pandas", best["pandas"][0] / ours, PANDAS_BAR))
    return met


def for_feast(folder, table):
    """What `feast_lookup.py` reads: rows with their instants, and what is known of each key after each window."""
    rows = pd.DataFrame({"r": table["r"], "event_timestamp": day(table["w"]) + pd.to_timedelta(table["r"], unit="us")})
    for name, (keys, _) in list(peers.KEYS.items())[1:]:
        rows[name] = table[list(keys)].astype(str).agg("|".join, axis=1)
        known = rows[[name]].assign(w=table["w"]).groupby([name, "w"]).size().reset_index()[[name, "w"]]
        seen = known["w"].groupby(known[name])
        known["first"], known["last"] = seen.transform("first").astype(float), known["w"].astype(float)
        for column in (f"{c}{h}" for c in "ns" for h in peers.LIVES):
            known[column] = 1.0  # as many columns as the counters have; what is in them costs nothing
        known.assign(event_timestamp=day(known["w"] + 1)).drop(columns="w").to_parquet(folder / f"{name}.parquet")
    rows.to_parquet(folder / "rows.parquet")


def day(window):
    return pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(window, unit="D")


def beside_feast():
    """Ours in whole against Feast's lookup alone; they must have found the same, where Feast gives the row back.

    A row of which only later states know a key is not given back by its file store.
    """
    made, windows = spec(), world(FEAST_ROWS)
    with tempfile.TemporaryDirectory() as name:
        table = peers.rows(windows).to_pandas()
        for_feast(Path(name), table)
        command = [FEAST, Path(__file__).with_name("feast_lookup.py"), name]
        wall, cpu = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found = pd.read_parquet(Path(name) / "found.parquet")
    assert len(found) > FEAST_ROWS / 2
    began, before = time.perf_counter(), time.process_time()
    ours = with_flywheel(made, windows)
    best = {"flywheel": (time.perf_counter() - began, time.process_time() - before), "Feast, lookup only": (wall, cpu)}
    for key in list(peers.KEYS)[1:]:
        mine = np.concatenate([matrix[:, made.names.index(f"{key}__since_last")] for matrix in ours.values()])
        theirs = table["w"].to_numpy()[found["r"]] - 1 - found[f"of_{key}__last"].to_numpy()
        np.testing.assert_array_equal(mine[found["r"]], theirs.astype(np.float32), err_msg=f"Feast: {key}")
    return show(FEAST_ROWS, best)


def main(sizes):
    print(machine.describe("numpy", "pyarrow", *installed()))
    for name in peers.PEERS:
        if name not in installed():
            print(f"{name} is not installed and is left out; pip install --group bench")
    met = [ok for rows in sizes for ok in show(rows, measure(rows))]
    if FEAST.exists():
        beside_feast()
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main([int(float(a)) for a in sys.argv[1:]] or list(BARS)) else 1)
