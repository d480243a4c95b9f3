"""Features and fit of a whole history, by a Dask cluster of 2 processes with a thread each against one with 2 threads.

    python tests/benchmarks/on_dask.py [million rows ...]        (20 without an argument)
    python tests/benchmarks/on_dask.py closing [million rows]    (4 without one): the closing of its windows instead

Days of 100,000 rows, zipf users and items, four counters with two half-lives each, two of them leaning on others; 50
trees of the default depth. Each runs in a process of its own on the same closed windows, with nothing cached, and the
cluster's start and end count; each of its processes takes seconds to import what judges windows. CPU is user and
system, of the process and all its children. Memory is the driver's own peak (VmHWM), and what it was after the imports.
Linux only.
"""

import json
import resource
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows import closing, learning, spreading, starting
from flywheel import config
from flywheel.data import dataset
from flywheel.learn.plan import plan
from flywheel.records import LedgerLine
from flywheel.scaffold import render
from flywheel.schema import row_schema
from flywheel.sections import Compute
from flywheel.workspace import Workspace

DAY, START = 100_000, datetime(2024, 1, 1, tzinfo=UTC)
BAR = 1.3
SERIAL = 0.5
LIVES = ["7d", "28d"]
VALUES = {
    "product": {"name": "bench"},
    "source": {"url": "none.csv"},
    "contract": {
        **{"timestamp": "ts", "label": "label", "user": "user", "item": "item", "event_id": "event_id"},
        **{"numeric": ["hour"], "categorical": ["genre", "device"]},
    },
    "windows": {"every": "1d"},
    "features": {
        "counters": [
            {"key": ["user"], "half_lives": LIVES},
            {"key": ["item"], "half_lives": LIVES},
            {"key": ["user", "genre"], "half_lives": LIVES, "backoff": "user"},
            {"key": ["item", "device"], "half_lives": LIVES, "backoff": "item"},
        ]
    },
    "train": {"rounds": 50, "early_stopping": 0},
    "exam": {"windows": 1, "rows": 1},
}


def windows(millions):
    return round(millions * 1_000_000) // DAY


