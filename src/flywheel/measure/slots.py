"""How much each candidate of a decision is looked at under a policy, and lists of slots as rows of an off-policy log.

What an item earns in a slot is taken to be what it is worth to the user times what the slot lets through (the
position-based model of examination), so an item that another list would have shown lower is evidence on that list,
too: it counts by how much more, or less, it would have been looked at (Li et al. 2018, the PBM estimator). Whole lists
are not compared: hardly any would have been shown twice.

The probability of an item in a slot, whatever stands above, has no closed form. It is the mean, over lists drawn from
the policy, of the exact probability given the slots above.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flywheel.measure.offpolicy import Codes, Floats, Log
from flywheel.sections import Serve

Flags = NDArray[np.bool_]

DRAWS = 32  # lists of each decision
NEVER = 1e-9  # a candidate that is looked at so rarely was never possible
NOWHERE = -1e300  # the worth of no candidate
AT_ONCE = 4_000_000  # numbers in one array


@dataclass(frozen=True, eq=False)
class Lists:
    """Decisions with all their candidates, n of them with up to K candidates and up to S slots.

    Args:
        worth: of each logging generation for each candidate, shape (generations, n, K); see `exploration.worth`.
        target: the same of the policy to be valued, shape (n, K).
        quality: the reward that a model expects of each candidate in any slot, shape (n, K).
        there: which candidates there are, shape (n, K).
        shown: which candidate stood in each slot, shape (n, S); -1 where there was no such slot.
        reward: what came of it, shape (n, S); NaN where nobody knows.
        generations: which of the generations decided, shape (n,).
        users: for whom, shape (n,).
    """

    worth: Floats
    target: Floats
    quality: Floats
    there: Flags
    shown: Codes
    reward: Floats
    generations: Codes
    users: Codes

    @property
    def known(self) -> Flags:
        """Which slots have a reward, shape (n, S)."""
        return (self.shown >= 0) & np.isfinite(self.reward)

    def take(self, those: Flags) -> "Lists":
        """Some of the decisions."""
        return Lists(
            worth=self.worth[:, those],
            target=self.target[those],
            quality=self.quality[those],
            there=self.there[those],
            shown=self.shown[those],
            reward=self.reward[those],
            generations=self.generations[those],
            users=self.users[those],
        )


def chances(worth: Floats, left: Flags, policy: Serve) -> Floats:
    """The probability of each candidate in the next slot, given which are left; zero where none is, shape (n, K).

    Says what `serve/exploration.py` does; `worth` descends along each line.

    >>> chances(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, True]]), Serve(explore=0.0))
    array([[0., 1., 0.]])
    """
    lines = np.arange(len(worth))
    many = left.sum(axis=1)
    best = worth[lines, left.argmax(axis=1)][:, None]
    equal = left & (worth == best)
    nth = np.cumsum(left, axis=1)
    edge = worth[lines, (nth >= np.minimum(policy.top, many)[:, None]).argmax(axis=1)][:, None]
    weights = np.where(left & (worth >= edge), np.exp(np.minimum(worth - best, 0) / policy.temperature), 0)
    drawn = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    even = left / np.maximum(many, 1)[:, None]
    given = equal / np.maximum(equal.sum(axis=1, keepdims=True), 1)
    return np.asarray(
        (1 - policy.explore) * given + policy.explore * ((1 - policy.floor) * drawn + policy.floor * even)
    )


def followed(worth: Floats, there: Flags, shown: Codes, policy: Serve) -> Floats:
    """The probability of what stood in each slot given the slots above it, shape (n, S); NaN where there is no slot."""
    order, ranked, left = _ranked(worth, there)
    place = np.argsort(order, axis=1)
    lines = np.arange(len(worth))
    out = np.full(shown.shape, np.nan)
    for slot in range(shown.shape[1]):
        filled = shown[:, slot] >= 0
        at = place[lines, np.maximum(shown[:, slot], 0)]
        out[filled, slot] = chances(ranked, left, policy)[lines, at][filled]
        left[lines[filled], at[filled]] = False
    return out


def looked_at(worth: Floats, there: Flags, look: Floats, policy: Serve, seed: int = 0) -> Floats:
    """How much each candidate is looked at, shape (n, K), by what each slot lets through, shape (n, S)."""
    drawn = DRAWS if policy.explore > 0 else 1  # without exploration only equals are drawn among
    rng = np.random.default_rng(seed)
    size = max(1, AT_ONCE // (drawn * max(worth.shape[1], 1)))
    parts = [slice(at, at + size) for at in range(0, len(worth), size)]
    return np.concatenate([_looked_at(worth[p], there[p], look[p], policy, drawn, rng) for p in parts])


def quality_shown(lists: Lists) -> Floats:
    """What the reward model expects of what stood in each slot, in any slot, shape (n, S)."""
    return np.take_along_axis(lists.quality, np.maximum(lists.shown, 0), axis=1)


def look_of(lists: Lists) -> Floats:
    """What each slot lets through: its reward over what a model expects of what stood there, shape (S,)."""
    known = lists.known
    reward = np.where(known, lists.reward, 0).sum(axis=0)
    expected = np.where(known, quality_shown(lists), 0).sum(axis=0)
    total = reward.sum() / expected.sum() if reward.sum() > 0 and expected.sum() > 0 else 1.0
    fits = (reward > 0) & (expected > 0)
    return np.where(fits, reward / np.where(fits, expected, 1), total)


def log_of(lists: Lists, policy: Serve) -> Log:
    """The slots whose reward is known as rows of a log, by decision and slot.

    The generations that logged are one mixture, each with its share of the decisions.
    """
    known, slots = lists.known, lists.shown >= 0
    each = look_of(lists)
    look = np.where(slots, each, 0)
    share = np.bincount(lists.generations, minlength=len(lists.worth)) / len(lists.generations)
    logged = np.zeros(lists.target.shape)
    for part, worth in zip(share, lists.worth, strict=True):
        logged += part * looked_at(worth, lists.there, look, policy)
    target = looked_at(lists.target, lists.there, look, policy)
    never = np.where(logged < NEVER, target, 0).sum(axis=1) / np.maximum(target.sum(axis=1), NEVER)
    expected = (target * lists.quality).sum(axis=1) / slots.sum(axis=1)
    lines = np.broadcast_to(np.arange(len(known))[:, None], known.shape)[known]
    item = lists.shown[known]
    through = look[known]
    return Log(
        reward=lists.reward[known],
        logged=np.maximum(logged[lines, item], NEVER),
        target=target[lines, item],
        predicted=through * lists.quality[lines, item],
        expected=expected[lines],
        users=lists.users[lines],
        unsupported=never[lines],
        exposure=through / through.mean(),
    )


def _ranked(worth: Floats, there: Flags) -> tuple[Codes, Floats, Flags]:
    """The order of candidates, the best first, their worth in it, and which of them there are."""
    masked = np.where(there, worth, NOWHERE)
    order = np.argsort(-masked, axis=1, kind="stable")
    return order, np.take_along_axis(masked, order, axis=1), np.take_along_axis(there, order, axis=1)


def _looked_at(
    worth: Floats, there: Flags, look: Floats, policy: Serve, drawn: int, rng: np.random.Generator
) -> Floats:
    order, ranked, left = _ranked(worth, there)
    n, candidates = worth.shape
    ranked, left = np.repeat(ranked, drawn, axis=0), np.repeat(left, drawn, axis=0)
    lines = np.arange(len(ranked))
    total = np.zeros((n, candidates))
    for slot in range(look.shape[1]):
        probable = chances(ranked, left, policy)
        total += look[:, slot, None] * probable.reshape(n, drawn, candidates).mean(axis=1)
        if slot + 1 < look.shape[1]:
            reached = np.cumsum(probable, axis=1)
            spread = rng.permuted(np.tile(np.arange(drawn), (n, 1)), axis=1) + rng.random((n, drawn))
            chosen = (reached <= (spread / drawn).reshape(-1, 1) * reached[:, -1:]).sum(axis=1)
            left[lines, np.minimum(chosen, candidates - 1)] = False
    out = np.empty_like(total)
    np.put_along_axis(out, order, total, axis=1)
    return out
