"""A log whose tastes move, and the same world without: does `flywheel stale` say where old rows hurt?

    python tests/benchmarks/drift.py [--seeds 1 2 3 4 5] [--days 84] [--drift 0.03] [--quick]

Users say what they like as they join, and the log has how well each item fits that: it is worth less and less where
tastes move. The models see that, the hour and the device. (Counters, such as how long ago a user was first seen, tell
trees which time a row is of: they keep apart what was true then by themselves, and old rows hurt little.) Each world is
simulated, delivered to a real workspace, collected and closed, and `flywheel stale` measures it. What it recommends is
then tried on the two weeks after, which it has not seen: models of the rows that it says to keep against models of all.

Bars: with moving tastes it says in every world that old rows hurt, and a model of what it keeps is better than one of
all rows on the days to come; without, it says so in none.
"""

import argparse
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import machine
import numpy as np

from flows import aging, closing, learning, retraining, starting
from flows.retraining import Sample
from flywheel import config
from flywheel.learn.plan import plan
from flywheel.scaffold import render
from flywheel.simulator.deliveries import write_table
from flywheel.simulator.log import live, random_shelf
from flywheel.simulator.world import Settings, found
from flywheel.workspace import Workspace

START = datetime(2026, 1, 5, tzinfo=UTC)
WORLD = Settings(users=1200, joins_per_day=4, items=240, releases_per_day=1, sessions_per_day=0.15)
LATER = 14  # days after those that the tool sees
ROLES = {
    "timestamp": "ts", "label": "watched", "user": "user_id", "item": "item_id", "request": "request_id",
    "event_id": "event_id", "label_time": "watched_ts", "outcomes": ("minutes",),
}  # fmt: skip


@contextmanager
def unwatched():
    yield lambda *_: None


def workspace(root, drift, seed, days):
    """A workspace with such a world's log, all of it closed."""
    first = found(replace(WORLD, drift=drift), start=START, seed=seed)
    events, world = live(first, days=days + LATER, shelf=random_shelf)
    root.mkdir(parents=True)
    write_table(events.append_column("match", [matches(world, events)]), root / "events.parquet")
    starting.start(root / "cinema", str(root / "events.parquet"), dict(ROLES))
    ws = Workspace.open(root / "cinema")
    held = ws.config.model_dump(mode="json", exclude_none=True)
    held["windows"] |= {"every": "3d", "attribution": "1d"}
    held["exam"] = {"windows": 1, "rows": 10000}
    held["features"]["counters"] = []
    (ws.root / "flywheel.toml").write_text(render(config.parse(held)), encoding="utf-8")
    ws = Workspace.open(ws.root)
    end = START + timedelta(days=days + LATER + 1)
    closing.take(ws, end, datetime.now(UTC))
    closing.close(ws, end)
    return ws


def matches(world, events):
    """How well each item fits what its user said to like when they joined, or when the log began."""
    user, item = (np.array([int(name[1:]) for name in events[key].to_pylist()]) for key in ("user_id", "item_id"))
    said = world.taste(np.arange(len(world.users.joined)), np.maximum(world.users.joined, 0))
    return np.einsum("rg,rg->r", said[user], world.items.genres[item])


def ahead(ws, as_of, keep):
    """By how much a model of the newest `keep` days beats one of all on the days after `as_of`, by AUC; both learn
    from what was closed by then."""
    grid = ws.config.windows.grid
    known = [line for line in ws.ledger() if line.rows and grid.closes_at(grid.parse(line.window)) <= as_of]
    later = [line.window for line in ws.ledger() if line.rows and line.start >= as_of]
    newest = [line.window for line in known if (known[-1].end - line.start) / timedelta(days=1) <= keep]
    rows = retraining.panel(ws, tuple(later))
    worth = []
    for names in ([line.window for line in known], newest):
        models = [retraining.fit(ws, Sample(tuple(names)), seed=seed) for seed in range(3)]
        worth.append(np.mean([learning.metrics.auc(rows.labels, retraining.scores(one, rows)) for one in models]))
    return worth[1] - worth[0]


def measured(drift, seed, days):
    """What the tool says of one world, and what came of it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        ws = workspace(Path(name) / "world", drift, seed, days)
        as_of = START + timedelta(days=days + 1)
        planned = plan(ws.ledger(), ws.config, as_of)
        said = aging.stale(ws, as_of, on_progress=unwatched)
        gain = np.nan if said.keep_days is None else ahead(ws, as_of, said.keep_days)
    best = max(said.windows, key=lambda one: one.gain.value)
    life = "—" if said.half_life_days is None else f"{said.half_life_days.value:.0f}"
    oldest = max(said.ages, key=lambda one: one.days)
    print(
        f"{drift:5.2f} {seed:4} {planned.train_rows:7,} rows  half-life {life:>5} days  "
        f"{oldest.days:3.0f} days older {oldest.loss.value:+.4f} ({oldest.loss.low:+.4f} to {oldest.loss.high:+.4f})  "
        f"best span {best.days:3.0f} days {best.gain.value:+.4f} ({best.gain.low:+.4f} to {best.gain.high:+.4f})  "
        f"keep {'all' if said.keep_days is None else f'{said.keep_days:.0f} days'}, then {gain:+.4f}  "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    return said, gain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--days", type=int, default=84)
    parser.add_argument("--drift", type=float, default=0.03)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    seeds = given.seeds[:1] if given.quick else given.seeds
    print(machine.describe("xgboost-cpu", "numpy"))
    moving = [measured(given.drift, seed, given.days) for seed in seeds]
    still = [measured(0.0, seed, given.days) for seed in seeds]
    print()
    said = [one.keep_days is not None for one, _ in moving]
    wrongly = [one.keep_days is not None for one, _ in still]
    met = [
        machine.bar("of the worlds with moving tastes: old rows hurt", np.mean(said), 1, "{:.0%}"),
        machine.ceiling("of the worlds without: old rows hurt", np.mean(wrongly), 0, "{:.0%}"),
        machine.bar("AUC gained on the days to come, the least of any world", min(g for _, g in moving), 0, "{:+.4f}"),
    ]
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
