"""Whether the true loop gain is inside its interval, in closed worlds whose wheel turns and in such that are unplugged.

    python tests/benchmarks/loop_gain.py [worlds | --quick]

The people are the simulator's society. Their product learns as a known function of its data: a list is the oracle's
with probability q(D), else random, and D is the rows logged up to the turn; a holdback's lists are the oracle's with
probability Q0 for good. So every elasticity has a truth. The estimator sees what a product logs (who was seen when, in
which arm, what was watched), a learning curve with the noise that one has, and exams of champion and baseline.

Truth is made by counterfactuals with the same random numbers: the same people come on the same days and draw the same
outcomes, and only the lists' quality is raised. Two are printed. `arc` is the mean slope from the baseline's quality
to the wheel's, which is what a holdback can see. `point` is the slope at the wheel's own quality, by lists that are
one part in fifty better. Where returns diminish the first is the larger.

Unplugged: leaving and telling ignore satisfaction (everybody's patience is endless), so true G is 0.
"""

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from machine import bar, describe

from flywheel.measure import growth
from flywheel.measure.growth import Slope
from flywheel.simulator.log import draw
from flywheel.simulator.oracle import oracle
from flywheel.simulator.product import shuffle
from flywheel.simulator.society import Habits, begin, live_day
from flywheel.simulator.world import DAY, MOOD, Settings, look

WEEK, TURNS, SINCE = 7, 14, 2  # days of a turn, turns, the first with a champion
RECENT = (TURNS - SINCE + 2) // 3  # the newest third, as the estimator takes it
HOLDBACK, Q0 = 0.2, 0.3
SETTINGS = Settings(users=3000, joins_per_day=25, items=120, releases_per_day=0, sessions_per_day=0.25)
HABITS = Habits(candidates=20, telling=0.05)
START = datetime(2026, 1, 5, tzinfo=UTC)
CURVE_NOISE = 0.15  # relative standard error of the curve's slope at its end
EXAM_NOISE = 0.004  # standard error of a difference between two models on the exams
POINTS = 0.25  # of the exam's metric, from a random list to the oracle's
POOL = 48  # visits of each user that truth draws from, with a random list and with the oracle's


@dataclass(frozen=True)
class Learner:
    """How good the lists are after so many rows: share of the oracle's."""

    best: float
    half: float  # rows at which it is halfway
    power: float

    def q(self, rows):
        return self.best * rows**self.power / (rows**self.power + self.half**self.power)

    def slope(self, rows):
        """∂q / ∂ln rows."""
        share = self.q(rows) / self.best
        return self.best * self.power * share * (1 - share)


@dataclass(frozen=True)
class Lived:
    """What a product logged, and what only the world knows."""

    seen: pd.DataFrame
    path: np.ndarray  # q of the wheel in each turn
    rows: int
    society: object


def arms_of(users, seed):
    """Who is in the holdback, by a hash of the index that each world salts: else all had the same luck with it."""
    return pd.util.hash_array(np.arange(users) + 1_000_000 * seed) / 2.0**64 < HOLDBACK


def live(learner, habits, seed):
    """The closed loop: users make rows, rows make lists, lists keep users."""
    society, log, rows, path = begin(SETTINGS, habits, start=START, seed=seed), [], 0, []
    rng = np.random.default_rng([seed, *b"lists"])
    for turn in range(TURNS):
        path.append(learner.q(rows) if turn >= SINCE else Q0)
        for _ in range(WEEK):
            users = society.sessions.user
            held = arms_of(len(society.satisfaction), seed)[users]
            good = rng.random(len(users)) < np.where(held, Q0, path[-1])
            today = society
            lists = [oracle(today), shuffle(seed)]

            def rank(asks, lists=lists, good=good):
                best, other = (one(asks) for one in lists)
                return [b if g else o for b, o, g in zip(best, other, good, strict=True)]

            day, society = live_day(society, rank)
            got = np.zeros(len(users))
            at = {answer.decision: n for n, answer in enumerate(day.answers)}
            for _event, decision in {(a.outcome.event_id, a.outcome.decision_id) for a in day.arrivals}:
                got[at[decision]] += 1
            log.append(
                pd.DataFrame({"user": users, "turn": turn, "wheel": ~held, "rows": SETTINGS.shelf, "reward": got})
            )
        rows = sum(len(day) for day in log) * SETTINGS.shelf
    seen = pd.concat(log).groupby(["user", "turn", "wheel"], as_index=False).sum()
    return Lived(seen, np.array(path), rows, society)


