"""How soon the monitor takes back a generation that does harm, and how often one that does none, in simulated worlds.

    python tests/benchmarks/monitor_worlds.py [worlds | --quick]

Each world is the simulator's own (`flywheel.simulator.world`): people and items with hidden tastes, and the true
chance that somebody watches an item in a slot. Left out is the wheel: nothing is trained, and no server asked. Each
arm's shelf is ordered by scores made of the truth instead: the baseline's by an item's quality, which is all that is
the same for everybody; a sound generation's by how a person likes an item, plus noise; a *negated* one's by the same
with the sign turned; one of *shuffled labels* by noise alone; a *crossed* one's by the sound scores of somebody else.
A tenth of slots is drawn at random. A sound predecessor serves for three weeks, then the generation that was forced
through the gate, for four. Each day a window closes, and the monitor looks at all since: `measure/watch.py` and its
policy, as they are. A season multiplies everybody's chances by 0.8 to 1.2, and who was shown bad lists comes back as
often as anybody.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from machine import bar, ceiling, describe

from flywheel.measure import watch
from flywheel.simulator import world as worlds
from flywheel.watched import Monitor

BEFORE, AFTER = 21, 28  # days
CANDIDATES, SHELF, EXPLORE, HOLDBACK, NOISE = 15, 6, 0.1, 0.05, 0.7
SETTINGS = worlds.Settings(users=2400, joins_per_day=24, items=120, sessions_per_day=0.2)
START = datetime(2026, 1, 5, tzinfo=UTC)
KINDS = ("negated", "shuffled labels", "crossed", "sound")


def day(rng, world, kind, known):
    """A day's rows: user, label, own; `known` are the users seen before, and are added to."""
    users = world.users
    there = np.repeat(np.arange(len(users.joined)), rng.poisson(SETTINGS.sessions_per_day * users.activity))
    at = np.full(len(there), world.day * worlds.DAY + 43_200)
    device = rng.integers(0, 3, len(there))
    items = rng.random((len(there), len(world.items.released))).argpartition(CANDIDATES, axis=1)[:, :CANDIDATES]
    held = np.random.default_rng([world.seed, 7]).random(10 * len(users.joined))[there] < HOLDBACK
    likes = appeal(world, there, items, device, at) + rng.normal(0, NOISE, items.shape)
    score = {
        "sound": likes,
        "negated": -likes,
        "shuffled labels": rng.normal(0, 1, items.shape),
        "crossed": appeal(world, rng.permutation(there), items, device, at) + rng.normal(0, NOISE, items.shape),
    }[kind]
    score[held] = world.items.quality[items][held]
    order = np.argsort(-score, axis=1)[:, :SHELF]
    drawn = rng.random(order.shape) < EXPLORE
    order[drawn] = rng.integers(0, CANDIDATES, drawn.sum())
    shown = np.take_along_axis(items, order, axis=1)
    slot = np.arange(1, SHELF + 1)[None, :]
    chance = world.truth(there[:, None], shown, position=slot, device=device[:, None], at=at[:, None])
    season = 1 + 0.2 * np.sin(2 * np.pi * (world.day + world.seed % 28) / 28)
    user, wheel = (np.repeat(column, SHELF) for column in (there, ~held))
    rows = pd.DataFrame({"user": user, "label": (rng.random(chance.shape) < chance * season).ravel() * 1.0})
    rows["own"], rows["new"] = wheel, ~np.isin(user, list(known))
    known.update(there.tolist())
    return rows.assign(arm=np.where(wheel, "wheel", "holdback"))


def appeal(world, user, items, device, at):
    return world.appeal(user[:, None], items, device=device[:, None], at=at[:, None])


def look(now, before):
    """What a look says: whether the champion is taken back, and by what; None where the arms are off."""
    lots = watch.arms(now, HOLDBACK)
    if lots.status == "off":
        return None
    policy = Monitor()
    signals = (watch.against_holdback(now, policy.margin), watch.against_predecessor(now, before, policy.margin))
    back = watch.policy(signals, champion=2, previous=1, harmed=False, rollback=True).back
    return back, [signal.name for signal in signals if signal.status == "harm"]


def live(seed):
    """Of each kind: the day and rows of the champion at which it was taken back (0 if never), by what, and its harm."""
    rng = np.random.default_rng([seed, 5])
    world, known, parts = worlds.found(SETTINGS, start=START, seed=seed), set(), []
    for _ in range(BEFORE):
        parts.append(day(rng, world, "sound", known))
        world = world.tomorrow()
    before, found = pd.concat(parts), {}
    for kind in KINDS:
        one, seen, lived, off = world, set(known), [], 0
        rng = np.random.default_rng([seed, 6, *kind.encode()])
        for n in range(1, AFTER + 1):  # noqa: B007
            lived.append(day(rng, one, kind, seen))
            one = one.tomorrow()
            now = pd.concat(lived)
            said = look(now, before)
            off += said is None
            if said is not None and said[0]:
                break
        back = said is not None and said[0]
        means = now.groupby("own")["label"].mean()
        rows = int(now["own"].sum())
        found[kind] = (n if back else 0, rows if back else 0, said[1] if back else [], means[True], means[False], off)
    return found


def main(count):
    print(describe("numpy", "pandas"))
    with ProcessPoolExecutor(2) as pool:
        lived = list(pool.map(live, range(1000, 1000 + count), chunksize=4))
    print(f"{count} worlds of {SETTINGS.users:,} people, {HOLDBACK:.0%} held back; a look a day for {AFTER} days\n")
    print(f"{'generation':16} {'taken back':>11} {'windows, median':>16} {'90 %':>5} {'rows, median':>13} {'reward':>7}"
          f" {'holdback':>9} {'by the holdback':>16} {'by the predecessor':>19}")  # fmt: skip
    for kind in KINDS:
        told = [one[kind] for one in lived]
        backs = [one for one in told if one[0]]
        days, rows = ([one[at] for one in backs] or [np.nan] for at in (0, 1))
        by = [sum(name in one[2] for one in backs) for name in (watch.HOLDBACK, watch.PREDECESSOR)]
        print(f"{kind:16} {len(backs):>5} / {len(told)} {np.median(days):>16.0f} {np.quantile(days, 0.9):>5.0f}"
              f" {np.median(rows):>13,.0f} {np.mean([one[3] for one in told]):>7.3f}"
              f" {np.mean([one[4] for one in told]):>9.3f} {by[0]:>16} {by[1]:>19}")  # fmt: skip
    looks_off = sum(one[kind][5] for one in lived for kind in KINDS)
    print(f"\n{looks_off} looks found the arms off, where they never are")
    for kind in ("negated", "shuffled labels"):
        bar(f"of {kind} are taken back", np.mean([one[kind][0] > 0 for one in lived]), 0.95, form="{:.1%}")
    ceiling("of sound ones are, at any look", np.mean([one["sound"][0] > 0 for one in lived]), 0.05, form="{:.1%}")


if __name__ == "__main__":
    main(8 if "--quick" in sys.argv else int(sys.argv[1]) if len(sys.argv) > 1 else 200)
