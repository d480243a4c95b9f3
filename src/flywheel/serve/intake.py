"""Taking turns on the one thread that ranks, and sending away at once whoever could not be answered soon.

Ranking takes about a millisecond of the loop's own thread. Of whoever arrives together as many are ranked as fit in a
slice of time; then the loop looks at its sockets again, so that answers leave and newcomers are seen, and the others
wait in line. Whoever would stand behind too much work is told so instead.
"""

import asyncio
from collections import deque
from typing import Literal

from flywheel.serve.refusals import Refusal

Work = Literal["rank", "scores", "event"]
SLICE = 0.005  # s of work between two looks at the sockets
LINE = 0.025  # s of work that may stand in line
_INTERRUPTED = 5  # a turn that took so many times the mean was interrupted by the machine, and says little of others
_WEIGHT = 0.2  # of the newest in a moving mean


class Intake:
    """A line of those who wait for a turn; each says afterwards what its turn took."""

    def __init__(self) -> None:
        self.shed = 0
        self._means: dict[Work, float] = {"rank": 0.001, "scores": 0.001, "event": 0.00002}  # s for one
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._ahead = 0.0  # s of work in line
        self._left = SLICE
        self._running = False

    async def turn(self, work: Work, count: int = 1) -> None:
        """Return when it is one's turn for so much work.

        Raises:
            Refusal: 503, the line is too long.
        """
        if self._ahead > LINE:
            self.shed += 1
            raise busy("more is asked than can be answered soon")
        await self.wait(work, count)

    async def wait(self, work: Work, count: int = 1) -> None:
        """Return when it is one's turn, however long the line: for those who have been let in before."""
        loop = asyncio.get_running_loop()
        if not self._running:
            self._running = True
            loop.call_soon(self._next, loop)
        seconds = self._means[work] * count
        if self._left > 0 and not self._line:
            self._left -= seconds
            return
        place = loop.create_future()
        self._line.append((place, seconds))
        self._ahead += seconds
        await place

    def took(self, work: Work, seconds: float, count: int = 1) -> None:
        """Tell what a turn took."""
        mean, one = self._means[work], seconds / count
        self._means[work] = mean + _WEIGHT * (min(one, _INTERRUPTED * mean) - mean)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once per pass of the loop, for as long as there is work: as many turns as fit in a slice."""
        self._running = bool(self._line) or self._left < SLICE
        self._left = SLICE
        while self._left > 0 and self._line:
            place, seconds = self._line.popleft()
            self._ahead -= seconds
            if not place.done():  # whoever waited may have gone away
                place.set_result(None)
                self._left -= seconds
        if self._running:
            loop.call_soon(self._next, loop)


def busy(why: str) -> Refusal:
    """503: try again in a second."""
    return Refusal(503, "busy", why=why, next="try again after a second", headers={"retry-after": "1"})
