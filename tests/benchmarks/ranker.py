"""`Ranker.rank` in process, against a bare lookup and XGBoost's own `inplace_predict` on the same requests.

    python tests/benchmarks/ranker.py [requests]

50 candidates, 300 trees of depth 6, 20 features (four counters, two of which lean on another, two numbers, two
names), one thread; 100,000 users, 5,000 items, a million rows of history. The bare loop finds a ready line of floats
per key in a dict, fills a matrix, predicts, and is done: no arms, no order, no exploration, no hashes, no decision.
Requests are answered by one and the other in turns. Scores are compared before anything is timed.
"""

import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import pyarrow as pa
import xgboost as xgb

from flywheel.config import parse
from flywheel.events import Candidate, Request
from flywheel.learn import baseline, custom, train
from flywheel.learn.features import Spec
from flywheel.learn.matrix import Cache, Recipe
from flywheel.learn.train import Columns
from flywheel.serve import snapshot as snapshots
from flywheel.serve.lookup import Lookup
from flywheel.serve.ranker import Ranker
from flywheel.serve.snapshot import Snapshot

BAR = 1.5
CANDIDATES, SLOTS = 50, 10
USERS, ITEMS, ROWS, WINDOWS = 100_000, 5_000, 1_000_000, 10
CONFIG = parse(
    {
        "product": {"name": "benchmark"},
        "contract": {
            **{role: role for role in ("label", "user", "item", "request", "event_id", "position", "propensity")},
            "timestamp": "ts",
            "label_time": "label_ts",
            "numeric": ["hour", "price"],
            "categorical": ["device", "genre"],
        },
        "windows": {"every": "1d"},
        "features": {
            "counters": [
                {"key": ["user"]},
                {"key": ["item"]},
                {"key": ["user", "genre"], "backoff": "user"},
                {"key": ["item", "device"], "backoff": "item"},
            ]
        },
        "serve": {},
    }
)
RECIPE = Recipe(Spec(CONFIG), custom.from_text(""))
KEYS = [("user",), ("item",), ("user", "genre"), ("item", "device")]


def world(rng):
    """Who met what: ids, attributes and labels of all rows."""
    user, item = rng.zipf(1.2, ROWS) % USERS, rng.zipf(1.2, ROWS) % ITEMS
    drawn = {"user": user, "item": item, "device": rng.integers(0, 4, ROWS), "genre": item % 20}
    liked = 0.2 + 0.3 * ((user + item % 20) % 7 == 0) + 0.2 * (item % 3 == 0)
    label = (rng.random(ROWS) < liked).astype(np.float64)
    return drawn, {"hour": rng.integers(0, 24, ROWS) * 1.0, "price": (item % 50) * 1.0, "label": label}


def tables(drawn, numbers):
    names = {k: pa.array([f"{k}{i}" for i in range(v.max() + 1)]) for k, v in drawn.items()}
    size = ROWS // WINDOWS
    made = {}
    for w in range(WINDOWS):
        part = slice(w * size, (w + 1) * size)
        columns = {
            k: pa.DictionaryArray.from_arrays(pa.array(v[part].astype(np.int32)), names[k]) for k, v in drawn.items()
        }
        columns |= {k: v[part] for k, v in numbers.items()}
        columns |= {"late": np.zeros(size, bool), "ts": np.zeros(size, np.int64), "state": pa.nulls(size, pa.int32())}
        made[w] = pa.table(columns)
    return made


def built(folder, drawn, numbers):
    """A snapshot of a model fitted on the newest window, read back from disk."""
    made = tables(drawn, numbers)
    cache = Cache(folder, RECIPE, {w: str(w) for w in made}, lambda window, columns: made[window].select(columns))
    cache.build([WINDOWS - 1])
    matrix, label = cache.load(WINDOWS - 1), made[WINDOWS - 1]["label"].to_numpy()
    rows = xgb.QuantileDMatrix(
        matrix, label, feature_names=list(RECIPE.names), feature_types=list(RECIPE.types), enable_categorical=True
    )
    booster = xgb.train({"max_depth": 6, "eta": 0.05, "objective": "binary:logistic"}, rows, 300)
    known = cache.known()
    model = bytes(booster.save_raw("ubj"))
    columns = Columns(RECIPE.names, RECIPE.types, cache.vocabulary(WINDOWS - 1))
    golden = matrix[:50]
    snapshot = Snapshot(
        1, RECIPE.fingerprint, CONFIG, known.window, known.counters, known.vocabularies, columns.names, columns.types,
        columns.vocabulary, model, "", golden, train.predict(model, columns, golden),
    )  # fmt: skip
    snapshots.write(folder / "snapshot", snapshot)
    return snapshots.read(folder / "snapshot")


def requests(rng, drawn, numbers, n):
    """Of people who were there before, half of them often; candidates as the shelf has them."""
    asked = []
    for row in rng.integers(0, ROWS, n):
        items = rng.choice(ITEMS, CANDIDATES, replace=False)
        candidates = tuple(Candidate(f"item{i}", {"genre": f"genre{i % 20}", "price": i % 50 * 1.0}) for i in items)
        context = {"device": f"device{drawn['device'][row]}", "hour": numbers["hour"][row]}
        asked.append(Request(f"user{drawn['user'][row]}", candidates, context, SLOTS))
    return asked


