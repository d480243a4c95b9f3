"""A server through its life: under load, given another generation, out of room, told to stop, and killed."""

import signal
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

import pytest
import sqlalchemy as sa

from flywheel.errors import DataError
from flywheel.events import Decision, Request
from flywheel.sources.inbox import Inbox
from tests.integration.door_world import Client, Process, Reply, outcome, ranker, shop, stored, told

THREADS = 4


class Load:
    """Clients that ask until they are told to stop, and what they were answered."""

    def __init__(self, url: str, ask: Callable[[Client, int], Reply], name: str = "") -> None:
        self.replies: list[Reply] = []
        self.outcomes: set[str] = set()
        self.broken = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, ask, f"{name}{i}", i)) for i in range(THREADS)]

    def _run(self, url: str, ask: Callable[[Client, int], Reply], name: str, first: int) -> None:
        number, client = first, Client(url)
        while not self._stop.is_set():
            try:
                self.replies.append(ask(client, number))
            except (OSError, HTTPException):
                self.broken += 1
                client.close()
                if self.broken > 1000:
                    return
            number += THREADS
        client.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def statuses(self) -> set[int]:
        return {reply.status for reply in self.replies}


def rank(client: Client, number: int) -> Reply:
    return client.rank(user=f"user{number}")


def test_another_generation_is_taken_up_under_load_without_a_failed_request(tmp_path: Path) -> None:
    with shop(tmp_path) as made, Load(made.url, rank) as load:
        first = weakref.ref(made.serving.served.ranker)
        for generation in range(1, 51):
            made.serving.swap(ranker(generation=generation), told(generation))
            time.sleep(0.01)
    assert first() is None, "what no longer serves is let go"
    assert load.statuses == {200}
    assert load.broken == 0
    for reply in load.replies:
        assert reply.json["arm"] == "holdback" or int(reply.headers["x-model-version"]) == reply.json["generation"]
    assert len({reply.headers["x-model-version"] for reply in load.replies}) > 10
    assert {row["id"] for row in stored(tmp_path, "decisions")} == {r.json["decision_id"] for r in load.replies}


class Slow:
    """A ranker that takes its time."""

    def __init__(self) -> None:
        self._ranker = ranker()

    def rank(self, request: Request, *, decision_id: str, now: int) -> Decision:
        time.sleep(0.02)
        return self._ranker.rank(request, decision_id=decision_id, now=now)

    def scores(self, request: Request) -> list[float]:
        return self._ranker.scores(request)


def test_whoever_could_not_be_answered_soon_is_sent_away_at_once(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        made.serving.swap(Slow(), told())
        for _ in range(12):
            made.client.rank()
        with Crowd(made.url, 40) as crowd:
            pass
        assert {reply.status for _, reply in crowd.replies} == {200, 503}
        shed = [(took, reply) for took, reply in crowd.replies if reply.status == 503]
        assert all(reply.headers["retry-after"] == "1" and reply.error["what"] == "busy" for _, reply in shed)
        assert made.client.rank().status == 200
        assert f"flywheel_shed_total {len(shed)}.0" in made.client("GET", "/metrics").body.decode()
        kept = {row["id"] for row in made.stored("decisions")}
        assert {reply.json["decision_id"] for _, reply in crowd.replies if reply.status == 200} <= kept


class Failing(Slow):
    """A ranker whose workspace has a function that fails."""

    def rank(self, request: Request, *, decision_id: str, now: int) -> Decision:
        raise DataError(
            "features.py failed in age", why="ZeroDivisionError: division by zero\nat line 3", next="mend it"
        )


def test_a_workspace_function_that_fails_is_told_in_one_line_and_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with shop(tmp_path) as made:
        made.serving.swap(Failing(), told())
        failed = made.client.rank()
        assert failed.status == 500
        assert failed.error["what"] == "features.py failed in age"
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert line.startswith("POST /v1/rank: features.py failed in age why: ZeroDivisionError: division by zero at")
        assert "\n" not in line
        made.serving.swap(ranker(), told())
        assert made.client.rank().status == 200


class Crowd:
    """Many who ask at the same moment, and how long each waited."""

    def __init__(self, url: str, size: int) -> None:
        self.replies: list[tuple[float, Reply]] = []
        self._gate = threading.Barrier(size)
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(size)]

    def _ask(self, url: str) -> None:
        client = Client(url)
        client("GET", "/healthz")
        self._gate.wait()
        began = time.monotonic()
        reply = client.rank()
        self.replies.append((time.monotonic() - began, reply))
        client.close()

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


