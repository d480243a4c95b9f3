"""A small product behind a real door: a real ranker, a real inbox on SQLite, real sockets."""

import http.client
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from flywheel import config
from flywheel.config import Config
from flywheel.learn import baseline
from flywheel.learn.features import Spec
from flywheel.schema import NOTHING
from flywheel.serve.access import Tokens
from flywheel.serve.ranker import Ranker
from flywheel.serve.server import running, serve
from flywheel.serve.serving import Serving, Told
from flywheel.serve.snapshot import Snapshot
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox

NOW = 1_767_225_600_000_000  # 2026-01-01
COUNTERS = [{"key": ["user"]}, {"key": ["item"]}]


def settings(**contract: Any) -> Config:
    named = {
        "timestamp": "at",
        "label": "clicked",
        "user": "who",
        "item": "what",
        "request": "request",
        "event_id": "event",
        "label_time": "clicked_at",
        "position": "slot",
        "propensity": "chance",
        "numeric": ["hour"],
        "categorical": ["device"],
        "lists": {"genres": "|"},
    }
    return config.parse(
        {
            "product": {"name": "shop"},
            "contract": named | contract,
            "windows": {"every": "1h", "attribution": "1h", "silence": 0},
            "features": {"counters": COUNTERS},
            "serve": {"max_candidates": 200},
        }
    )


CONFIG = settings()


def ranker(made: Config = CONFIG, generation: int = 0) -> Ranker:
    """The baseline, or one that is served as some generation: it knows nobody yet."""
    spec = Spec(made)
    snapshot = Snapshot(
        generation=generation,
        recipe="recipe",
        config=made,
        state=NOTHING,
        counters={},
        vocabularies={},
        names=spec.names,
        types=spec.types,
        sizes={},
        model=None,
        custom="",
        golden=np.empty((0, len(spec.names)), np.float32),
        golden_scores=np.empty(0),
    )
    assert made.serve
    score = (lambda rows: np.linspace(0.9, 0.1, len(rows))) if generation else None
    return Ranker(snapshot, score, lambda rows: baseline.scores(rows, spec.names), made.serve)


def told(generation: int = 0) -> Told:
    return Told(generation, {"wheel": 0.95, "holdback": 0.05}, None, None, "recipe", now())


def now() -> int:
    return time.time_ns() // 1000


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str]:
        """What was wrong: every answer that is not a 2xx says so in the same form."""
        assert self.status >= 400
        assert set(self.json["error"]) <= {"what", "why", "next", "where"}
        assert self.json["error"]["what"]
        return dict(self.json["error"])


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str, token: str = "") -> None:
        self.at = url.removeprefix("http://")
        self.token = token
        self.connection = http.client.HTTPConnection(self.at, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Ask; anything but bytes and text is sent as JSON. An underscore in a header's name is a dash."""
        sent = body if isinstance(body, bytes | str | None) else json.dumps(body)
        given = {} if body is None else {"content-type": "application/json"}
        given |= {"authorization": f"Bearer {self.token}"} if self.token else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, sent, given)
        answer = self.connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def rank(self, **asked: Any) -> Reply:
        return self("POST", "/v1/rank", {"user": "u", "candidates": ["a", "b", "c"]} | asked)

    def outcomes(self, sent: Any) -> Reply:
        return self("POST", "/v1/outcomes", sent)

    def close(self) -> None:
        self.connection.close()


def outcome(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    return {"event_id": event_id, "decision_id": "d1", "item": "a", "value": 1} | changes


@dataclass
class Shop:
    """A running server, a client of it, and the folder of its inbox."""

    url: str
    client: Client
    serving: Serving
    folder: Path

    def stored(self, table: str) -> list[Any]:
        return stored(self.folder, table)


def stored(folder: Path, table: str) -> list[Any]:
    """The rows of a table of the inbox, in the order in which they came."""
    inbox = Inbox.open(None, folder)
    with inbox.engine.connect() as connection:
        rows = connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY seq")).mappings().all()
    inbox.close()
    return list(rows)


@contextmanager
def shop(folder: Path, tokens: Tokens | None = None, made: Config = CONFIG, limit: int = 10_000) -> Iterator[Shop]:
    """A server in a thread of this process."""
    serving = Serving(ranker(made), told(), clock=now)
    inbox = Inbox.open(None, folder)
    with running(made, serving, GroupCommit(inbox, limit), tokens) as url, closing(Client(url)) as client:
        yield Shop(url, client, serving, folder)
    inbox.close()


class Process:
    """A server in a process of its own, forked from one that has its libraries loaded."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        receive, send = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(str(folder), send), daemon=True)
        self.process.start()
        self.url = str(receive.recv())

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        self.process.join(20)
        return self.process.exitcode


def _serve(folder: str, send: Any) -> None:
    inbox = Inbox.open(None, Path(folder))
    serve(CONFIG, Serving(ranker(), told(), clock=now), GroupCommit(inbox), port=0, ready=send.send)
    inbox.close()
