"""Waiting until events are on disk: what one pass of the loop decided is submitted together, a future for each.

A group costs the writing thread about as much as ten events do, and its Python runs while the loop's does not. So
the loop hands over once per pass, and is woken once per group.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from flywheel.errors import FlywheelError
from flywheel.events import Decision, Outcome, Row
from flywheel.serve.intake import busy
from flywheel.serve.refusals import Refusal
from flywheel.serve.serving import Accepts, Fates

Written = asyncio.Future[Fates]
STALLED = 1.0  # s that the oldest submission may wait before newer ones are sent away


Submission = tuple[Sequence[Decision], Sequence[Outcome], Sequence[Row], Written]


class Writing:
    """The loop's side of an inbox, whose thread calls back from elsewhere."""

    def __init__(self, inbox: Accepts) -> None:
        self._inbox = inbox
        self._gathered: list[Submission] = []
        self._waiting: dict[Written, float] = {}  # since when, the oldest first
        self._settled: deque[tuple[Written, Fates | FlywheelError]] = deque()
        self._woken = False

    async def write(
        self, decisions: Sequence[Decision] = (), outcomes: Sequence[Outcome] = (), rows: Sequence[Row] = ()
    ) -> Fates:
        """Return when all is on disk: what became of it.

        Raises:
            Refusal: 503, the inbox is full, slow, or cannot write; nothing of it is on disk.
        """
        now = time.monotonic()
        if self._waiting and now - next(iter(self._waiting.values())) > STALLED:
            raise busy("the disk takes long")
        loop = asyncio.get_running_loop()
        written: Written = loop.create_future()
        if not self._gathered:
            loop.call_soon(self._submit, loop)
        self._gathered.append((decisions, outcomes, rows, written))
        self._waiting[written] = now
        try:
            return await written
        finally:
            self._waiting.pop(written, None)

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over what was gathered; the writing thread finds all of it, for it needs the interpreter to look."""
        gathered, self._gathered = self._gathered, []
        for decisions, outcomes, rows, written in gathered:
            taken = self._inbox.submit(decisions, outcomes, rows, partial(self._done, loop, written))
            if not (taken or written.done()):
                written.set_exception(busy("the inbox is full"))

    def _done(self, loop: asyncio.AbstractEventLoop, written: Written, fates: Fates | FlywheelError) -> None:
        """Called in the writing thread; a wake that is under way takes what came of this along."""
        self._settled.append((written, fates))
        if not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._woken = False
        while self._settled:
            written, fates = self._settled.popleft()
            if written.done():  # whoever waited went away
                continue
            if isinstance(fates, FlywheelError):
                written.set_exception(Refusal(503, fates.what, why=fates.why, headers={"retry-after": "1"}))
            else:
                written.set_result(fates)
