"""The product that knows the truth, which no real one does: what lists could be at best."""

from collections.abc import Sequence

import numpy as np

from flywheel.simulator.product import Answer, Ask, Rank
from flywheel.simulator.society import Society


def oracle(society: Society) -> Rank:
    """Shows, on this society's day, those of the candidates that are the likeliest to be watched, in that order."""

    def rank(asks: Sequence[Ask]) -> list[Answer]:
        items = np.array([[int(c.item[1:]) for c in ask.request.candidates] for ask in asks], np.int64)
        sessions = society.sessions
        user, device, at = (column[:, None] for column in (sessions.user, sessions.device, sessions.at))
        best = np.argsort(-society.world.appeal(user, items, device=device, at=at), axis=1, kind="stable")
        k = society.world.settings.shelf
        return [
            Answer(f"t{ask.ts}-{n}", tuple(ask.request.candidates[place].item for place in order[:k]), (1.0,) * k)
            for n, (ask, order) in enumerate(zip(asks, best.tolist(), strict=True))
        ]

    return rank
