"""Values of lists, and what the exploration planner foretells, against the simulator, which knows what lists are worth.

    python tests/benchmarks/offpolicy_lists.py [--worlds 100] [--quick]

In each world a champion answers a week of visits by the ranker's own exploration: six of forty candidates. It judges
items as they are, but for an error of its own; so does a challenger, with another error, and nobody serves it. What it
would have earned is estimated from the champion's log, and compared with what the truth expects of lists that the
ranker draws for it. The planner is asked what the log would show; the spread of the estimates says what it did show.
"""

import argparse
import sys

import numpy as np
from machine import bar, ceiling, describe
from scipy.special import ndtr

from flywheel.measure import offpolicy, planning, slots
from flywheel.measure.slots import Lists
from flywheel.sections import Serve
from flywheel.serve.exploration import explore, worth
from flywheel.simulator.log import watch
from flywheel.simulator.product import Answer
from flywheel.simulator.society import Habits, begin, closed_example, live_day
from flywheel.simulator.world import MOOD, Settings

HOW = Serve()
SHARED = 0.5  # error of both, in log-odds: they learned from nearly the same rows
OLD, NEW = 0.4, 0.2  # and of champion and challenger alone


def judged(society, items, error, seed):
    """Items as one who errs about each item and about each user's genre sees them: worth, visits × candidates."""
    world, sessions = society.world, society.sessions
    user, device, at = (column[:, None] for column in (sessions.user, sessions.device, sessions.at))
    liked = ndtr(world.appeal(user, items, device=device, at=at) / np.sqrt(1 + MOOD**2))
    odds = np.log(liked / (1 - liked))
    for size, stream in ((SHARED, [seed, 0]), (error, [seed, 1 + (error == OLD)])):
        rng = np.random.default_rng(stream)
        of_items, of_users = rng.normal(0, 1, 20_000), rng.normal(0, 1, (20_000, 8))
        odds = odds + size * (of_items[items] + of_users[user, items % 8]) / np.sqrt(2)
    return np.array([worth(1 / (1 + np.exp(-line)), "binary") for line in odds])


def drawn(society, items, worths, name):
    """The lists that the ranker draws, visits × slots, as places among the candidates."""
    k = society.world.settings.shelf
    return np.array(
        [[s.candidate for s in explore(f"{name}{n}", line, k, HOW)] for n, line in enumerate(worths.tolist())]
    )


def week(seed, days=7):
    """A week of the champion's decisions as lists, and what the challenger is worth more, truly."""
    given = closed_example()
    settings = Settings(**{**given["settings"].__dict__, "users": 1200})
    society = begin(settings, Habits(lost=0, twice=0), start=given["start"], seed=seed)
    parts, ours, theirs = [], [], []
    for day in range(days):
        asks = society.asks
        items = np.array([[int(c.item[1:]) for c in ask.request.candidates] for ask in asks])
        champion, challenger = (judged(society, items, e, seed) for e in (OLD, NEW))
        shown = drawn(society, items, champion, f"{seed}-{day}-")
        lists = np.take_along_axis(items, shown, axis=1)
        watched, _, _ = watch(society.world, society.sessions, lists)
        parts.append((champion, challenger, shown, watched, society.sessions.user))
        ours.append(society.expected(lists).mean(axis=1))
        for again in range(3):
            other = drawn(society, items, challenger, f"{again}-{seed}-{day}-")
            theirs.append(society.expected(np.take_along_axis(items, other, axis=1)).mean(axis=1))
        answers = [Answer(f"{day}-{n}", tuple(f"i{i:04d}" for i in line)) for n, line in enumerate(lists.tolist())]
        _, society = live_day(society, lambda _, answers=answers: answers)
    champion, challenger, shown, watched, users = (np.concatenate(part) for part in zip(*parts, strict=True))
    lists = Lists(
        worth=champion[None],
        target=challenger,
        quality=1 / (1 + np.exp(-challenger)),
        there=np.ones(champion.shape, bool),
        shown=shown,
        reward=watched.astype(float),
        generations=np.zeros(len(users), np.int64),
        users=users,
    )
    return lists, float(np.concatenate(theirs).mean()), float(np.concatenate(ours).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    worlds = 10 if given.quick else given.worlds
    print(describe("numpy"))
    inside, gains, truths, foretold, effective, values = [], [], [], [], [], []
    for seed in range(worlds):
        lists, truth, logged = week(seed)
        found = offpolicy.value(slots.log_of(lists, HOW), "it")
        effective.append(found.effective)
        if found.refused:
            print(f"world {seed} is refused: {found.refused}")
            continue
        robust = found.values[-1].value
        values.append(robust.value - truth)
        inside.append((robust.low <= truth <= robust.high, found.gain.low <= truth - logged <= found.gain.high))
        gains.append(found.gain.value)
        truths.append(truth - logged)
        if seed < 10:
            rows = int(lists.known.sum())
            traffic = planning.Traffic(rows, rows, planning.unexplained(lists))
            foretold.append(planning.explored(lists, HOW, traffic, HOW.explore).detectable / planning.REACH)
    off = np.array(gains) - np.array(truths)
    covered = np.mean(inside, axis=0)
    print(
        f"{worlds} worlds of {len(lists.users):,} decisions: {np.median(effective):,.0f} rows' worth of "
        f"{lists.known.sum():,}; true gain {np.mean(truths):+.4f}, estimated {np.mean(gains):+.4f} "
        f"(off by {off.mean():+.4f} ± {off.std() / worlds**0.5:.4f})"
    )
    print(f"intervals hold the value in {covered[0]:.0%}, the gain in {covered[1]:.0%}")
    print(f"error of a gain: foretold {np.mean(foretold):.4f}, realised {np.sqrt(np.mean(off**2)):.4f}")
    ratio = np.mean(foretold) / np.sqrt(np.mean(off**2))
    met = [
        bar("foretold error over the realised one", ratio, 0.75),
        ceiling("foretold error over the realised one", ratio, 1.5),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
