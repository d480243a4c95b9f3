"""A product through a week that passes as fast as its people ask: what falls due is done, and what breaks is mended.

The server is the real command, by a clock that goes from one thing that happens to the next. A turn is a process of its
own, as a runner starts it, and people ask on while it runs; collects and looks of the monitor are the same flows, as of
their hour, in this process.
"""

import os
import signal
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from flows import monitor as monitoring
from flows import turn as turning
from flows.products import EPOCH, OverHttp
from flows.scheduled import ended
from flywheel.events import Outcome
from flywheel.integrations import prefect_process
from flywheel.integrations.mlflow_glance import glance
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.schedule import Schedule
from flywheel.simulator.product import Answer, Ask
from flywheel.workspace import Workspace
from tests.flows.shell import Done, Running, Shell
from tests.flows.test_serve import STARTED, Served, until

SPED = Path(__file__).with_name("sped.py")
PATIENCE = 5  # refusals in a row after which somebody mends what is broken
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)
Act = Callable[["Week", datetime], None]


class Event(NamedTuple):
    """Something that happens; of what happens at once, faults come first."""

    when: datetime
    order: int
    act: Act


class Run(NamedTuple):
    """A collect or a look of the monitor, and how it ended."""

    name: str
    when: datetime
    ended: str
    said: str


class Turn(NamedTuple):
    """A turn that was due, and how its process ended."""

    when: datetime
    done: Done


@dataclass
class Book:
    """What was acknowledged, as those know it who asked: items shown by decision, and what was heard of which item."""

    shown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heard: dict[str, tuple[str, str]] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    acknowledged: int = 0  # outcomes, the same one again too
    unsure: int = 0  # requests that were sent, and broke off before an answer

    def answered(self, said: dict[str, Any]) -> None:
        """A decision that was acknowledged."""
        assert said["decision_id"] not in self.shown
        self.shown[said["decision_id"]] = tuple(item["item"] for item in said["items"])

    def told(self, sent: list[dict[str, Any]]) -> None:
        """Outcomes that were acknowledged."""
        self.acknowledged += len(sent)
        self.heard |= {one["event_id"]: (one["decision_id"], one["item"]) for one in sent}


class History:
    """A Prefect API of the workspace's own, to be killed and begun again."""

    def __init__(self, root: Path) -> None:
        self.home = prefect_process.home_of(root)
        self.begin()

    def begin(self) -> None:
        self.child = prefect_process.start(self.home, 0, "history")
        self._url = ""

    @property
    def url(self) -> str:
        if not self._url:
            port = prefect_process.port_of(self.child, 240)
            assert port, prefect_process.last_words(self.home, "history")
            self._url = prefect_process.api_url(port)
        return self._url

    def kill(self) -> None:
        self.child.kill()
        self.end()

    def end(self) -> None:
        prefect_process.end(self.child)


