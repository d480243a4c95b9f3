"""Waiting until events are on disk: a future for each submission, woken once for each group that was written."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

from flywheel.errors import FlywheelError
from flywheel.events import Decision, Outcome, Row
from flywheel.serve.refusals import Refusal
from flywheel.serve.serving import Accepts

Receipt = Sequence[bool] | FlywheelError


class Writing:
    """The loop's side of an inbox, whose thread calls back from elsewhere."""

    def __init__(self, inbox: Accepts) -> None:
        self.inbox = inbox
        self._settled: deque[tuple[asyncio.Future[Sequence[bool]], Receipt]] = deque()
        self._woken = False

    async def write(
        self, decisions: Sequence[Decision] = (), outcomes: Sequence[Outcome] = (), rows: Sequence[Row] = ()
    ) -> Sequence[bool]:
        """Return when all is on disk: which of the outcomes and rows were there before.

        Raises:
            Refusal: 503, the inbox is full or cannot write; nothing of it is on disk.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[bool]] = loop.create_future()
        if not self.inbox.submit(decisions, outcomes, rows, partial(self._done, loop, future)):
            raise busy("the inbox is full")
        return await future

    def _done(
        self, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Sequence[bool]]", receipt: Receipt
    ) -> None:
        """Called in the writing thread; a wake that is under way takes this receipt along."""
        self._settled.append((future, receipt))
        if not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._woken = False
        while self._settled:
            future, receipt = self._settled.popleft()
            if future.done():  # whoever waited went away
                continue
            if isinstance(receipt, FlywheelError):
                future.set_exception(Refusal(503, receipt.what, why=receipt.why, headers={"retry-after": "1"}))
            else:
                future.set_result(receipt)


def busy(why: str) -> Refusal:
    """503: try again in a second."""
    return Refusal(503, "busy", why=why, next="try again after a second", headers={"retry-after": "1"})
