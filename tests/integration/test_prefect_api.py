"""Flows meet a Prefect API: real servers, real processes, a real SQLite history."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from flywheel.integrations import prefect_process

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TURN = """
import logging, sys
from pathlib import Path
from flywheel.integrations.prefect_api import boot, publish_table, ready
booting = boot(Path(sys.argv[1]))
from prefect import flow, task
@task
def collect(n):
    logging.getLogger("flywheel").info("collected %d", n)
    return n + 1
@task
def fit(n):
    if n > 100:
        raise ValueError("too many rows")
    return n * 2
@flow(flow_run_name="turn {n}")
def turn(n: int) -> int:
    publish_table("verdict", [{"verdict": "keep", "n": n}], "why")
    return fit(collect(n))
with ready(booting) as history:
    print(history.note or "recorded", turn(int(sys.argv[2])), booting.child is not None, flush=True)
"""
READ = """
import json, sys
from pathlib import Path
from flywheel.integrations.prefect_api import boot, ready
booting = boot(Path(sys.argv[1]))
from prefect.client.orchestration import get_client
with ready(booting), get_client(sync_client=True) as client:
    runs = {run.id: run for run in client.read_flow_runs()}
    history = {}
    for run in runs.values():
        history[run.name] = {"parameters": run.parameters, "state": run.state_name}
        history[run.name] |= {"tasks": [], "tables": [], "logs": []}
    for task in client.read_task_runs():
        history[runs[task.flow_run_id].name]["tasks"].append([task.task_key.split("-")[0], task.state_name])
    for artifact in client.read_artifacts():
        if artifact.type == "table":
            history[runs[artifact.flow_run_id].name]["tables"].append(json.loads(artifact.data))
    for log in client.read_logs():
        history[runs[log.flow_run_id].name]["logs"].append(log.message)
    print(json.dumps(history))
"""
HANG = """
import sys, time
from pathlib import Path
from flywheel.integrations.prefect_api import boot, ready
booting = boot(Path(sys.argv[1]))
with ready(booting) as history:
    print(booting.child.pid, history.url, flush=True)
    time.sleep(600)
"""
LOSE = """
import os, signal, sys
from pathlib import Path
from flywheel.errors import DataError
from flywheel.integrations.prefect_api import boot, publish_table, ready, recorded
booting = boot(Path(sys.argv[1]))
from prefect import flow
calls = []
@flow
def turn(n: int) -> int:
    calls.append(n)
    os.kill(booting.child.pid, signal.SIGKILL)
    booting.child.wait()
    publish_table("verdict", [{"verdict": "keep", "n": n}], "why")
    if n > 100:
        raise DataError("too many rows")
    return n * 2
with ready(booting):
    try:
        print(recorded(turn, int(sys.argv[2])), calls)
    except DataError as error:
        print(error.what, calls)
"""
SERVE = """
import sys
from pathlib import Path
from flywheel.integrations.prefect_api import serve_ui
serve_ui(Path(sys.argv[1]), int(sys.argv[2]), lambda address: print(address, flush=True))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")} | more


def start(program: str, *arguments: object, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )


def run(program: str, *arguments: object, **more: str) -> tuple[str, str]:
    """What a new process says on its two outputs; it must end well."""
    process = start(program, *arguments, **more)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out.strip(), err


