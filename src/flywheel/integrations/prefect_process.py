"""What a parent does with the process that `prefect_server` is: start, find and end it."""

import http.client
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Literal

Kind = Literal["history", "ui"]
Child = subprocess.Popen[bytes]

HOME = ".flywheel/prefect"
RECORD = "server.json"
STOP_SECONDS = 15.0
PROBE_SECONDS = 2.0
# Booting is importing: all that it makes stays, and looking for garbage meanwhile costs a third more.
_PROGRAM = "import gc; gc.disable(); from flywheel.integrations.prefect_server import main; main()"


def home_of(root: Path) -> Path:
    """The folder that keeps the history of the workspace at `root`; it is made where it is missing."""
    home = root.resolve() / HOME
    home.mkdir(parents=True, exist_ok=True)
    return home


def start(home: Path, port: int, kind: Kind) -> Child:
    """Start a server on the history in `home` and return at once; port 0 is any free one.

    Raises:
        OSError: there can be no further process, or `home` cannot be written.
    """
    with (home / f"{kind}.log").open("wb") as log:
        return Child(
            command(home, port, kind),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(home, port, kind),
            start_new_session=True,  # an interrupt is for the turn; the record of it is still to be written
        )


def command(home: Path, port: int, kind: Kind) -> list[str]:
    """What a server on the history in `home` is run by; it ends when its standard input does."""
    return [sys.executable, "-c", _PROGRAM, str(home), str(port), kind]


def port_of(child: Child, timeout: float) -> int | None:
    """The port that the child tells once it answers there; None where it ends or stays silent."""
    assert child.stdout is not None
    told, _, _ = select.select([child.stdout], [], [], timeout)
    line = child.stdout.readline() if told else b""
    return int(line) if line else None


def last_words(home: Path, kind: Kind) -> str:
    """The last error in the log that the server of this kind left, else its last line."""
    lines = [line.strip() for line in (home / f"{kind}.log").read_text(errors="replace").splitlines()]
    said = [line for line in lines if line]
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b.*: ", line)]
    return (errors or said or ["it said nothing"])[-1]


def end(child: Child) -> None:
    """Let the child store what has arrived and end; return when it is gone."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def served(home: Path) -> str | None:
    """The API of the server that `server.json` names, if that lives and answers."""
    try:
        record = json.loads((home / RECORD).read_text())
        os.kill(record["pid"], 0)
        connection = http.client.HTTPConnection("127.0.0.1", record["port"], timeout=PROBE_SECONDS)
        connection.request("GET", "/api/health")
        answer = connection.getresponse().read()
        connection.close()
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    return api_url(record["port"]) if answer == b"true" else None


def api_url(port: int) -> str:
    """The address of an API on this machine.

    >>> api_url(4200)
    'http://127.0.0.1:4200/api'
    """
    return f"http://127.0.0.1:{port}/api"


def environment(home: Path, port: int, kind: Kind) -> dict[str, str]:
    """That of a server. Prefect's default database lies in PREFECT_HOME; its own variable may name another."""
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return inherited | _settings(home, port, kind) | {"PYTHONPATH": _import_path()}


def _settings(home: Path, port: int, kind: Kind) -> dict[str, str]:
    both = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # below it, the end of a healthy server has tracebacks
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
    }
    if kind == "ui":
        return both | {
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_SERVER_UI_API_URL": api_url(port),
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),  # an installation may be read-only
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # In memory, the slot of a run that was killed together with the server is never given back.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
    return both | {
        "PREFECT_SERVER_UI_ENABLED": "false",
        # Runs, states, logs and artifacts do not need the feed of events, nor what reacts to it.
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    }


def _import_path() -> str:
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