def pools(lived, seed):
    """Items watched in visits of each user with a random list and with the oracle's; (2, users, POOL)."""
    world = lived.society.world
    rng = np.random.default_rng([seed, *b"pools"])
    users = len(world.users.joined)
    user = np.repeat(np.arange(users), POOL)
    device = (rng.random((len(user), 1)) > world.users.devices[user].cumsum(axis=1)[:, :-1]).sum(axis=1)
    at = np.maximum(world.users.joined[user], rng.integers(0, TURNS * WEEK * DAY, len(user)))
    items = draw(rng, (len(user), HABITS.candidates), SETTINGS.items)
    appeal = world.appeal(user[:, None], items, device=device[:, None], at=at[:, None])
    order = np.argsort(-appeal, axis=1)
    found = []
    for chosen in (np.broadcast_to(np.arange(SETTINGS.shelf), (len(user), SETTINGS.shelf)), order[:, : SETTINGS.shelf]):
        taken = np.take_along_axis(appeal, chosen, axis=1)
        mood = rng.normal(0, MOOD, (len(user), 1))
        liked = taken + mood + rng.normal(size=taken.shape) > 0
        watched = liked & (rng.random(taken.shape) < look(np.arange(1, SETTINGS.shelf + 1)))
        found.append(watched.sum(axis=1).reshape(users, POOL))
    return np.array(found)


def relive(lived, pool, paths, habits, seed):
    """The same people's weeks with other lists: (ln kept from turn to turn, ln still there, ln reward), a path each.

    Whether somebody is still there is a probability, not a coin, so that small differences in quality show.
    """
    joined, everyone = lived.society.world.users.joined, np.arange(pool.shape[1])
    rng = np.random.default_rng([seed, *b"relive"])
    rate = SETTINGS.sessions_per_day * lived.society.world.users.activity
    satisfaction = np.full((len(paths), len(everyone)), habits.hope)
    alive = np.ones(satisfaction.shape)
    came = np.zeros((TURNS, len(everyone)), bool)
    seen = np.zeros((len(paths), TURNS, len(everyone)))  # the probability of being seen in a turn
    ever = np.zeros(satisfaction.shape)  # and in any turn since there is a champion
    reward = np.zeros((len(paths), 2))
    for day in range(TURNS * WEEK):
        turn = day // WEEK
        regular, new = joined < day * DAY, (joined >= day * DAY) & (joined < (day + 1) * DAY)
        visits = np.where(regular, rng.poisson(rate), new)
        first = (visits > 0) & ~came[turn]
        seen[:, turn, first] = alive[:, first]
        if turn >= SINCE:
            ever = np.where(first & (ever == 0), alive, ever)
        came[turn] |= first
        for visit in range(int(visits.max(initial=0))):
            now = np.flatnonzero(visits > visit)
            coin, (which, other) = rng.random(len(everyone))[now], rng.integers(0, POOL, (2, len(everyone)))[:, now]
            best, poor = pool[1, now, which], pool[0, now, other]
            for n, path in enumerate(paths):
                q = path[turn]
                gave = np.where(coin < q, best, poor)
                satisfaction[n, now] += habits.memory * (gave - satisfaction[n, now])
                if turn >= SINCE:
                    reward[n] += (alive[n, now] * (q * best + (1 - q) * poor)).sum(), alive[n, now].sum()
        alive = np.where(visits > 0, alive * (1 - habits.leave * np.exp(-satisfaction / habits.patience)), alive)
    at_risk = seen[:, SINCE:-1].sum(axis=(1, 2))
    kept = (seen[:, SINCE + 1 :] * came[SINCE:-1]).sum(axis=(1, 2))
    return (
        np.log(kept / at_risk),
        np.log(seen[:, -RECENT:].sum(axis=(1, 2)) / RECENT / ever.sum(axis=1)),
        np.log(reward[:, 0] / reward[:, 1]),
    )


def truths(lived, learner, habits, seed, repeats=5):
    """True G of one turn and so far, by either slope: {"arc": (one, far), "point": (one, far)}; and ε₂, ε₃."""
    pool = pools(lived, seed)
    gap, base = (pool[1] - pool[0]).mean(), pool[0].mean()
    wheel, span = lived.path, np.arange(TURNS) >= SINCE
    nudge = 0.05 * (wheel + base / gap) * span
    paths = [wheel, np.where(span, Q0, wheel), wheel + nudge, wheel - nudge]
    lived_again = np.mean([relive(lived, pool, paths, habits, 100 * seed + n) for n in range(repeats)], axis=0)
    kept, still, reward = lived_again
    shares = [lived.seen.loc[lived.seen["turn"] >= first, "rows"].sum() / lived.rows for first in (TURNS - 1, SINCE)]
    q, slope = learner.q(lived.rows), learner.slope(lived.rows)
    per_data = slope * gap / (base + q * gap)
    point = [
        share * per_data * (u[2] - u[3]) / (reward[2] - reward[3])
        for share, u in zip(shares, (kept, still), strict=True)
    ]
    distance = average_q(lived) - Q0
    arc = [share * slope * (u[0] - u[1]) / distance for share, u in zip(shares, (kept, still), strict=True)]
    return {"arc": arc, "point": point}


