"""Which item stands in which slot, and with what probability: mostly the best, now and then another.

Slot by slot: with probability 1 − ε the best of what remains; with ε a draw. A draw is, but for a small `floor` that
is even among all that remains, a softmax over the best `top` of them and whatever equals the last of these. Which of
equals comes first is settled by lot. So the probability of an item in a slot, given the slots above, is exactly

    (1 − ε) · [it is among the best] / (how many are) + ε · ((1 − floor) · softmax + floor / (how many remain)).

All random numbers of a decision are seeded by its id.
"""

import math
from bisect import bisect_right
from itertools import accumulate
from random import Random
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from flywheel.events import Decision
from flywheel.sections import Serve

EDGE = 1e-6  # probabilities nearer to 0 or 1 are taken for this: log-odds are finite
TINY = 1e-200


class Slot(NamedTuple):
    """What stands in a slot: the position of a candidate; `explored`, if it was not the best of what remained."""

    candidate: int
    propensity: float
    explored: bool


def worth(scores: npt.NDArray[np.float64], kind: Literal["binary", "number"]) -> list[float]:
    """What a draw compares: log-odds of scores that are probabilities, else the scores themselves.

    >>> worth(np.array([0.5, 1.0]), "binary")
    [0.0, 13.815509557935018]
    """
    if kind == "number":
        return list(scores.tolist())
    inner = np.clip(scores, EDGE, 1 - EDGE)
    return list(np.log(inner / (1 - inner)).tolist())


def explore(decision_id: str, worth: list[float], slots: int, policy: Serve) -> list[Slot]:
    """Fill the slots from the top, as many as there are candidates for; `worth` is finite, more is better.

    >>> explore("d", [0.1, 0.3, 0.2], 2, Serve(explore=0))
    [Slot(candidate=1, propensity=1.0, explored=False), Slot(candidate=2, propensity=1.0, explored=False)]
    """
    rng = Random(xxhash.xxh3_64_intdigest(decision_id.encode()))
    lot = [rng.random() for _ in worth]
    order = sorted(range(len(worth)), key=lot.__getitem__)
    order.sort(key=worth.__getitem__, reverse=True)  # keeps the order of equals
    rest = _Rest(order, worth, policy)
    return [rest.take(rng) for _ in range(min(slots, len(worth)))]


def replay(
    decision: Decision, scores: npt.NDArray[np.float64], kind: Literal["binary", "number"], policy: Serve
) -> tuple[tuple[str, float, bool], ...]:
    """Item, propensity and whether explored, per slot, as decided while `decision.candidates` had these scores."""
    filled = explore(decision.id, worth(scores, kind), len(decision.shown), policy)
    return tuple((decision.candidates[slot.candidate], slot.propensity, slot.explored) for slot in filled)


class _Rest:
    """What remains to be shown, the best first."""

    def __init__(self, order: list[int], worth: list[float], policy: Serve) -> None:
        self.order, self.policy = order, policy
        self.loss = [-worth[i] for i in order]  # ascending, as bisection wants it
        self._weigh()

    def take(self, rng: Random) -> Slot:
        """Choose what is shown next, and take it away."""
        if self.weights[0] < TINY:
            self._weigh()
        self.best = bisect_right(self.loss, self.loss[0])  # so many equal the best
        self.among = bisect_right(self.loss, self.loss[min(self.policy.top, len(self.loss)) - 1])
        self.total = sum(self.weights[: self.among])
        place = self._choose(rng)
        slot = Slot(self.order[place], self._propensity(place), place >= self.best)
        del self.order[place], self.loss[place], self.weights[place]
        return slot

    def _choose(self, rng: Random) -> int:
        if rng.random() >= self.policy.explore:
            return 0
        if rng.random() < self.policy.floor:
            return rng.randrange(len(self.order))
        reached = list(accumulate(self.weights[: self.among]))
        return min(bisect_right(reached, rng.random() * reached[-1]), self.among - 1)

    def _propensity(self, place: int) -> float:
        explore, floor = self.policy.explore, self.policy.floor
        best = (1 - explore) / self.best if place < self.best else 0.0
        drawn = (1 - floor) * self.weights[place] / self.total if place < self.among else 0.0
        return best + explore * (drawn + floor / len(self.order))

    def _weigh(self) -> None:
        """Give the best of what remains the weight 1, and the others theirs."""
        self.weights = [math.exp((self.loss[0] - loss) / self.policy.temperature) for loss in self.loss]
