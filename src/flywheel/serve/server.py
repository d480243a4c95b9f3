"""The server: the door on a socket, in one process and one event loop, until it is told to stop."""

import asyncio
import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import uvicorn

from flywheel.config import Config
from flywheel.errors import ConfigError
from flywheel.serve.access import Access, Tokens, check_binding
from flywheel.serve.answers import Answers
from flywheel.serve.door import Door, Route
from flywheel.serve.intake import Intake
from flywheel.serve.numbers import Numbers
from flywheel.serve.openapi import document
from flywheel.serve.pages import Pages
from flywheel.serve.serving import Accepts, Serving
from flywheel.serve.sockets import IDLE_SECONDS, Connection, sweep
from flywheel.serve.writing import Writing

RANK_BYTES, INGEST_BYTES = 2**20, 2**24
GRACE = 10  # s for what is in flight, once the door is closed
NOTICE = 1.0  # s between saying "not ready" and closing the door


def nothing() -> bytes:
    """What there is to show where nobody makes reports."""
    return b""


def app(
    config: Config,
    serving: Serving,
    inbox: Accepts,
    tokens: Tokens | None = None,
    report: Callable[[], bytes] = nothing,
) -> Door:
    """The door as an ASGI application; `report` gives the page at `/`, empty before there is one."""
    writing, intake = Writing(inbox), Intake()
    numbers = Numbers(_gauges(serving, inbox, intake))
    answers = Answers(config, serving, writing, intake, numbers)
    version = metadata.version("flywheel")
    pages = Pages(serving, numbers, document(config, answers.wire, version), version, report)
    routes = [
        Route("POST", "/v1/rank", answers.rank, "rank", RANK_BYTES),
        Route("POST", "/v1/outcomes", answers.outcomes, "ingest", INGEST_BYTES),
        Route("POST", "/v1/events", answers.events, "ingest", INGEST_BYTES),
        Route("POST", "/invocations", answers.invocations, "rank", RANK_BYTES),
        Route("GET", "/", pages.front, "rank"),
        Route("GET", "/v1/model", pages.model, "rank"),
        Route("GET", "/metrics", pages.metrics, "rank"),
        Route("GET", "/healthz", pages.alive),
        Route("GET", "/readyz", pages.ready),
        Route("GET", "/ping", pages.ping),
        Route("GET", "/version", pages.version),
        Route("GET", "/openapi.json", pages.openapi),
    ]
    return Door(routes, Access(tokens or Tokens()), numbers)


def _gauges(serving: Serving, inbox: Accepts, intake: Intake) -> dict[tuple[str, str], Callable[[], float]]:
    return {
        ("flywheel_generation", "What serves; 0 is the baseline"): lambda: serving.served.told.generation,
        ("flywheel_canary", "What a share of people meets first; 0 is nothing"): lambda: serving.served.told.canary,
        ("flywheel_staleness_seconds", "Since the registry was last heard of"): serving.staleness,
        ("flywheel_queue_depth", "Events that wait for the disk"): lambda: inbox.waiting,
        ("flywheel_shed_total", "Requests sent away because the line was long"): lambda: intake.shed,
        ("flywheel_reloads_total", "Generations and states taken up"): lambda: serving.reloads["ok"],
        ("flywheel_reloads_failed_total", "Those that could not be"): lambda: serving.reloads["failed"],
    }


def serve(
    config: Config,
    serving: Serving,
    inbox: Accepts,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: Tokens | None = None,
    ready: Callable[[str], None] | None = None,
    report: Callable[[], bytes] = nothing,
) -> None:
    """Answer on `host:port` until SIGTERM or Ctrl-C; what was acknowledged is on disk, and the inbox is closed.

    Port 0 picks a free one; `ready` is told the URL as soon as it answers.

    Raises:
        ConfigError: the port is taken, or other machines would be answered to without tokens.
    """
    server = _Server(app(config, serving, inbox, tokens, report), serving, inbox, ready)
    listener = _bind(host, port, tokens)
    gc.collect()
    gc.freeze()  # what is there now stays: to look through it again takes 0.1 s, and everybody waits
    server.run(sockets=[listener])


@contextmanager
def running(
    config: Config,
    serving: Serving,
    inbox: Accepts,
    tokens: Tokens | None = None,
    report: Callable[[], bytes] = nothing,
) -> Iterator[str]:
    """Answer on a free port of this machine from a thread of this process, and stop at the end; gives the URL."""
    up, urls = threading.Event(), []

    def ready(url: str) -> None:
        urls.append(url)
        up.set()

    server = _Server(app(config, serving, inbox, tokens, report), serving, inbox, ready)
    sockets = [_bind("127.0.0.1", 0, tokens)]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, name="door")
    thread.start()
    up.wait()
    try:
        yield urls[0]
    finally:
        server.stop(notice=0)
        thread.join()


def _bind(host: str, port: int, tokens: Tokens | None) -> socket.socket:
    check_binding(host, tokens or Tokens())
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        what = f"{host}:{port} cannot be answered on"
        raise ConfigError(what, why=str(error), next="flywheel serve --port N with a free one") from None


class _Server(uvicorn.Server):
    """uvicorn with an end to slow connections, and a drain that first says it is not ready."""

    def __init__(
        self, door: Door, serving: Serving, inbox: Accepts, ready: Callable[[str], None] | None = None
    ) -> None:
        settings = uvicorn.Config(
            door,
            loop="auto",  # uvloop, where there is one
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE,
        )
        super().__init__(settings)
        self._serving, self._inbox, self._ready = serving, inbox, ready
        self._stop_at = float("inf")

    def stop(self, *, notice: float = NOTICE) -> None:
        """Say "not ready" at once, and close the door after `notice` seconds. Any thread may call."""
        self._serving.draining = True
        self._stop_at = min(self._stop_at, time.monotonic() + notice)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the URL."""
        await super().startup(sockets)
        if self._ready and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to go, and once a second: who is overdue."""
        if counter % 10 == 0:
            sweep(self.server_state.connections, asyncio.get_running_loop().time())
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let what is in flight end, and write what is queued."""
        await super().shutdown(sockets)
        await asyncio.to_thread(self._inbox.close)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as a wish to stop; a second one stops without notice."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)

    def _signalled(self, *_: Any) -> None:
        self.stop(notice=0 if self._serving.draining else NOTICE)
