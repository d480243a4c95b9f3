"""What each route answers: bytes of a body in, an answer out, a refusal raised."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flywheel.serve.refusals import Refusal, Refused, Why
from flywheel.serve.serving import Clock, Serving
from flywheel.serve.wire import Wire
from flywheel.serve.writing import Writing

CHUNK = 256  # items read in one go; then the loop turns to whoever else waits
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body, and its headers but for the length."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One item of an answer, with the probability with which it stands in this slot, given the slots above it."""

    item: str
    propensity: float
    explored: bool


class Ranked(msgspec.Struct, frozen=True):
    """A ranked list, the best slot first; outcomes name its `decision_id`."""

    decision_id: str
    generation: int
    arm: str
    items: list[Slot]


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one item: on disk, there before under the same event id, or refused with the reason."""

    accepted: bool
    duplicate: bool
    error: Why | None = None


class Results(msgspec.Struct, frozen=True):
    """What became of each item, in the order they were sent."""

    results: list[Result]


_encode = msgspec.json.Encoder().encode
_NEW, _KNOWN = Result(accepted=True, duplicate=False), Result(accepted=True, duplicate=True)


def refused(refusal: Refusal) -> Answer:
    """A refusal as an answer."""
    headers = tuple((name.encode(), value.encode()) for name, value in refusal.headers.items())
    return Answer(refusal.status, _encode(Refused(refusal.told())), (_JSON, *headers))


class Answers:
    """The routes that read a body."""

    def __init__(self, serving: Serving, writing: Writing, wire: Wire, clock: Clock, ids: Callable[[int], str]) -> None:
        self._serving, self._writing, self._wire, self._clock, self._ids = serving, writing, wire, clock, ids

    async def rank(self, body: bytes) -> Answer:
        """`POST /v1/rank`: answered once the decision is on disk."""
        request = self._wire.request(body)
        now = self._clock()
        decision = self._serving.served.ranker.rank(request, decision_id=self._ids(now), now=now)
        await self._writing.write(decisions=(decision,))
        shown = [Slot(s.item, s.propensity, s.explored) for s in decision.shown]
        ranked = Ranked(decision.id, decision.generation, decision.arm, shown)
        headers = (b"x-decision-id", decision.id.encode()), (b"x-model-version", b"%d" % decision.generation)
        return Answer(200, _encode(ranked), (_JSON, *headers))

    async def outcomes(self, body: bytes) -> Answer:
        """`POST /v1/outcomes`: one or a list; good ones are on disk, whatever the others are."""
        return await self._taken(body, self._wire.outcome, lambda found: self._writing.write(outcomes=found))

    async def events(self, body: bytes) -> Answer:
        """`POST /v1/events`: ready rows, one or a list."""
        return await self._taken(body, self._wire.row, lambda found: self._writing.write(rows=found))

    async def _taken(
        self,
        body: bytes,
        read: Callable[[Any, int], Any],
        write: Callable[[list[Any]], Awaitable[Sequence[bool]]],
    ) -> Answer:
        many, items = self._wire.items(body)
        if not many:
            known = await write([read(body, self._clock())])
            return Answer(200, _encode(_KNOWN if known[0] else _NEW))
        results: list[Result] = []
        for start in range(0, len(items), CHUNK):
            results += await self._chunk(items[start : start + CHUNK], start, read, write)
        return _summed(results)

    async def _chunk(
        self,
        items: list[Any],
        start: int,
        read: Callable[[Any, int], Any],
        write: Callable[[list[Any]], Awaitable[Sequence[bool]]],
    ) -> list[Result]:
        now = self._clock()
        good, results = [], []
        for index, item in enumerate(items, start):
            try:
                good.append(read(item, now))
                results.append(_NEW)
            except Refusal as refusal:
                why = msgspec.structs.replace(refusal.told(), where=f"/{index}{refusal.where}")
                results.append(Result(accepted=False, duplicate=False, error=why))
        if not good:
            await asyncio.sleep(0)
            return results
        known = iter(await write(good))
        return [_KNOWN if result is _NEW and next(known) else result for result in results]


def _summed(results: list[Result]) -> Answer:
    """200 if all are on disk, 207 if some, 422 if none."""
    good = sum(result.accepted for result in results)
    status = 200 if good == len(results) else 207 if good else 422
    return Answer(status, _encode(Results(results)))
