"""The server: the door on a socket, in one process and one event loop, until it is told to drain."""

import socket
from collections.abc import Callable

import uvicorn

from flywheel.config import Config
from flywheel.serve.answers import Answer, Answers
from flywheel.serve.door import Door, Route
from flywheel.serve.serving import Accepts, Clock, Serving, time_ordered_id
from flywheel.serve.wire import Wire
from flywheel.serve.writing import Writing

RANK_BYTES, INGEST_BYTES = 2**20, 2**24


def app(
    config: Config, serving: Serving, inbox: Accepts, *, clock: Clock, ids: Callable[[int], str] = time_ordered_id
) -> Door:
    """The door itself, an ASGI application."""
    answers = Answers(serving, Writing(inbox), Wire(config), clock, ids)

    async def alive(_: bytes) -> Answer:
        return Answer(200, b'{"alive":true}')

    return Door(
        [
            Route("POST", "/v1/rank", answers.rank, RANK_BYTES),
            Route("POST", "/v1/outcomes", answers.outcomes, INGEST_BYTES),
            Route("POST", "/v1/events", answers.events, INGEST_BYTES),
            Route("GET", "/healthz", alive),
        ]
    )


def serve(door: Door, *, host: str = "127.0.0.1", port: int = 8000, ready: Callable[[str], None] | None = None) -> None:
    """Answer on `host:port` until SIGTERM; port 0 picks a free one, and `ready` is told the URL."""
    listener = socket.create_server((host, port))
    settings = uvicorn.Config(
        door,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    if ready:
        ready(f"http://{host}:{listener.getsockname()[1]}")
    uvicorn.Server(settings).run(sockets=[listener])
