"""What a person or a monitor looks at: whether the door is alive and ready, what serves, and the numbers."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from flywheel.serve.answers import Answer
from flywheel.serve.numbers import TEXT, Numbers
from flywheel.serve.refusals import Refusal
from flywheel.serve.serving import Serving

HTML = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"cache-control", b"no-store"),
)
NO_REPORT = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>No page yet</title>
<body style="font: 17px/1.6 sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem">
<h1>There is no page yet</h1>
<p><code>flywheel report</code> makes the one that says whether the wheel turns; each turn renews it.</p></body></html>
"""


class State(msgspec.Struct, frozen=True):
    """What features are looked up as of: a closed window, and how long ago it was over."""

    window: str
    age_seconds: float


class Model(msgspec.Struct, frozen=True):
    """What serves; generation 0 is the baseline. Without a state nothing is known of anybody yet.

    `canary` is the generation that a share of people meets first, while there is one.
    """

    generation: int
    canary: int | None
    arms: dict[str, float]
    state: State | None
    recipe: str
    loaded: str
    staleness_seconds: float


class Pages:
    """The routes that read nothing."""

    def __init__(
        self, serving: Serving, numbers: Numbers, document: bytes, version: str, report: Callable[[], bytes]
    ) -> None:
        self._serving, self._numbers, self._report = serving, numbers, report
        self._document, self._version = document, version

    async def front(self, _: bytes) -> Answer:
        """`GET /`: the newest report, or how to make one."""
        return Answer(200, await asyncio.to_thread(self._report) or NO_REPORT, HTML)

    async def alive(self, _: bytes) -> Answer:
        """`GET /healthz`: the loop turns."""
        return Answer(200, b'{"alive":true}')

    async def ready(self, _: bytes) -> Answer:
        """`GET /readyz`: send people here. A baseline is enough; a server that drains is not."""
        if self._serving.draining:
            raise Refusal(503, "draining", why="this server was told to stop", next="ask another one")
        return Answer(200, b'{"ready":true}')

    async def model(self, _: bytes) -> Answer:
        """`GET /v1/model`."""
        now, told = self._serving.clock(), self._serving.served.told
        state = None
        if told.state is not None and told.closed is not None:
            state = State(told.state, (now - told.closed) / 1e6)
        model = Model(
            generation=told.generation,
            canary=told.canary or None,
            arms=dict(told.shares),
            state=state,
            recipe=told.recipe,
            loaded=datetime.fromtimestamp(told.loaded / 1e6, UTC).isoformat(),
            staleness_seconds=self._serving.staleness(),
        )
        return Answer(200, msgspec.json.encode(model))

    async def metrics(self, _: bytes) -> Answer:
        """`GET /metrics`."""
        return Answer(200, self._numbers.page(), ((b"content-type", TEXT),))

    async def ping(self, _: bytes) -> Answer:
        """`GET /ping`, as MLflow's scoring server has it."""
        return Answer(200, b"\n")

    async def version(self, _: bytes) -> Answer:
        """`GET /version`, as MLflow's scoring server has it, and of Flywheel."""
        return Answer(200, self._version.encode(), ((b"content-type", b"text/plain; charset=utf-8"),))

    async def openapi(self, _: bytes) -> Answer:
        """`GET /openapi.json`."""
        return Answer(200, self._document)
