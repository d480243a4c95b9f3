"""What passes between a world's people and the product that they open, a day at a time; and a product that shuffles."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flywheel.events import Outcome, Request


class Ask(NamedTuple):
    """Someone opens the product: when, in microseconds since 1970 UTC, and what is asked of it."""

    ts: int
    request: Request


class Answer(NamedTuple):
    """What was shown, the best first; under which id; and how probable each item was, given the slots above it."""

    decision: str
    items: tuple[str, ...]
    propensity: tuple[float, ...] = ()


class Arrival(NamedTuple):
    """An outcome, and when it reaches the product, in microseconds since 1970 UTC."""

    at: int
    outcome: Outcome


Rank = Callable[[Sequence[Ask]], Sequence[Answer]]
"""The product: it answers the asks of one day, which come in order of time, in the same order."""


def due(waiting: Sequence[Arrival], until: int) -> tuple[list[Arrival], list[Arrival]]:
    """Part what is waiting into what arrives before `until`, in order of time, and what is still on its way.

    >>> first, second = (Arrival(at, Outcome(f"o{at}", "d", "i", 1.0, at)) for at in (10, 20))
    >>> due([second, first], 15) == ([first], [second])
    True
    """
    ordered = sorted(waiting, key=lambda arrival: (arrival.at, arrival.outcome.event_id))
    return [a for a in ordered if a.at < until], [a for a in ordered if a.at >= until]


def shuffle(seed: int) -> Rank:
    """A product that shows candidates in uniformly random order; the same day asked again is answered the same.

    >>> from flywheel.events import Candidate
    >>> ask = Ask(0, Request("u1", (Candidate("i1"), Candidate("i2")), k=2))
    >>> [answer] = shuffle(seed=1)([ask])
    >>> sorted(answer.items), answer.propensity
    (['i1', 'i2'], (0.5, 1.0))
    """

    def rank(asks: Sequence[Ask]) -> list[Answer]:
        rng = np.random.default_rng([seed, *(ask.ts for ask in asks[:1])])
        return [_shuffled(ask, rng) for ask in asks]

    return rank


def _shuffled(ask: Ask, rng: np.random.Generator) -> Answer:
    candidates, k = ask.request.candidates, ask.request.k
    chosen = rng.permutation(len(candidates))[:k]
    items = tuple(candidates[place].item for place in chosen)
    propensity = tuple(1 / (len(candidates) - slot) for slot in range(len(items)))
    return Answer(f"s{ask.ts}-{rng.bytes(8).hex()}", items, propensity)
