"""Group commit: one thread writes what was submitted since the last commit, and one commit serves everyone in it.

A sync to disk takes a millisecond whatever it syncs, so events share one. Nothing waits on purpose: while one group
is being written, the next one gathers.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flywheel.errors import FlywheelError
from flywheel.events import Decision, Outcome, Row
from flywheel.sources.inbox import Inbox, Written
from flywheel.sources.inbox_database import EventError, InboxUnavailable

Done = Callable[[Written | FlywheelError], None]


@dataclass(frozen=True)
class _Submission:
    decisions: Sequence[Decision]
    outcomes: Sequence[Outcome]
    rows: Sequence[Row]
    done: Done

    @property
    def size(self) -> int:
        return len(self.decisions) + len(self.outcomes) + len(self.rows)


class GroupCommit:
    """Writes to an inbox from a thread of its own.

    Args:
        inbox: where to.
        limit: events that may be waiting, those being written included; what goes beyond is refused.
    """

    def __init__(self, inbox: Inbox, limit: int = 10_000) -> None:
        self._inbox, self._limit = inbox, limit
        self._changed = threading.Condition(threading.Lock())
        self._gathered: list[_Submission] = []
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="group commit", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events that were submitted and not yet completed."""
        return self._waiting

    def submit(
        self, decisions: Sequence[Decision], outcomes: Sequence[Outcome], rows: Sequence[Row], done: Done
    ) -> bool:
        """Hand over events that belong together; False, at once, where there is no room for them or it is closed.

        `done` is called in the writing thread, once they are on disk with what became of each, else with the error.
        """
        submission = _Submission(decisions, outcomes, rows, done)
        with self._changed:
            if self._closed or self._waiting + submission.size > self._limit:
                return False
            self._waiting += submission.size
            self._gathered.append(submission)
            self._changed.notify()
        return True

    def write(
        self, decisions: Sequence[Decision] = (), outcomes: Sequence[Outcome] = (), rows: Sequence[Row] = ()
    ) -> Written:
        """Hand over events and wait until they are on disk.

        Raises:
            InboxUnavailable: there is no room, or the database refuses; nothing is acknowledged.
            EventError: no database can hold one of the events.
        """
        results: list[Written | FlywheelError] = []
        told = threading.Event()

        def done(result: Written | FlywheelError) -> None:
            results.append(result)
            told.set()

        if not self.submit(decisions, outcomes, rows, done):
            raise InboxUnavailable("the inbox has no room for more events", next="send them again in a second")
        told.wait()
        if isinstance(results[0], FlywheelError):
            raise results[0]
        return results[0]

    def close(self) -> None:
        """Take nothing more, write what waits, and return when everyone was told."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        group: deque[_Submission] = deque()
        try:
            while group := self._next():
                results = self._results(list(group))
                with self._changed:
                    self._waiting -= sum(submission.size for submission in group)
                for result in results:
                    group.popleft().done(result)
        finally:  # nobody is left waiting, whatever a `done` has raised
            with self._changed:
                self._closed = True
            for submission in (*group, *self._gathered):
                submission.done(InboxUnavailable("the inbox writes no more"))

    def _next(self) -> deque[_Submission]:
        """What has gathered, as soon as there is something; nothing once it is closed and empty."""
        with self._changed:
            while not self._gathered and not self._closed:
                self._changed.wait()
            group, self._gathered = deque(self._gathered), []
        return group

    def _results(self, group: Sequence[_Submission]) -> list[Written | FlywheelError]:
        """What became of each submission. One that no database can hold is found by halves, and harms no other."""
        try:
            written = self._inbox.write(
                [event for submission in group for event in submission.decisions],
                [event for submission in group for event in submission.outcomes],
                [event for submission in group for event in submission.rows],
            )
        except EventError as error:
            half = len(group) // 2
            return [error] if not half else [*self._results(group[:half]), *self._results(group[half:])]
        except FlywheelError as error:
            return [error] * len(group)
        return _shares(group, written)


def _shares(group: Sequence[_Submission], written: Written) -> list[Written | FlywheelError]:
    shares: list[Written | FlywheelError] = []
    d = o = r = 0
    for one in group:
        to = d + len(one.decisions), o + len(one.outcomes), r + len(one.rows)
        shares.append(Written(written.decisions[d : to[0]], written.outcomes[o : to[1]], written.rows[r : to[2]]))
        d, o, r = to
    return shares
