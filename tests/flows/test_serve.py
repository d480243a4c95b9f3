"""`flywheel serve` as a process: it follows the registry, keeps the last good champion, and ends with its publisher."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import deciding, inspect, moving
from flywheel.integrations import mlflow_registry
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.shell import Shell
from tests.flows.world import copy, told_well

ROOT = Path(__file__).resolve().parents[2]
ASK = {"user": "u000001", "candidates": ["i0001", {"item": "i0002", "genres": ["Drama"]}], "context": {"hour": 20}}

STARTED = 60  # seconds in which a publisher on a busy machine has imported MLflow


def ask(address: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """What an address answers, by a connection of its own: its status, and its body as a value."""
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        given = None if body is None else json.dumps(body)
        connection.request(method, path, given, {"content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    return answer.status, json.loads(said) if said[:1] in b"{[" else said.decode()


class Served:
    """A server on its way, and what it answers."""

    def __init__(self, ws: Workspace, *flywheel: str) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        flywheel = flywheel or ("-m", "flows.cli")
        command = [sys.executable, "-u", *flywheel, "-C", str(ws.root), "serve", "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ws.root
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("answering on http://127.0.0.1:"), line + self.process.communicate()[1]
        self.address = line.split()[2].removeprefix("http://").rstrip(";")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return ask(self.address, method, path, body)

    def model(self) -> dict[str, Any]:
        status, said = self.ask("GET", "/v1/model")
        assert status == 200
        return dict(said)

    def counted(self, name: str) -> float:
        lines = self.ask("GET", "/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    @property
    def publisher(self) -> psutil.Process | None:
        return next(iter(psutil.Process(self.process.pid).children()), None)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(20)


def until(true: Callable[[], bool], seconds: float = 10) -> float:
    """Wait; how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "not in time"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture
def ws(lived_weeks: live.Lived, tmp_path: Path) -> Workspace:
    return copy(lived_weeks.ws.root, tmp_path / "live")


@contextmanager
def serving_of(ws: Workspace) -> Iterator[Callable[[], Served]]:
    """What starts a server of a workspace; none outlives it."""
    started: list[Served] = []

    def start() -> Served:
        started.append(Served(ws))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


@pytest.fixture
def serve(ws: Workspace) -> Iterator[Callable[[], Served]]:
    with serving_of(ws) as start:
        yield start


@pytest.mark.slow
def test_a_new_champion_serves_within_ten_seconds_and_no_request_fails(
    ws: Workspace, serve: Callable[[], Served]
) -> None:
    champion = inspect.status(ws).champion
    other = next(g.generation for g in inspect.generations(ws) if g.generation != champion)
    served = serve()
    until(lambda: served.model()["generation"] == champion, STARTED)
    assert served.ask("GET", "/readyz")[0] == 200
    stop, answers = threading.Event(), []

    def hammer() -> None:
        while not stop.is_set():
            answers.append(served.ask("POST", "/v1/rank", ASK))

    thread = threading.Thread(target=hammer)
    thread.start()
    moving.move_by_hand(ws, other, why="to see it served", dry_run=False)
    took = until(lambda: served.model()["generation"] == other)
    until(lambda: answers[-1][1]["generation"] in (other, 0), 2)
    stop.set()
    thread.join()
    assert took <= 10
    assert {status for status, _ in answers} == {200}
    assert {said["generation"] for _, said in answers if said["arm"] == "wheel"} == {champion, other}

    number = mlflow_registry.state(store := deciding.open_store(ws)).champion
    model = store.local(store.client.get_model_version_download_uri(store.product, str(champion))) / "model.ubj"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    mlflow_registry.point(store, "champion", champion)  # broken, and pointed at all the same
    until(lambda: served.counted("flywheel_reloads_failed_total") > 0)
    assert served.model()["generation"] == number
    assert served.ask("POST", "/v1/rank", ASK)[0] == 200

    mlflow_registry.point(store, "champion", number)
    publisher = served.publisher
    assert publisher is not None
    publisher.kill()
    until(lambda: served.publisher not in (None, publisher))
    assert served.end() == 0
    until(lambda: not psutil.pid_exists(publisher.pid), 5)


@pytest.mark.slow
def test_without_a_registry_the_last_snapshot_serves_and_the_publisher_ends_with_the_server(
    ws: Workspace, serve: Callable[[], Served]
) -> None:
    champion = inspect.status(ws).champion
    first = serve()
    until(lambda: first.model()["generation"] == champion, STARTED)
    publisher = first.publisher
    assert publisher is not None
    first.end(signal.SIGKILL)
    until(lambda: not publisher.is_running() or publisher.status() == psutil.STATUS_ZOMBIE, 10)

    (ws.root / "mlruns" / "mlflow.db").rename(ws.root / "mlruns" / "away.db")
    served = serve()
    assert served.model()["generation"] == champion
    assert served.ask("POST", "/v1/rank", ASK)[0] == 200
    until(lambda: served.counted("flywheel_reloads_failed_total") > 0, STARTED)
    assert served.model()["generation"] == champion
    assert served.model()["staleness_seconds"] > 0
    assert served.end() == 0


@pytest.mark.slow
def test_what_serving_is_refused_with(ws: Workspace, shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, said in [
            (("--port", port), f"127.0.0.1:{port} cannot be answered on"),
            (("--host", "0.0.0.0"), "0.0.0.0 is open to other machines"),
        ]:
            done = shell.run(ws.root, "serve", *options)
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith(f"flywheel: {said}")
            told_well(done.err)


@pytest.mark.slow
def test_a_workspace_without_serve_answers_nobody(fresh: Workspace, shell: Shell) -> None:
    done = shell.run(fresh.root, "serve")
    assert done.code == 2
    assert done.err.startswith("flywheel: this workspace answers nobody")
    told_well(done.err)
