"""What the routes that read a body answer: bytes in, an answer out, a refusal raised."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from flywheel.config import Config
from flywheel.serve.intake import Intake
from flywheel.serve.invoked import Invoked
from flywheel.serve.numbers import Numbers
from flywheel.serve.refusals import Refusal, Refused, Why
from flywheel.serve.serving import Serving
from flywheel.serve.wire import Wire
from flywheel.serve.writing import Writing

CHUNK = 128  # items that are read in one turn
EVENT_BYTES = 128  # of a small one: before a body is read nobody knows how many it holds
Kind = Literal["outcome", "row"]
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body, and its headers but for the length."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """What stands in a slot, and the probability with which it does, given the slots above."""

    item: str
    propensity: float
    explored: bool


class Ranked(msgspec.Struct, frozen=True):
    """A ranked list, the best slot first; outcomes name its `decision_id`."""

    decision_id: str
    generation: int
    arm: str
    items: list[RankedItem]


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event: on disk, or refused with the reason; a `duplicate` was there before under its id."""

    accepted: bool
    duplicate: bool
    error: Why | None = None


class Results(msgspec.Struct, frozen=True):
    """What became of each event, in the order they were sent."""

    results: list[Result]


class Predictions(msgspec.Struct, frozen=True):
    """The champion's score of each row, in the order they were sent."""

    predictions: list[float]


_encode = msgspec.json.Encoder().encode
_NEW, _KNOWN = Result(accepted=True, duplicate=False), Result(accepted=True, duplicate=True)


def refused(refusal: Refusal) -> Answer:
    """A refusal as an answer."""
    headers = tuple((name.encode(), value.encode()) for name, value in refusal.headers.items())
    return Answer(refusal.status, _encode(Refused(refusal.told())), (_JSON, *headers))


class Answers:
    """The routes that read a body."""

    def __init__(self, config: Config, serving: Serving, writing: Writing, intake: Intake, numbers: Numbers) -> None:
        self.wire, self.invoked = Wire(config), Invoked(config)
        self._serving, self._writing, self._intake, self._numbers = serving, writing, intake, numbers

    async def rank(self, body: bytes) -> Answer:
        """`POST /v1/rank`: answered once the decision is on disk."""
        await self._intake.turn("rank")
        began = time.perf_counter()
        request, now = self.wire.request(body), self._serving.clock()
        decision = self._serving.served.ranker.rank(request, decision_id=self._serving.new_id(now), now=now)
        self._intake.took("rank", time.perf_counter() - began)
        await self._writing.write(decisions=(decision,))
        self._numbers.decided(decision)
        shown = [RankedItem(s.item, s.propensity, s.explored) for s in decision.shown]
        ranked = Ranked(decision.id, decision.generation, decision.arm, shown)
        headers = (b"x-decision-id", decision.id.encode()), (b"x-model-version", b"%d" % decision.generation)
        return Answer(200, _encode(ranked), (_JSON, *headers))

    async def invocations(self, body: bytes) -> Answer:
        """`POST /invocations`, as MLflow's scoring server has it; nothing is logged."""
        await self._intake.turn("scores")
        ranker = self._serving.served.ranker
        rows, groups = self.invoked.requests(body)
        found = [0.0] * rows
        for turn, (places, request) in enumerate(groups):
            if turn:
                await self._intake.wait("scores")
            began = time.perf_counter()
            for place, score in zip(places, ranker.scores(request), strict=True):
                found[place] = float(score)
            self._intake.took("scores", time.perf_counter() - began)
        return Answer(200, _encode(Predictions(found)))

    async def outcomes(self, body: bytes) -> Answer:
        """`POST /v1/outcomes`: one or a list; good ones are on disk, whatever the others are."""
        return await self._take(body, "outcome")

    async def events(self, body: bytes) -> Answer:
        """`POST /v1/events`: ready rows, one or a list."""
        return await self._take(body, "row")

    async def _take(self, body: bytes, kind: Kind) -> Answer:
        await self._intake.turn("event", min(CHUNK, 1 + len(body) // EVENT_BYTES))
        many, items = self.wire.items(body)
        results: list[Result | Refusal] = []
        for start in range(0, len(items), CHUNK):
            if start:
                await self._intake.wait("event", CHUNK)
            results += await self._part(items[start : start + CHUNK], kind)
        if not many:
            if isinstance(results[0], Refusal):
                raise results[0]
            return Answer(200, _encode(results[0]))
        told = [_told(r, i) if isinstance(r, Refusal) else r for i, r in enumerate(results)]
        good = sum(result.accepted for result in told)
        return Answer(200 if good == len(told) else 207 if good else 422, _encode(Results(told)))

    async def _part(self, items: list[Any], kind: Kind) -> list[Result | Refusal]:
        """Read a part of what was sent and put the good ones on disk."""
        began, now = time.perf_counter(), self._serving.clock()
        read = self.wire.outcome if kind == "outcome" else self.wire.row
        found = [_or_refusal(read, item, now) for item in items]
        self._intake.took("event", time.perf_counter() - began, len(items))
        fates = iter(await self._written([one for one in found if not isinstance(one, Refusal)], kind))
        results = [one if isinstance(one, Refusal) else next(fates) for one in found]
        for fate, count in Counter("refused" if isinstance(r, Refusal) else r for r in results).items():
            self._numbers.taken(kind, fate, count)
        return [r if isinstance(r, Refusal) else _NEW if r == "accepted" else _KNOWN for r in results]

    async def _written(self, events: list[Any], kind: Kind) -> Sequence[str]:
        if not events:
            return ()
        if kind == "outcome":
            return (await self._writing.write(outcomes=events)).outcomes
        return (await self._writing.write(rows=events)).rows


def _or_refusal(read: Callable[[Any, int], Any], item: Any, now: int) -> Any:
    try:
        return read(item, now)
    except Refusal as refusal:
        return refusal


def _told(refusal: Refusal, index: int) -> Result:
    """A refusal within a list: its pointer begins with its place there."""
    why = msgspec.structs.replace(refusal.told(), where=f"/{index}{refusal.where}")
    return Result(accepted=False, duplicate=False, error=why)
