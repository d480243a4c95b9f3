"""The workspace as the product that a simulated world's people use: in one process with them, or over real sockets."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import msgspec

from flows import publishing, serving
from flywheel.errors import SourceError
from flywheel.events import Candidate, Decision, Outcome
from flywheel.serve import server
from flywheel.serve.ranker import Ranker
from flywheel.serve.serving import Serving
from flywheel.simulator.product import Answer, Ask
from flywheel.sources.group_commit import GroupCommit
from flywheel.workspace import Workspace

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 1000  # outcomes sent together


class InProcess:
    """The very ranker and inbox that are behind the HTTP door, without the door."""

    def __init__(self, ws: Workspace) -> None:
        self._ws, self._inbox = ws, serving.inbox(ws)
        self.reload()

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer one day's asks; they are on disk together when this returns."""
        decisions = [
            self._ranker.rank(ask.request, decision_id=_name(ask.ts, n), now=ask.ts) for n, ask in enumerate(asks)
        ]
        self._inbox.write(decisions, (), ())
        return [_answer(decision) for decision in decisions]

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        """Take in what came of it."""
        self._inbox.write((), outcomes, ())

    def reload(self) -> None:
        """Serve what the registry says now, from the newest state."""
        self._ranker = _ranker(self._ws)

    def close(self) -> None:
        """Let go of the inbox."""
        self._inbox.close()


class OverHttp:
    """The real server on a real socket, in a thread of its own, whose clock is the world's."""

    def __init__(self, ws: Workspace) -> None:
        self._ws, self._now, self._asked = ws, 0, 0
        ranker = _ranker(ws)
        self._serving = Serving(
            ranker,
            serving.told(ranker, 0),
            clock=lambda: self._now,
            new_id=lambda now: _name(now, self._asked),
        )
        self._open = ExitStack()
        inbox = serving.inbox(ws)
        self._open.callback(inbox.close)
        url = self._open.enter_context(server.running(ws.config, self._serving, GroupCommit(inbox)))
        self._connection = HTTPConnection(url.removeprefix("http://"))
        self._open.callback(self._connection.close)

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer one day's asks, one request each."""
        return [self._rank(ask, n) for n, ask in enumerate(asks)]

    def receive(self, outcomes: Sequence[Outcome]) -> None:
        """Send what came of it."""
        for at in range(0, len(outcomes), BATCH):
            batch = outcomes[at : at + BATCH]
            self._now = max(self._now, *(outcome.ts for outcome in batch))
            self._post("/v1/outcomes", [_told(outcome) for outcome in batch])

    def reload(self) -> None:
        """Serve what the registry says now, from the newest state."""
        ranker = _ranker(self._ws)
        self._serving.swap(ranker, serving.told(ranker, self._now))

    def close(self) -> None:
        """Stop the server; all it acknowledged is on disk."""
        self._open.close()

    def _rank(self, ask: Ask, n: int) -> Answer:
        self._now, self._asked = ask.ts, n
        request = ask.request
        body = {
            "user": request.user,
            "candidates": [_candidate(candidate) for candidate in request.candidates],
            "context": request.context,
            "k": request.k,
        }
        answer = self._post("/v1/rank", body)
        items = answer["items"]
        return Answer(answer["decision_id"], tuple(i["item"] for i in items), tuple(i["propensity"] for i in items))

    def _post(self, path: str, body: object) -> Any:
        given = msgspec.json.encode(body)
        self._connection.request("POST", path, given, {"content-type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise SourceError(f"{path} answered {response.status}", why=answer[:300].decode(errors="replace"))
        return msgspec.json.decode(answer)


def _ranker(ws: Workspace) -> Ranker:
    """Whoever serves now, and whoever serves a share of people first."""
    how, tried = serving.policy(ws.config), publishing.trying(ws)
    return serving.ranker_of(publishing.current(ws), how, serving.canary_of(tried[0], how, tried[1]) if tried else None)


def _name(ts: int, n: int) -> str:
    """The id of a day's n-th decision: seeded worlds are answered the same, in process and over sockets."""
    return f"d{ts:x}-{n:06d}"


def _answer(decision: Decision) -> Answer:
    shown = decision.shown
    return Answer(decision.id, tuple(s.item for s in shown), tuple(s.propensity for s in shown))


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"item": candidate.item, **candidate.attributes}


def _told(outcome: Outcome) -> dict[str, Any]:
    at = (EPOCH + timedelta(microseconds=outcome.ts)).isoformat()
    return {**msgspec.structs.asdict(outcome), "ts": at}
