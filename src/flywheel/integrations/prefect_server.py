"""The Prefect API of one workspace as a process of its own; `prefect_process` starts it and holds its input.

Arguments: home, port (0: any free one), kind (`history` records runs and nothing else, `ui` is all of
Prefect's server); Prefect's settings are in the environment. It listens on loopback, writes its port to
standard output once it answers, and ends when its standard input does: the kernel closes that pipe however
the parent dies, kill -9 included.
"""

import gc
import os
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from filelock import FileLock
from prefect.server.api.server import create_app
from prefect.server.database.orm_models import Base
from prefect.server.utilities.messaging.memory import METRICS
from starlette.middleware.trustedhost import TrustedHostMiddleware

SETTLE_SECONDS = 5.0
LAST_RESORT_SECONDS = 8.0


class _Server(uvicorn.Server):
    """Migrates alone, tells when it answers, and ends when nobody holds its standard input any more."""

    def __init__(self, config: uvicorn.Config, *, lock: FileLock, port: int, told: int) -> None:
        super().__init__(config)
        self._lock, self._port, self._told = lock, port, told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        with self._lock:  # two processes that migrate one fresh database at once break each other
            await super().startup(sockets)
        if self.started:
            gc.freeze()
            gc.enable()
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            os.write(self._told, f"{self._port}\n".encode())
            os.close(self._told)

    def _end_with_parent(self) -> None:
        while os.read(0, 1):
            pass
        _settle()
        self.should_exit = True
        time.sleep(LAST_RESORT_SECONDS)
        os._exit(1)


def main() -> None:
    """Serve until standard input ends; exit 1 where the server cannot start."""
    home, port, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    told = os.dup(1)
    os.dup2(2, 1)  # what libraries print belongs into the log, not into the parent's pipe
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(_app(kind), log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    lock = FileLock(home / "migrate.lock")
    server = _Server(config, lock=lock, port=listener.getsockname()[1], told=told)
    server.run(sockets=[listener])
    raise SystemExit(0 if server.started else 1)


def _app(kind: str) -> FastAPI:
    _allow_schedules()
    app = create_app(ephemeral=kind == "history", final=True)
    # A page of another site whose name resolves to this machine must not read or start anything here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return app


def _allow_schedules() -> None:
    """Have what Prefect computes of a run be passed over where runs are inserted in bulk.

    From SQLAlchemy 2.1 on that is an error instead, and Prefect 3.8.8 never gets to insert a scheduled run.
    """
    for mapper in Base.registry.mappers:
        for computed in mapper.all_orm_descriptors.values():
            if getattr(computed, "bulk_dml_setter", ...) is None:
                vars(computed)["bulk_dml_setter"] = _pass_over


def _pass_over(_model: object, _mapping: object, _value: object) -> None:
    """Set nothing: there is no such column."""


def _settle() -> None:
    """Wait until the events that arrived are stored: Prefect's own shutdown drops those in flight."""
    end = time.monotonic() + SETTLE_SECONDS
    quiet = 0
    while quiet < 2 and time.monotonic() < end:
        events = METRICS["events"]
        quiet = quiet + 1 if events["consumed"] >= events["published"] else 0
        time.sleep(0.03)
