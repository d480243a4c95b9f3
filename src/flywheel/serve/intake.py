"""Taking turns on the one thread that ranks, and sending away at once whoever could not be answered soon.

Ranking takes about a millisecond of the loop's own thread. Of whoever arrives together a few are ranked, then the
loop looks at its sockets again, so that answers leave and newcomers are seen; the others wait in line. Whoever would
stand behind more than `LINE` seconds of work is told so instead.
"""

import asyncio
from collections import deque

from flywheel.serve.refusals import Refusal

SLICE = 0.005  # s of work between two looks at the sockets
LINE = 0.04  # s of work that may stand in line
_INTERRUPTED = 5
_WEIGHT = 0.2  # of the newest in the moving mean of what a turn takes


class Intake:
    """A line of those who wait for a turn; each says afterwards what its turn took."""

    def __init__(self) -> None:
        self.shed = 0
        self._mean = 0.001  # s
        self._line: deque[asyncio.Future[None]] = deque()
        self._free = 1
        self._running = False

    async def turn(self) -> None:
        """Return when it is one's turn.

        Raises:
            Refusal: 503, the line is too long.
        """
        if len(self._line) * self._mean > LINE:
            self.shed += 1
            raise busy("more is asked than can be answered soon")
        await self.wait()

    async def wait(self) -> None:
        """Return when it is one's turn, however long the line: for those who have been let in before."""
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._next)
        if self._free > 0 and not self._line:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        await place

    def took(self, seconds: float) -> None:
        """Tell what a turn took; one that the machine interrupted says little of the others."""
        self._mean += _WEIGHT * (min(seconds, _INTERRUPTED * self._mean) - self._mean)

    def _next(self) -> None:
        """Once per pass of the loop: as many turns as fit in a slice."""
        fitting = max(1, int(SLICE / self._mean))
        self._running = bool(self._line) or self._free < fitting
        self._free = fitting
        while self._free and self._line:
            place = self._line.popleft()
            if not place.done():  # whoever waited may have gone away
                place.set_result(None)
                self._free -= 1
        if self._running:
            asyncio.get_running_loop().call_soon(self._next)


def busy(why: str) -> Refusal:
    """503: try again in a second."""
    return Refusal(503, "busy", why=why, next="try again after a second", headers={"retry-after": "1"})
