"""What a person or a monitor looks at: whether the door is alive and ready, what serves, and the numbers."""

from datetime import UTC, datetime

import msgspec

from flywheel.serve.answers import Answer
from flywheel.serve.numbers import TEXT, Numbers
from flywheel.serve.refusals import Refusal
from flywheel.serve.serving import Serving


class State(msgspec.Struct, frozen=True):
    """What features are looked up as of: a closed window, and how long ago it was over."""

    window: str
    age_seconds: float


class Model(msgspec.Struct, frozen=True):
    """What serves; generation 0 is the baseline. Without a state nothing is known of anybody yet."""

    generation: int
    arms: dict[str, float]
    state: State | None
    recipe: str
    loaded: str
    staleness_seconds: float


class Pages:
    """The routes that read nothing."""

    def __init__(self, serving: Serving, numbers: Numbers, document: bytes, version: str) -> None:
        self._serving, self._numbers = serving, numbers
        self._document, self._version = document, version

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