def history_of(root: Path) -> dict[str, Any]:
    """What a new process reads through the API: by name of the run."""
    out, err = run(READ, root)
    assert err == ""
    read: dict[str, Any] = json.loads(out)
    return read


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.1)
    return not alive(pid)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which one turn was recorded by a process that has ended."""
    root = tmp_path_factory.mktemp("workspace")
    assert run(TURN, root, 3) == ("recorded 8 True", "")
    return root


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import sys; from flywheel.integrations import prefect_api\n"
        "heavy = {'prefect', 'httpx', 'pydantic', 'uvicorn', 'filelock'}\n"
        "print(*{module.partition('.')[0] for module in sys.modules} & heavy)"
    )
    assert run(program) == ("", "")


def test_a_later_process_finds_the_whole_history(workspace: Path) -> None:
    turn = history_of(workspace)["turn 3"]
    assert (turn["parameters"], turn["state"]) == ({"n": 3}, "Completed")
    assert sorted(turn["tasks"]) == [["collect", "Completed"], ["fit", "Completed"]]
    assert turn["tables"] == [[{"verdict": "keep", "n": 3}]]
    assert "collected 3" in turn["logs"]


def test_a_flow_that_fails_is_recorded_as_failed_and_still_raises(workspace: Path) -> None:
    process = start(TURN, workspace, 1000)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "ValueError: too many rows" in err
    turn = history_of(workspace)["turn 1000"]
    assert turn["state"] == "Failed"
    assert sorted(turn["tasks"]) == [["collect", "Completed"], ["fit", "Failed"]]


def test_kill_9_leaves_no_child_and_a_history_that_opens(workspace: Path) -> None:
    for kill_both in (True, False):
        process = start(HANG, workspace)
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[0])
        assert alive(child)
        if kill_both:
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()
        assert gone(child)
    assert history_of(workspace)["turn 3"]["state"] == "Completed"


def test_two_at_once_on_a_fresh_workspace_are_both_recorded(tmp_path: Path) -> None:
    both = [start(TURN, tmp_path, n) for n in (1, 2)]
    said = [process.communicate(timeout=180) for process in both]
    assert said == [("recorded 4 True\n", ""), ("recorded 6 True\n", "")]
    history = history_of(tmp_path)
    assert sorted(history) == ["turn 1", "turn 2"]
    assert [len(turn["tasks"]) for turn in history.values()] == [2, 2]


def test_a_child_opens_the_history_only_while_no_other_migrates_it(workspace: Path) -> None:
    home = prefect_process.home_of(workspace)
    child = prefect_process.start(home, 0, "history")
    with FileLock(home / "migrate.lock"):
        waited = prefect_process.port_of(child, 10)
    port = prefect_process.port_of(child, 60)
    prefect_process.end(child)
    assert waited is None
    assert port is not None


def test_an_api_that_does_not_answer_costs_the_history_and_not_the_turn(tmp_path: Path) -> None:
    out, err = run(TURN, tmp_path, 3, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert out.startswith("This run leaves no Prefect history; http://127.0.0.1:9/api does not answer: ")
    assert out.endswith(" 8 False")
    assert err == ""
    assert not (tmp_path / ".flywheel").exists()


def test_a_history_that_cannot_be_opened_costs_the_history_and_not_the_turn(tmp_path: Path) -> None:
    home = tmp_path / ".flywheel/prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").write_text("this is no database, and long enough to be sure of it\n" * 100)
    out, err = run(TURN, tmp_path, 3)
    assert out.startswith("This run leaves no Prefect history; its API did not start: ")
    assert "file is not a database" in out
    assert out.endswith(" 8 True")
    assert err == ""


def test_a_workspace_that_cannot_be_written_costs_the_history_and_not_the_turn(tmp_path: Path) -> None:
    (tmp_path / ".flywheel").write_text("in the way")
    out, err = run(TURN, tmp_path, 3, PREFECT_HOME=str(tmp_path / "elsewhere"))
    assert out.startswith("This run leaves no Prefect history; its API cannot be started: ")
    assert out.endswith(" 8 False")
    assert err == ""


@pytest.fixture(scope="module")
def pages(workspace: Path) -> Iterator[str]:
    process = start(SERVE, workspace, 4237)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert not (workspace / ".flywheel/prefect/server.json").exists()


def test_the_pages_are_served_without_the_network(pages: str) -> None:
    page = urllib.request.urlopen(f"{pages}/v2/").read().decode()
    assert "<title>" in page
    assert [part for part in page.split('"') if part.startswith("http") and "127.0.0.1" not in part] == []


def test_commands_record_where_the_pages_are_served(pages: str, workspace: Path) -> None:
    assert run(TURN, workspace, 5) == ("recorded 12 False", "")
    assert history_of(workspace)["turn 5"]["state"] == "Completed"


def test_pages_that_are_served_already_are_not_served_twice(pages: str, workspace: Path) -> None:
    process = start(SERVE, workspace, 4238)
    _, err = process.communicate(timeout=60)
    assert "BusyError: Prefect's pages of this workspace are served already" in err
    assert pages in err


def test_a_taken_port_is_said(pages: str, tmp_path: Path) -> None:
    process = start(SERVE, tmp_path, 4237)
    _, err = process.communicate(timeout=60)
    assert "FlywheelError: Prefect's pages cannot be served\n  where: port 4237\n" in err
    assert "Address already in use" in err


def test_a_page_of_another_site_reaches_nothing(pages: str) -> None:
    request = urllib.request.Request(f"{pages}/api/health", headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(request)
    refused.value.close()


def test_a_stale_record_of_a_server_is_not_believed(pages: str, workspace: Path) -> None:
    home = workspace / ".flywheel/prefect"
    assert prefect_process.served(home) == f"{pages}/api"
    record = home / "server.json"
    kept = record.read_text()
    ended = subprocess.Popen(["true"])
    ended.wait()
    for stale in ({"pid": ended.pid, "port": 4237}, {"pid": os.getpid(), "port": 9}, {"pid": os.getpid()}):
        record.write_text(json.dumps(stale))
        assert prefect_process.served(home) is None
    record.write_text(kept)


def test_fastapi_is_one_that_prefect_can_run_with(pages: str) -> None:
    """From fastapi 0.151 on a null body is refused, and from 0.155 on the server cannot be imported."""
    run("import prefect.server.api.server")
    assert post(f"{pages}/api/work_pools/", {"name": "local", "type": "process"})["name"] == "local"
    assert post(f"{pages}/api/work_pools/local/workers/filter", {"workers": None, "limit": None}) == []


def post(url: str, body: object) -> object:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_a_flow_whose_api_goes_away_ends_as_it_would_have(tmp_path: Path) -> None:
    """In seconds, with its own result or error, called once, and without a word from Prefect."""
    assert run(LOSE, tmp_path, 3) == ("6 [3]", "")
    began = time.monotonic()
    assert run(LOSE, tmp_path, 101) == ("too many rows [101]", "")
    assert time.monotonic() - began < 120  # Prefect's own patience alone is a minute for each of three requests
