"""`flywheel up` as processes: all healthy, started again, caught up once, and nothing left behind."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import journal, parts, standing
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.shell import Shell
from tests.flows.world import told_well

ROOT = Path(__file__).resolve().parents[2]
BOOT = 240  # s on a machine that is busy with other things
FREE = ("--port", "0", "--prefect-port", "0", "--mlflow-port", "0")


class Up:
    """A supervisor on its way, and what it says."""

    def __init__(self, ws: Workspace, log: Path, **environment: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        kept |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | environment
        self.log = log
        command = [sys.executable, "-u", "-m", "flows.cli", "-C", str(ws.root), "up", *FREE]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=kept)
        self.wait_for(lambda: "all healthy" in self.said, BOOT)
        self.ports = {
            name: int(port) for name, port in re.findall(r"(\w+) +http://127\.0\.0\.1:(\d+)$", self.said, re.M)
        }

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, true: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.said[-6000:]
            assert self.process.poll() is None, self.said[-6000:]
            time.sleep(0.2)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def gone(family: list[psutil.Process], seconds: float = 60) -> bool:
    return not psutil.wait_procs(family, seconds)[1]


def get(port: int, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def make_late(ws: Workspace, hours: int) -> int:
    """Have the runs that Prefect scheduled ahead be so many hours past; how many collects."""
    back = f"-{hours} hours"
    with closing(sqlite3.connect(ws.cache / "prefect" / "prefect.db", timeout=30)) as database, database:
        for column in ("expected_start_time", "next_scheduled_start_time"):
            shifted = f"strftime('%Y-%m-%d %H:%M:%f000', {column}, ?)"
            database.execute(
                f"UPDATE flow_run SET {column} = {shifted} WHERE state_type = 'SCHEDULED' AND auto_scheduled", [back]
            )
        # A run does not begin before its state's own time either, whatever the run says.
        of = "SELECT state_id FROM flow_run WHERE state_type = 'SCHEDULED' AND auto_scheduled"
        at = "json_extract(state_details, '$.scheduled_time')"
        shifted = f"json_set(state_details, '$.scheduled_time', strftime('%Y-%m-%dT%H:%M:%SZ', {at}, ?))"
        database.execute(f"UPDATE flow_run_state SET state_details = {shifted} WHERE id IN ({of})", [back])
        waiting = "SELECT count(*) FROM flow_run JOIN flow ON flow.id = flow_id WHERE flow.name = 'collect'"
        (count,) = database.execute(f"{waiting} AND state_type = 'SCHEDULED' AND auto_scheduled").fetchone()
        return int(count)


def begun(ws: Workspace, command: str) -> int:
    return sum(line["step"] == "began" and line["command"] == command for line in journal.read(ws.cache))


@pytest.fixture
def ended() -> Iterator[list[Up]]:
    """Supervisors of a test; none outlives it."""
    started: list[Up] = []
    yield started
    for up in started:
        up.process.kill()
        up.process.wait()


@pytest.mark.slow
def test_the_life_of_a_wheel_that_turns_by_itself(tmp_path: Path, shell: Shell, ended: list[Up]) -> None:
    """In one, for a start takes half a minute."""
    ws = live.build(tmp_path / "live")
    schedule = {
        "FLYWHEEL_SCHEDULE__COLLECT": "1h",
        "FLYWHEEL_SCHEDULE__TURN": "never",
        "FLYWHEEL_SCHEDULE__GROWTH": "0",
    }
    up = Up(ws, tmp_path / "first.log", **schedule)
    ended.append(up)
    assert set(up.ports) == {"on", "generation", "run"}
    assert get(up.ports["run"], "/api/health") is True
    assert get(up.ports["on"], "/v1/model")["generation"] == standing.status(ws).champion

    found = standing.status(ws)
    assert found.up is not None
    assert (found.up["pid"], set(found.up["parts"])) == (
        up.process.pid,
        {"prefect", "mlflow", "server", "deployments"},
    )
    assert all(part["healthy"] for part in found.up["parts"].values())
    second = shell.run(ws.root, "up", *FREE)
    assert second.code == 75
    assert f"process {up.process.pid} on" in second.err
    told_well(second.err)

    record = json.loads((ws.cache / "prefect" / "server.json").read_text())
    assert record["port"] == up.ports["run"]  # where commands record meanwhile
    assert (
        shell.run(
            ws.root, "turn", "--as-of", "2026-02-17", env={"PREFECT_API_URL": f"http://127.0.0.1:{record['port']}/api"}
        ).code
        == 0
    )
    wanted = {"filter": {"event": {"prefix": ["flywheel."]}}, "limit": 50}
    up.wait_for(lambda: bool(get(record["port"], "/api/events/filter", wanted)["events"]), 30)
    events = get(record["port"], "/api/events/filter", wanted)["events"]
    assert {event["resource"]["prefect.resource.id"] for event in events} == {"flywheel.live"}
    assert "flywheel.closed" in {event["event"] for event in events}

    server = found.up["parts"]["server"]["pid"]
    os.killpg(server, signal.SIGKILL)
    up.wait_for(lambda: "server      ended with -9; it is started again in 1 s" in up.said, 20)
    up.wait_for(lambda: up.said.count("server      healthy after") == 2, BOOT)
    assert get(up.ports["on"], "/v1/model")["generation"] == found.champion

    deployments = f"{record['port']}", "/api/flow_runs/count"
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    up.wait_for(lambda: get(int(deployments[0]), deployments[1], scheduled) >= 3, 90)
    family = up.family()
    assert len(family) >= 6
    up.process.kill()
    up.process.wait()
    assert gone(family), [process for process in family if process.is_running()]
    assert standing.status(ws).up is None

    before = begun(ws, "collect")
    assert make_late(ws, 200) >= 3
    again = Up(ws, tmp_path / "second.log", **schedule)
    ended.append(again)
    again.wait_for(lambda: begun(ws, "collect") > before, BOOT)
    time.sleep(12)  # two polls of the runner
    assert begun(ws, "collect") == before + 1
    family = again.family()
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(120) == 0
    assert gone(family, 5)
    stopped = re.findall(r"(\w+) +stopped$", again.said, re.M)
    assert stopped == ["deployments", "server", "mlflow", "prefect"]
    assert (ws.cache / "up.log").read_text().count("all healthy") == 2
    assert not (ws.cache / standing.UP).exists()


def test_a_port_that_is_taken_is_said_with_what_to_do(turned: Workspace, shell: Shell) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shell.run(turned.root, "up", "--mlflow-port", port, "--prefect-port", "0")
    assert done.code == 2
    assert f"port {port} on 127.0.0.1, for mlflow, cannot be used" in done.err
    assert "next:  flywheel up --mlflow-port 0" in done.err
    told_well(done.err)


def test_a_part_that_falls_is_started_again_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(parts, "pause", lambda falls: 0.05 * falls)
    part = parts.Part(
        parts.Spec("ill", [sys.executable, "-c", "print('%s of no use')"], lambda _: False),
        lambda name, line: said.append(line),
    )
    end = time.monotonic() + 30
    while part.restarts < 3 and time.monotonic() < end:
        part.look()
        time.sleep(0.02)
    part.end()
    assert said.count("%s of no use") >= 2
    assert sum(line.startswith("ended with 0; it is started again") for line in said) == 3


def test_a_part_that_does_not_answer_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PROBE", 0.05)
    monkeypatch.setattr(parts, "PATIENCE", 0.2)
    answers = iter([True, True])
    said: list[str] = []
    command = [sys.executable, "-m", "flows.leash", sys.executable, "-c", "import time; time.sleep(60)"]
    part = parts.Part(parts.Spec("dumb", command, lambda _: next(answers, False)), lambda name, line: said.append(line))
    end = time.monotonic() + 30
    while not part.restarts and time.monotonic() < end:
        part.look()
        time.sleep(0.02)
    assert said[-3].startswith("healthy after") or "healthy after 0 s" in said
    assert "does not answer; it is started again in 1 s" in said
    part.end()
    assert psutil.Process().children(recursive=True) == [] or part.pid is None


def test_what_a_part_left_behind_may_end_by_itself(tmp_path: Path) -> None:
    """A turn that is under way as its runner is told to stop: it is asked, and has time to let go of what it holds."""
    mark = tmp_path / "unwound"
    ends = f"time.sleep(1), pathlib.Path({str(mark)!r}).touch(), exit()"
    turn = f"import pathlib, signal, time\nsignal.signal(15, lambda *_: ({ends}))\n"
    turn += "print('under way', flush=True)\ntime.sleep(60)"
    runner = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {turn!r}]); time.sleep(60)"
    said: list[str] = []
    command = [sys.executable, "-m", "flows.leash", sys.executable, "-c", runner]
    part = parts.Part(parts.Spec("runner", command, lambda _: True), lambda name, line: said.append(line))
    part.look()
    end = time.monotonic() + 60
    while "under way" not in said and time.monotonic() < end:
        time.sleep(0.05)
    part.end()
    assert mark.exists(), said


def test_the_log_has_a_line_a_thing_and_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST", 1000)
    heard: list[str] = []
    with parts.log_to(tmp_path / "up.log", heard.append) as log:
        for number in range(100):
            log("prefect", f"100 % of {number}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d prefect     100 % of 99", heard[-1])
    assert (tmp_path / "up.log").read_text().splitlines()[-1] == heard[-1]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2500