def test_an_inbox_without_room_acknowledges_nothing(tmp_path: Path) -> None:
    with shop(tmp_path, limit=3) as made:
        assert made.client.outcomes([outcome(str(i)) for i in range(3)]).status == 200
        refused = made.client.outcomes([outcome(f"more{i}") for i in range(4)])
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert len(made.stored("outcomes")) == 3
        assert made.client.outcomes(outcome("after")).status == 200


def test_a_database_that_cannot_write_acknowledges_nothing_and_says_so(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        inbox = Inbox.open(None, tmp_path)
        with inbox.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE decisions RENAME TO elsewhere"))
        refused = made.client.rank()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "not available" in refused.error["what"]
        with inbox.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO decisions"))
        inbox.close()
        assert made.client.rank().status == 200
        assert len(made.stored("decisions")) == 1


def alternating(name: str) -> Callable[[Client, int], Reply]:
    """Ask for a list and tell an outcome in turns; event ids begin with `name`."""

    def ask(client: Client, number: int) -> Reply:
        if number // THREADS % 2:
            return client.rank(user=f"{name}{number}")
        reply = client.outcomes(outcome(f"{name}-{number}"))
        reply.headers["event-id"] = f"{name}-{number}"
        return reply

    return ask


def acknowledged(load: Load) -> tuple[set[str], set[str]]:
    """The decisions and the outcomes that were answered with a 2xx."""
    good = [reply for reply in load.replies if reply.status == 200]
    decisions = {reply.headers["x-decision-id"] for reply in good if "x-decision-id" in reply.headers}
    return decisions, {reply.headers["event-id"] for reply in good if "event-id" in reply.headers}


def test_fault_43_told_to_stop_it_says_so_first_answers_on_and_loses_nothing(tmp_path: Path) -> None:
    server = Process(tmp_path)
    client, ready = Client(server.url), []
    with Load(server.url, alternating("a")) as load:
        time.sleep(0.3)
        assert client("GET", "/readyz").status == 200
        server.signal(signal.SIGTERM)
        asked = time.monotonic()
        while client("GET", "/readyz").status == 200 and time.monotonic() < asked + 1:
            time.sleep(0.01)
        ready.append(time.monotonic() - asked)
        time.sleep(0.4)
        with closing(Client(server.url)) as newcomer:
            assert newcomer.rank().status == 200, "it answers on while others are told"
        assert server.ended() == 0
    client.close()
    assert ready[0] < 0.5
    assert time.monotonic() - asked < 10
    decisions, outcomes = acknowledged(load)
    assert decisions
    assert outcomes
    assert decisions <= {row["id"] for row in stored(tmp_path, "decisions")}
    assert outcomes <= {row["id"] for row in stored(tmp_path, "outcomes")}
    assert load.statuses == {200}


def test_fault_43_killed_ten_times_under_load_every_acknowledged_event_is_there_once(tmp_path: Path) -> None:
    decisions, outcomes = set[str](), set[str]()
    for turn in range(10):
        server = Process(tmp_path)
        with Load(server.url, alternating(str(turn))) as load:
            time.sleep(0.15)
            server.signal(signal.SIGKILL)
            assert server.ended() == -signal.SIGKILL
        for kept, seen in zip((decisions, outcomes), acknowledged(load), strict=True):
            assert seen
            kept |= seen
    for table, acked in (("decisions", decisions), ("outcomes", outcomes)):
        ids = [row["id"] for row in stored(tmp_path, table)]
        assert len(ids) == len(set(ids))
        assert acked <= set(ids)