def rows(window, schema):
    rng = np.random.default_rng([7, window])
    user, item = rng.zipf(1.3, DAY) % 125_000, rng.zipf(1.2, DAY) % 2_000
    at = int((START + timedelta(days=window)).timestamp()) + np.sort(rng.integers(0, 86_400, DAY))
    label = rng.random(DAY) < 0.25 + 0.15 * np.sin(user * 0.7 + item % 20)
    names = {"user": user, "item": item, "genre": item % 20, "device": rng.integers(0, 4, DAY)}
    columns = {
        "event_id": pa.array([f"e{window}-{i}" for i in range(DAY)]),
        "ts": pa.array(at * 1_000_000),
        "label_ts": pa.array(at * 1_000_000),
        "label": pa.array(label.astype(np.float64)),
        "hour": pa.array((at // 3600 % 24).astype(np.float64)),
        "late": pa.array(np.zeros(DAY, dtype=bool)),
        **{k: pc.binary_join_element_wise(k[0], pa.array(v.astype(str)), "") for k, v in names.items()},
    }
    made = [
        columns[f.name].dictionary_encode() if pa.types.is_dictionary(f.type) else columns[f.name].cast(f.type)
        for f in schema
    ]
    return pa.table([column.cast(f.type) for column, f in zip(made, schema, strict=True)], schema=schema)


def make(root, millions):
    """A workspace with closed windows and nothing cached."""
    settings = config.parse(VALUES)
    (root / "flywheel.toml").write_text(render(settings), encoding="utf-8")
    ws, schema, lines = Workspace.open(root), row_schema(settings), []
    for window in range(windows(millions)):
        start = START + timedelta(days=window)
        name = settings.windows.grid.name(settings.windows.grid.index(start))
        sha, _ = dataset._write(dataset.events_path(ws.data, name), rows(window, schema), None), None
        counts = {"duplicate": 0, "quarantined": 0, "unlabelled": 0, "late": 0}
        lines.append(
            LedgerLine(name, start, start + timedelta(days=1), DAY, DAY, **counts, events_sha256=sha,
                       quarantine_sha256=None, shards=())
        )  # fmt: skip
    dataset.write_ledger(ws.data, lines)


def run(engine, root):
    """In a process of its own: build and fit; what it took."""
    ws, before = Workspace.open(Path(root)), resident()
    planned = plan(ws.ledger(), ws.config, ws.ledger()[-1].end)
    began = time.perf_counter()
    with spreading.spreading(ws, Compute(engine=engine, workers=2)):
        spreading.build(ws.matrices(), [ws.config.windows.grid.parse(name) for name in planned.train])
        built = time.perf_counter()
        trained = learning.fit(ws, planned, "bench")
        fitted = time.perf_counter()
    ended = time.perf_counter()
    print(
        json.dumps(
            {
                "features": built - began,
                "fit": fitted - built,
                "all": ended - began,
                **used(),
                "imports": before,
                "hash": trained.matrix_hash,
            }
        )
    )


def deliver(root, millions):
    """A workspace with everything in its inbox and nothing closed."""
    settings = config.parse({**VALUES, "source": {"url": "log/*.parquet"}})
    suite = json.loads(Path(__file__).with_name("usual_suite.json").read_text(encoding="utf-8"))
    empty = {"name": "rows", "expectations": []}
    (root / "log").mkdir(parents=True)
    for window in range(windows(millions)):
        table = rows(window, row_schema(settings)).drop_columns(["label_ts", "late"])
        names = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
        plain = pa.schema([f.with_type(pa.string()) if f.name in names else f for f in table.schema])
        pq.write_table(table.cast(plain), root / "log" / f"{window:04}.parquet")
    starting.create(root, settings, {"events": suite, "rows": empty, "features": empty})
    at = START + timedelta(days=windows(millions))
    closing.take(Workspace.open(root), at, at)


def close(engine, root, millions):
    """In a process of its own: close all windows; what it took."""
    ws, began = Workspace.open(Path(root)), time.perf_counter()
    with spreading.spreading(ws, Compute(engine=engine, workers=2)):
        lines = closing.close(ws, START + timedelta(days=windows(float(millions))))
        closed = time.perf_counter()
    told = {"close": closed - began, "all": time.perf_counter() - began, "windows": len(lines)}
    print(json.dumps({**told, **used(), "hash": dataset.fingerprint(lines)}))


def used():
    """CPU seconds of all processes and of this one, and the most memory that this one had."""
    held = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = [one.ru_utime + one.ru_stime for one in held]
    return {"cpu": sum(cpu), "driver": cpu[0], "peak": resident("VmHWM")}


def resident(field="VmRSS"):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main(*sizes):
    print(machine.describe("dask", "xgboost-cpu", "numpy"))
    heads = ("features s", "fit s", "all s", "CPU s", "driver CPU", "driver MB", "imports MB")
    print(f"{'':14}" + "".join(f"{head:>11}" for head in heads))
    met = True
    for millions in sizes or (20.0,):
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), millions)
            told = {}
            for engine in ("local", "dask"):
                told[engine] = one = told_by(engine, name)
                shown = (one[k] for k in ("features", "fit", "all", "cpu", "driver", "peak", "imports"))
                print(f"{millions:>5g} M {engine:6}" + "".join(f"{value:>11.1f}" for value in shown), flush=True)
                shutil.rmtree(Path(name) / ".flywheel")
        assert told["local"]["hash"] == told["dask"]["hash"]
        for what, key in (("the time", "all"), ("the CPU time", "cpu")):
            met &= machine.ceiling(f"{what} at {millions:g} M rows", told["dask"][key] / told["local"][key], BAR)
    return met


def close_either_way(millions=4.0):
    print(machine.describe("dask", "great-expectations", "pyarrow"))
    print(
        f"{'':14}"
        + "".join(f"{head:>11}" for head in ("windows", "closing s", "all s", "CPU s", "driver CPU", "driver MB"))
    )
    told = {}
    with tempfile.TemporaryDirectory() as name:
        deliver(Path(name) / "inbox", millions)
        for engine in ("local", "dask"):
            shutil.copytree(Path(name) / "inbox", Path(name) / engine)
            told[engine] = one = told_by("close", engine, str(Path(name) / engine), str(millions))
            shown = (one[k] for k in ("windows", "close", "all", "cpu", "driver", "peak"))
            print(f"{millions:>5g} M {engine:6}" + "".join(f"{value:>11.1f}" for value in shown), flush=True)
    assert told["local"]["hash"] == told["dask"]["hash"]
    serial = told["dask"]["driver"] / told["local"]["driver"]
    return machine.ceiling(f"the CPU time of the process that closes {millions:g} M rows", serial, SERIAL)


def told_by(*words):
    """What a run of this file says, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] in (["local"], ["dask"]):
        run(sys.argv[1], sys.argv[2])
    elif sys.argv[1:2] == ["close"]:
        close(*sys.argv[2:])
    elif sys.argv[1:2] == ["closing"]:
        sys.exit(0 if close_either_way(*(float(a) for a in sys.argv[2:])) else 1)
    else:
        sys.exit(0 if main(*(float(a) for a in sys.argv[1:])) else 1)