def average_q(lived):
    """The wheel's q over its rows since there is a champion."""
    wheel = lived.seen[lived.seen["wheel"] & (lived.seen["turn"] >= SINCE)]
    return np.average(lived.path[wheel["turn"]], weights=wheel["rows"])


def curve(lived, learner, seed):
    """What a learning curve and the generations' exams would tell, with the noise that they have."""
    rng = np.random.default_rng([seed, *b"curve"])
    slope, distance = POINTS * learner.slope(lived.rows), POINTS * (average_q(lived) - Q0)
    error = CURVE_NOISE * slope
    return Slope(slope + error * rng.normal(), error, distance + EXAM_NOISE * rng.normal(), EXAM_NOISE)


def worlds(count):
    """Learners and people of many kinds, by seed."""
    for seed in range(count):
        rng = np.random.default_rng([seed, *b"worlds"])
        learner = Learner(1.0, rng.uniform(50_000, 150_000), rng.uniform(0.6, 1.0))
        habits = replace(HABITS, leave=rng.uniform(0.3, 0.5), patience=rng.uniform(0.6, 1.0))
        yield seed, learner, habits


def measured(learner, habits, seed):
    """What the product sees of one world, and the world itself."""
    lived = live(learner, habits, seed)
    slope = curve(lived, learner, seed)
    return lived, growth.measure(lived.seen, since=SINCE, rows_before=0, slope=slope, seed=seed)


def turning(count):
    """Coverage in worlds whose people mind: of both truths, so far and in one turn; widths; verdicts."""
    found = []
    for seed, learner, habits in worlds(count):
        lived, said = measured(learner, habits, seed)
        true = truths(lived, learner, habits, seed)
        for span, gain in enumerate((said.one_turn.gain, said.so_far.gain)):
            row = {"world": seed, "span": ("one turn", "so far")[span], "verdict": growth.verdict(said.so_far.gain)}
            row |= {kind: values[span] for kind, values in true.items()}
            found.append(row | {"value": gain.value, "low": gain.low, "high": gain.high})
        print(
            f"world {seed:2}: {lived.rows:,} rows, {said.holdback_users:,} held back; true G so far "
            f"{true['point'][1]:.3f}, found {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f})", flush=True
        )  # fmt: skip
    return pd.DataFrame(found)


def unplugged(count):
    """Verdicts in worlds whose people do not mind."""
    said = []
    for seed, learner, habits in worlds(count):
        habits = replace(habits, leave=habits.leave * np.exp(-1.8 / habits.patience), patience=1e9, telling=0.0)
        said.append(growth.verdict(measured(learner, habits, 1000 + seed)[1].so_far.gain))
    return pd.Series(said).value_counts(normalize=True)


def main(count):
    print(describe("numpy", "pandas"), flush=True)
    found = turning(count)
    for span, part in found.groupby("span"):
        print(f"\n{span}: true G {part['point'].mean():.4f} on average, found {part['value'].mean():.4f}; "
              f"intervals reach {(part['high'] - part['low']).mean() / 2:.4f} to either side, "
              f"{((part['high'] - part['low']) / 2 / part['point']).median():.0%} of the truth")  # fmt: skip
        for kind, what in (("point", "G by lists one part better"), ("arc", "mean G from the baseline's lists on")):
            inside = part[kind].between(part["low"], part["high"]).mean()
            bar(f"of {len(part)} worlds hold the true {what}, {span}", inside, 0.9, form="{:.0%}")
    print("\nverdicts, plugged:  ", _said(found[found["span"] == "so far"]["verdict"].value_counts(normalize=True)))
    verdicts = unplugged(count)
    print("verdicts, unplugged:", _said(verdicts))
    bar("of worlds whose people do not mind are called decoration", verdicts.get("decoration", 0.0), 0.9, form="{:.0%}")


def _said(verdicts):
    return ", ".join(f"{verdict} {share:.0%}" for verdict, share in verdicts.items())


if __name__ == "__main__":
    main(10 if "--quick" in sys.argv else int(sys.argv[1]) if len(sys.argv) > 1 else 50)
