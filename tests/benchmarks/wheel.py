"""What the serving benchmarks serve: 300 trees of depth 6 over 20 features, 20,000 users, 5,000 items.

    python tests/benchmarks/wheel.py FOLDER PORT [SECONDS [keep]]

is the server itself, on a fresh inbox in FOLDER, or on the one it has; every so many SECONDS, if not 0, it takes up
another generation.
"""

import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import xgboost as xgb

from flywheel import config
from flywheel.learn import baseline, train
from flywheel.learn.features import Spec
from flywheel.segments import hash_names
from flywheel.serve import snapshot as snapshots
from flywheel.serve.ranker import Ranker
from flywheel.serve.server import serve
from flywheel.serve.serving import Serving, Told
from flywheel.serve.snapshot import Snapshot
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox

USERS, ITEMS, CANDIDATES, TREES, DEPTH = 20_000, 5_000, 50, 300, 6
DEVICES, COUNTRIES = ("tv", "phone", "web"), tuple(f"country{i}" for i in range(20))
LIVES = ["7d", "forever"]
STATE = 20_000  # the window that features are looked up as of
CONFIG = config.parse(
    {
        "product": {"name": "benchmark"},
        "contract": {
            "timestamp": "ts",
            "label": "label",
            "user": "user",
            "item": "item",
            "request": "request",
            "event_id": "event_id",
            "label_time": "label_ts",
            "position": "position",
            "propensity": "propensity",
            "numeric": ["hour", "age"],
            "categorical": ["device", "country"],
        },
        "windows": {"every": "1d", "attribution": "1d", "silence": 0},
        "features": {
            "counters": [
                {"key": ["user"], "half_lives": LIVES},
                {"key": ["item"], "half_lives": LIVES},
                {"key": ["item", "device"], "half_lives": ["forever"], "backoff": "item"},
            ]
        },
        "serve": {},
    }
)
SPEC = Spec(CONFIG)
assert len(SPEC.names) == 20


def model(seed=0):
    """A booster that has grown all its trees to their depth, as UBJ."""
    rng = np.random.default_rng(seed)
    rows = matrix(rng, 6_000)
    label = (rng.random(len(rows)) < 0.2 + 0.5 * (np.nan_to_num(rows[:, :16]) @ rng.normal(size=16) > 0)).astype(int)
    params = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.05, "min_child_weight": 0, "lambda": 0.1}
    data = xgb.DMatrix(rows, label, feature_types=list(SPEC.types), enable_categorical=True)
    return bytes(xgb.train(params, data, TREES).save_raw("ubj"))


def matrix(rng, rows):
    """Rows that look like features: counts, means, ages, numbers and codes."""
    out = rng.random((rows, len(SPEC.names)), dtype=np.float32)
    out[:, -2], out[:, -1] = rng.integers(0, len(DEVICES), rows), rng.integers(0, len(COUNTRIES), rows)
    return out


def columns():
    """The model's frozen columns."""
    return train.Columns(SPEC.names, SPEC.types, {"device": len(DEVICES), "country": len(COUNTRIES)})


def snapshot(ubj, generation=1, seed=0):
    """A snapshot with a counter for everybody and everything."""
    rng = np.random.default_rng(seed)
    keys = [[""], [f"user{i}" for i in range(USERS)], [f"item{i}" for i in range(ITEMS)]]
    counters = {}
    for i, names in enumerate(keys):
        hashes = np.zeros(1, np.uint64) if i == 0 else np.sort(hash_names(names))
        dtype = SPEC.tables[f"counter{i}"]
        entries = np.zeros(len(names), dtype=[(name, dtype[name]) for name in dtype.names[1:]])
        entries["first"], entries["last"] = STATE - 60, STATE - rng.integers(0, 30, len(names))
        counts = rng.integers(1, 500, len(names))[:, None]
        lives = entries["acc"].shape[1] // 2
        entries["acc"][:, :lives] = counts
        entries["acc"][:, lives:] = counts * rng.random((len(names), 1)) * 0.5
        counters[f"counter{i}"] = (hashes, entries)
    golden = matrix(rng, 20)
    return Snapshot(
        generation=generation,
        recipe=SPEC.config.fingerprint("contract", "features"),
        config=CONFIG,
        state=STATE,
        counters=counters,
        vocabularies={
            name: {int(h): n for n, h in enumerate(hash_names(list(values)))}
            for name, values in (("device", DEVICES), ("country", COUNTRIES))
        },
        names=SPEC.names,
        types=SPEC.types,
        sizes={"device": len(DEVICES), "country": len(COUNTRIES)},
        model=ubj,
        custom="",
        golden=golden,
        golden_scores=train.scorer(ubj, columns())(golden),
    )


def ranker(made):
    """A ranker of a snapshot."""
    return Ranker(
        made, train.scorer(made.model, columns()), lambda rows: baseline.scores(rows, SPEC.names), CONFIG.serve
    )


def told(made):
    """What is told of it."""
    return Told(made.generation, {"wheel": 0.95, "holdback": 0.05}, "2024-10-04", 0, made.recipe, now())


def now():
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def bodies(count, seed=1):
    """Requests for ranked lists as a product sends them: a user, 50 items, a context."""
    rng = np.random.default_rng(seed)
    return [
        {
            "user": f"user{rng.integers(USERS)}",
            "candidates": [f"item{i}" for i in rng.choice(ITEMS, CANDIDATES, replace=False)],
            "context": {
                "hour": int(rng.integers(24)),
                "age": int(rng.integers(18, 80)),
                "device": DEVICES[rng.integers(3)],
                "country": COUNTRIES[rng.integers(20)],
            },
            "k": 10,
        }
        for _ in range(count)
    ]


def reload(serving, folder, every):
    """Take up one of two generations in turns, read from disk and checked as in life, while the server runs."""
    turn = 0
    while not serving.draining:
        time.sleep(every)
        made = snapshots.read(folder / f"generation{1 + turn % 2}")
        serving.swap(ranker(made), told(made))
        turn += 1


def prepare(folder):
    """Two generations as snapshots in a folder."""
    for generation in (1, 2):
        if not (folder / f"generation{generation}").exists():
            snapshots.write(folder / f"generation{generation}", snapshot(model(generation), generation))


def main(folder, port, swap_every=0.0, keep=""):
    folder = Path(folder)
    prepare(folder)
    made = snapshots.read(folder / "generation1")
    if not keep:
        shutil.rmtree(folder / "inbox", ignore_errors=True)
    inbox = Inbox.open(None, folder)
    serving = Serving(ranker(made), told(made), clock=now)
    if float(swap_every):
        threading.Thread(target=reload, args=(serving, folder, float(swap_every)), daemon=True).start()
    serve(CONFIG, serving, GroupCommit(inbox), port=int(port), ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
