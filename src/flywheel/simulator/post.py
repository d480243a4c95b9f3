"""Outcomes on their way from a world's people to the product: late, some twice, some never."""

from collections.abc import Sequence

import numpy as np

from flywheel.events import Outcome
from flywheel.simulator.log import ATTRIBUTION
from flywheel.simulator.population import Ints
from flywheel.simulator.product import Answer, Arrival
from flywheel.simulator.world import World

LATEST = int(ATTRIBUTION.total_seconds()) - 1  # seconds after the list was shown


def post(
    world: World,
    at: Ints,
    answers: Sequence[Answer],
    *,
    watched: Ints,
    delays: Ints,
    lost: float,
    twice: float,
) -> list[Arrival]:
    """The outcomes of what was watched, as they arrive; silence sends nothing.

    Args:
        world: on the day on which the lists were shown.
        at: when each was, in seconds since the world's start, shape (sessions,).
        answers: the lists.
        watched: 1 where an item was, shape (sessions, slots).
        delays: seconds until that was known, at most LATEST, shape (sessions, slots).
        lost: the share that never arrives.
        twice: the share that arrives a second time, within ten minutes.
    """
    rng = world.stream(world.day, "post")
    gone, again = rng.random(watched.shape) < lost, rng.random(watched.shape) < twice
    later = np.minimum(delays + rng.integers(1, 600, watched.shape), LATEST)
    first, second = world.moments(at[:, None] + delays), world.moments(at[:, None] + later)
    found = []
    for session, slot in np.argwhere((watched == 1) & ~gone).tolist():
        answer, ts = answers[session], int(first[session, slot])
        event_id = f"o{world.day:04d}-{session:06d}-{slot + 1}"
        outcome = Outcome(event_id, answer.decision, answer.items[slot], 1.0, ts)
        found.append(Arrival(ts, outcome))
        if again[session, slot]:
            found.append(Arrival(int(second[session, slot]), outcome))
    return sorted(found, key=lambda arrival: (arrival.at, arrival.outcome.event_id))