class Bare:
    """What a hand-written loop does: dicts of ready lines, one matrix, one call."""

    def __init__(self, snapshot, asked, drawn):
        self.booster = xgb.Booster(model_file=bytearray(snapshot.model))
        self.booster.set_param({"nthread": 1})
        self.rows, self.lines = [], []
        for key in KEYS:
            pairs = np.unique(np.column_stack([drawn[name] for name in key]), axis=0).tolist()
            names = [tuple(f"{n}{v}" for n, v in zip(key, pair, strict=True)) for pair in pairs]
            self.rows.append({name if len(key) > 1 else name[0]: row for row, name in enumerate(names)})
            self.lines.append(np.zeros((len(names) + 1, 4), np.float32))
        lookup = Lookup(snapshot)
        self.codes = {}
        for request in asked:
            self._learn(request, lookup.matrix(request, request.candidates, None, None))

    def _learn(self, request, matrix):
        """Take over the lines of the keys that will be asked for."""
        device = request.context["device"]
        self.codes[device] = matrix[0, -2]
        for candidate, line in zip(request.candidates, matrix, strict=True):
            genre = candidate.attributes["genre"]
            self.codes[genre] = line[-1]
            for i, name in enumerate([request.user, candidate.item, (request.user, genre), (candidate.item, device)]):
                row = self.rows[i].setdefault(name, -1)
                if row < 0:
                    row = self.rows[i][name] = len(self.lines[i])
                    self.lines[i] = np.vstack([self.lines[i], line[:4][None]])
                self.lines[i][row] = line[4 * i : 4 * i + 4]

    def scores(self, request):
        user, device = request.user, request.context["device"]
        items = [c.item for c in request.candidates]
        genres = [c.attributes["genre"] for c in request.candidates]
        users, shelf, tastes, places = self.rows
        matrix = np.empty((len(items), 20), np.float32)
        matrix[:, :4] = self.lines[0][users[user]]
        matrix[:, 4:8] = self.lines[1][[shelf[item] for item in items]]
        matrix[:, 8:12] = self.lines[2][[tastes[user, genre] for genre in genres]]
        matrix[:, 12:16] = self.lines[3][[places[item, device] for item in items]]
        matrix[:, 16] = request.context["hour"]
        matrix[:, 17] = [c.attributes["price"] for c in request.candidates]
        matrix[:, 18] = self.codes[device]
        matrix[:, 19] = [self.codes[genre] for genre in genres]
        return self.booster.inplace_predict(matrix)


def timed(runs, asked):
    """Seconds of each run on each request, the runs in turns."""
    times = {name: [] for name in runs}
    for n, request in enumerate(asked):
        for name, run in runs.items():
            began = time.perf_counter_ns()
            run(request, n)
            times[name].append(time.perf_counter_ns() - began)
    return {name: np.array(ns) / 1e3 for name, ns in times.items()}


def main(n=3000):
    print(machine.describe("xgboost-cpu", "numpy"))
    rng = np.random.default_rng(0)
    drawn, numbers = world(rng)
    asked = requests(rng, drawn, numbers, 500)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = built(Path(folder), drawn, numbers)
        score = train.scorer(snapshot.model, Columns(snapshot.names, snapshot.types, snapshot.sizes))
        ranker = Ranker(snapshot, score, lambda m: baseline.scores(m, snapshot.names), CONFIG.serve)
        bare, lookup = Bare(snapshot, asked, drawn), Lookup(snapshot)
        for request in asked:
            np.testing.assert_array_equal(bare.scores(request), np.float32(ranker.scores(request)))
        wheel = [request for request in asked if ranker.arm(request.user) == "wheel"]
        runs = {
            "bare lookup + inplace_predict": lambda request, n: bare.scores(request),
            "Ranker.rank": lambda request, n: ranker.rank(request, decision_id=f"decision-{n}", now=n),
            "of it features": lambda request, n: lookup.matrix(request, request.candidates, None, None),
            "of it the model": lambda request, n, m=score, x=snapshot.golden: m(x),
        }
        timed(runs, wheel)
        times = timed(runs, [wheel[i % len(wheel)] for i in range(n)])
    print(f"{'microseconds':32} {'median':>8} {'p99':>8}")
    for name, us in times.items():
        print(f"{name:32} {np.median(us):8.0f} {np.percentile(us, 99):8.0f}")
    bared, ranked = list(times.values())[:2]
    figures = {"flywheel": np.median(ranked), "bare lookup + inplace_predict": np.median(bared)}
    machine.beside("ranking 50 candidates in process", "µs", figures)
    return machine.ceiling("the bare loop, medians", np.median(ranked) / np.median(bared), BAR)


if __name__ == "__main__":
    sys.exit(0 if main(*(int(a) for a in sys.argv[1:])) else 1)
