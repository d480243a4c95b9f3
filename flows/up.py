"""`flywheel up`: all that a running wheel needs, under one supervisor, on this machine's own address.

Every part is a child that ends when its standard input does. The kernel closes that pipe however the supervisor dies,
so nothing is left behind by a `kill -9` either, and a clean stop goes the same way.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flows import standing
from flows.parts import Part, Spec, alive, answers, log_to
from flywheel.errors import BusyError, ConfigError
from flywheel.integrations import prefect_process
from flywheel.workspace import Workspace

LOOK = 0.5  # s between two looks at the parts
ADDRESSES = {
    "server": "people are answered on   {url}",
    "mlflow": "every generation         {url}",
    "prefect": "every run                {url}",
}
Say = Callable[[str], None]


def up(ws: Workspace, ports: dict[str, int], say: Say) -> None:
    """Run the parts until SIGTERM or Ctrl-C; a part that ends or stops to answer is started again.

    Args:
        ws: the workspace.
        ports: of `server`, `prefect` and `mlflow` on 127.0.0.1; 0 takes a free one.
        say: is told every line of the log.

    Raises:
        BusyError: the workspace is up already, or its Prefect pages are served.
        ConfigError: a port is taken.
    """
    with _alone(ws), log_to(ws.cache / "up.log", say) as log, _told_to_stop() as told, ExitStack() as last:
        taken = {name: _free(name, port) for name, port in ports.items() if name != "server" or ws.config.serve}
        parts = [Part(spec, log) for spec in specs(ws, taken)]
        last.callback(_end, parts, log)
        began, healthy = time.monotonic(), False
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
        while not told:
            for part in parts:
                part.look()
            _note(ws, parts, since)
            if not healthy and all(part.healthy for part in parts):
                healthy = True
                log("up", f"all healthy after {time.monotonic() - began:.0f} s")
                for line in addresses(taken):
                    log("up", line)
            time.sleep(LOOK)
        log("up", "stopping")


def addresses(ports: dict[str, int]) -> list[str]:
    """Where people find what."""
    return [words.format(url=f"http://127.0.0.1:{ports[name]}") for name, words in ADDRESSES.items() if name in ports]


def specs(ws: Workspace, ports: dict[str, int]) -> list[Spec]:
    """The parts of a running wheel, in the order in which they start; they stop in the opposite one."""
    flywheel = [sys.executable, "-m", "flows.cli", "-C", str(ws.root)]
    leash = [sys.executable, "-m", "flows.leash"]
    given = os.environ.get("PREFECT_API_URL")
    api = given or prefect_process.api_url(ports["prefect"])
    home = prefect_process.home_of(ws.root)
    quiet = {"PREFECT_API_URL": api, "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(home))} | SCHEDULED
    made = []
    if not given:
        own = prefect_process.environment(home, ports["prefect"], "ui")
        command = prefect_process.command(home, ports["prefect"], "ui")
        made.append(Spec("prefect", command, answers(ports["prefect"], "/api/health"), own))
    command = [*leash, *flywheel, "ui", "--port", str(ports["mlflow"])]
    made.append(Spec("mlflow", command, answers(ports["mlflow"], "/health")))
    if ws.config.serve:
        command = [*leash, *flywheel, "serve", "--port", str(ports["server"])]
        made.append(Spec("server", command, answers(ports["server"], "/readyz")))
    run = [*leash, sys.executable, "-m", "flows.deployments", str(ws.root)]
    made.append(Spec("deployments", run, alive(ws.cache / "deployments.alive"), quiet))
    return made


SCHEDULED = {  # how the runs of deployments log: into our own log, which has the time
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(flow_run_name)s: %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(task_run_name)s: %(message)s",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flywheel",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "NO_PROXY": "127.0.0.1,localhost",
}


@contextmanager
def _alone(ws: Workspace) -> Iterator[None]:
    """Be the only one to have this workspace up."""
    ws.cache.mkdir(exist_ok=True)
    lock, note = FileLock(ws.cache / "up.lock", timeout=0.3), ws.cache / standing.UP
    try:
        lock.acquire()
    except Timeout:
        who = standing.running_up(ws) or {}
        why = f"process {who.get('pid')} on {who.get('host')} since {who.get('since')}"
        raise BusyError("flywheel up runs already", where=str(ws.root), why=why, next="flywheel status") from None
    try:
        url = prefect_process.served(prefect_process.home_of(ws.root))
        if url:
            what, where = "Prefect's pages of this workspace are served already", url.removesuffix("/api")
            raise BusyError(what, where=where, next="stop flywheel ui --runs, then flywheel up")
        yield
    finally:
        for path in (note, prefect_process.home_of(ws.root) / prefect_process.RECORD):
            path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """What SIGTERM and Ctrl-C put a number into; the second one ends this process, and with it all parts."""
    told: list[int] = []

    def stop(number: int, _frame: object) -> None:
        told.append(number)
        if len(told) > 1:
            os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free(name: str, port: int) -> int:
    """The port, if it is free, or for 0 one that is."""
    with closing(socket.socket()) as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError as error:
            option = "--port" if name == "server" else f"--{name}-port"
            what = f"port {port} on 127.0.0.1, for {name}, cannot be used"
            raise ConfigError(what, why=error.strerror or str(error), next=f"flywheel up {option} 0") from None
        return int(claim.getsockname()[1])


def _end(parts: list[Part], log: Callable[[str, str], None]) -> None:
    for part in reversed(parts):
        part.end()
    log("up", "stopped; what was begun goes on with the next flywheel up or flywheel turn")


def _note(ws: Workspace, parts: list[Part], since: str) -> None:
    """Write down what runs, for `status`, and where Prefect does, for other commands, when that changes."""
    told = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": since,
        "parts": {p.spec.name: {"pid": p.pid, "healthy": p.healthy, "restarts": p.restarts} for p in parts},
    }
    _write(ws.cache / standing.UP, told)
    for part in parts:
        if part.spec.name == "prefect" and part.healthy:
            record = {"pid": part.pid, "port": int(part.spec.command[-2])}
            _write(prefect_process.home_of(ws.root) / prefect_process.RECORD, record)


def _write(path: Path, told: Mapping[str, object]) -> None:
    text = json.dumps(told)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