class Week(OverHttp):
    """The product's door as people find it. They ask until they are answered, and tell until it is acknowledged."""

    def __init__(
        self, ws: Workspace, shell: Shell, history: History, clock: Path, begins: datetime, events: Sequence[Event]
    ) -> None:
        self._ws, self._now, self._asked = ws, 0, 0
        self.ws, self.shell, self.history, self.clock = ws, shell, history, clock
        self.midnight, self.early = begins, begins + 4 * DAY
        self.events = deque(sorted(events, key=lambda event: event[:2]))
        self.book, self.runs, self.turns = Book(), list[Run](), list[Turn]()
        self.champion, self.met = glance(ws.root, ws.config.product.name).champion, set[int]()
        self.broken: list[Callable[[], None]] = []
        self.failpoint, self.away_until = "", begins
        self.turning: tuple[datetime, Running] | None = None
        self._held: list[tuple[datetime, Outcome]] = []
        self._tick(begins)
        self.serve()

    def serve(self) -> None:
        """Start the server; it answers by the champion before anybody comes."""
        self.served = Served(self.ws, str(SPED), str(self.clock))
        until(lambda: self.served.model()["generation"] == self.champion, STARTED)

    def live_until(self, moment: datetime) -> None:
        """Do all that falls due up to a moment."""
        while self.events and self.events[0].when <= moment:
            event = self.events.popleft()
            self._tick(event.when)
            event.act(self, event.when)
            if self.turning is None:
                self.look()
        self._tick(moment)

    def run(self, name: str, when: datetime, work: Callable[[], str]) -> None:
        """Do what a deployment of that name would, unless nobody is there who does it."""
        if when < self.away_until:
            return
        self.end_turn()
        with ready(Booting(fault="its history is that of turns")):
            try:
                state = ended(self.ws.root, name, lambda _: work())
            except OSError as error:
                self.runs.append(Run(name, when, "Failed", str(error)))
            else:
                self.runs.append(Run(name, when, state.name or "", state.message or ""))

    def begin_turn(self, when: datetime) -> None:
        """Start a turn; who asks meanwhile is answered meanwhile."""
        environment = {"PREFECT_API_URL": self.history.url, "FLYWHEEL_FAILPOINT": self.failpoint}
        self.turning = when, self.shell.start(self.ws.root, "turn", "--as-of", when.isoformat(), env=environment)
        self.failpoint = ""

    def end_turn(self) -> None:
        """See how the turn ended that runs."""
        if self.turning is not None:
            when, running = self.turning
            self.turns.append(Turn(when, running.done(240)))
            self.turning = None
            self.look()

    def look(self) -> None:
        """Nobody met anything but the champion; if that is another by now, it is met from here on."""
        before = self.champion
        if (self.ws.root / "mlruns" / "mlflow.db").exists():
            self.champion = glance(self.ws.root, self.ws.config.product.name).champion
        assert self.met <= {before, self.champion}
        self.met.clear()
        if self.champion != before:
            until(lambda: self.served.model()["generation"] == self.champion, STARTED)

    def mend(self) -> None:
        """Make whole whatever is broken."""
        while self.broken:
            self.broken.pop()()

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        """The day ends, and what came of it is told; one in twenty of the first days is told three days later."""
        self.midnight += DAY
        self.live_until(self.midnight - INSTANT)
        told = []
        for one in outcomes:
            if self.midnight <= self.early and zlib.crc32(one.event_id.encode()) % 20 == 0:
                self._held.append((self.midnight + 3 * DAY, one))
            else:
                told.append(one)
        late = [one for when, one in self._held if when == self.midnight]
        self.book.late |= {one.event_id for one in late}
        super().receive([*told, *late])

    def close(self) -> None:
        """End what runs."""
        if self.turning is not None:
            with suppress(ProcessLookupError):
                os.kill(self.turning[1].pid, signal.SIGKILL)
        self.served.process.kill()
        self.served.process.communicate()

    def tried(self, path: str, body: object) -> Any:
        """What a client is answered that asks once; None where it is not acknowledged."""
        try:
            status, said = self.served.ask("POST", path, body)
        except ConnectionRefusedError:
            return None
        except (OSError, HTTPException):
            self.book.unsure += 1
            return None
        assert status in (200, 503), said
        return said if status == 200 else None

    def _rank(self, ask: Ask, n: int) -> Answer:
        self.live_until(EPOCH + timedelta(microseconds=ask.ts))
        return super()._rank(ask, n)

    def _post(self, path: str, body: Any) -> Any:
        said = self.tried(path, body)
        refused = 0
        while said is None:
            refused += 1
            assert refused < 100, path
            if refused >= PATIENCE:
                self.mend()
            said = self.tried(path, body)
        if path == "/v1/rank":
            self.meet(said)
        else:
            self.book.told(body)
        return said

    def meet(self, said: dict[str, Any]) -> None:
        """Book an answer, and by whom it was given."""
        self.book.answered(said)
        assert said["arm"] == "wheel" or (said["arm"], said["generation"]) == ("holdback", 0)
        if said["arm"] == "wheel":
            self.met.add(said["generation"])

    def _tick(self, moment: datetime) -> None:
        following = self.clock.with_suffix(".next")
        following.write_text(str((moment - EPOCH) // INSTANT * 1000))
        following.replace(self.clock)


def collect(week: Week, when: datetime) -> None:
    week.run("collect", when, lambda: f"closed {turning.collect_only(week.ws.root, when)}")


def monitor(week: Week, when: datetime) -> None:
    week.run("monitor", when, lambda: "; ".join(monitoring.monitor(week.ws.root, when).says))


def turn(week: Week, when: datetime) -> None:
    week.end_turn()
    week.begin_turn(when)


DUE: dict[str, Act] = {"collect": collect, "turn": turn, "monitor": monitor}


def due(schedule: Schedule, begins: datetime, ends: datetime) -> Iterator[Event]:
    """What a schedule says is due in a span of time."""
    for order, (name, act) in enumerate(DUE.items(), start=1):
        when = schedule.next(name, begins - INSTANT)
        while when is not None and when < ends:
            yield Event(when, order, act)
            when = schedule.next(name, when)
