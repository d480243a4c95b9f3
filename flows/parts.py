"""One part of a running wheel: a child process that is started, looked at, started again, and ended."""

import http.client
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

Log = Callable[[str, str], None]
PROBE = 2.0  # s between two probes of a part
PATIENCE = 90.0  # s without an answer after which a part that answered is started again
BOOT = 240.0  # s that a part may take to answer at all
GRACE = 30.0  # s for a part to end by itself
STEADY = 120.0  # s after which a part that fell is taken for a healthy one
LONGEST = 60.0  # s between two starts
MOST = 2**22  # bytes of the log, which is kept once more beside it


@dataclass(frozen=True)
class Spec:
    """What a part is started by, and how it is seen to be healthy."""

    name: str
    command: list[str]
    probe: Callable[[float], bool]  # is given when the process was started, in seconds since 1970
    environment: dict[str, str] = field(default_factory=dict)


def pause(falls: int) -> float:
    """Seconds to wait before a part is started again that fell so many times in a row.

    >>> [pause(falls) for falls in (1, 2, 3, 9)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return min(LONGEST, 2.0 ** (falls - 1))


class Part:
    """A part and its process. `look` is called again and again, and does what the moment asks for."""

    def __init__(self, spec: Spec, log: Log) -> None:
        self.spec, self._log = spec, log
        self._child: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._falls, self._start_at, self._started, self._answered, self._probed = 0, 0.0, 0.0, 0.0, 0.0
        self._clock = 0.0
        self.healthy, self.restarts = False, 0

    @property
    def pid(self) -> int | None:
        """The process that answers for the part."""
        return self._child.pid if self._child else None

    def look(self) -> None:
        """Start the part if it is time; probe it; let it go where it fell."""
        now = time.monotonic()
        if self._child is None:
            if now >= self._start_at:
                self._start(now)
            return
        code = self._child.poll()
        if code is not None:
            self._fell(f"ended with {code}", now)
        elif now - self._probed >= PROBE:
            self._probe(now)

    def end(self) -> None:
        """Have the process end by itself, or kill it with all that it started."""
        child, self._child, self.healthy = self._child, None, False
        if child is None:
            return
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if self._listener is not None:
            self._listener.join(5)  # what it said last is logged before that it stopped
        self._log(self.spec.name, "stopped")

    def _start(self, now: float) -> None:
        self._started, self._answered, self._clock = now, now, time.time()
        self._child = subprocess.Popen(
            self.spec.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PYTHONPATH": _path()} | self.spec.environment,
            start_new_session=True,  # an interrupt is for the supervisor, which ends it in its turn
        )
        self._listener = threading.Thread(target=self._listen, args=(self._child,), daemon=True)
        self._listener.start()
        self._log(self.spec.name, "starting")

    def _listen(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stdout is not None
        with child.stdout as said:
            for line in said:
                text = line.decode(errors="replace").rstrip()
                if text and not text.isdigit():  # Prefect's server tells its port
                    self._log(self.spec.name, text)

    def _probe(self, now: float) -> None:
        well = self.spec.probe(self._clock)
        self._probed = time.monotonic()
        if well:
            if not self.healthy:
                self._log(self.spec.name, f"healthy after {self._probed - self._started:.0f} s")
            self.healthy, self._answered = True, self._probed
            if self._probed - self._started > STEADY:
                self._falls = 0
        elif now - self._answered > (PATIENCE if self.healthy else BOOT):
            self._fell("does not answer", now)

    def _fell(self, how: str, now: float) -> None:
        self._falls += 1
        wait = pause(self._falls)
        self._log(self.spec.name, f"{how}; it is started again in {wait:.0f} s")
        self.end()
        self.restarts += 1
        self._start_at = now + wait


def answers(port: int, path: str) -> Callable[[float], bool]:
    """A probe: whether a server on this machine answers with 200."""

    def probe(_started: float) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def alive(path: Path, within: float = 60.0) -> Callable[[float], bool]:
    """A probe: whether a process touched its file lately."""
    return lambda started: path.exists() and path.stat().st_mtime > max(started, time.time() - within)


@contextmanager
def log_to(path: Path, say: Callable[[str], None]) -> Iterator[Log]:
    """A log of time, name and line, to a file that does not grow for ever, and to whoever looks on."""
    handler = RotatingFileHandler(path, maxBytes=MOST, backupCount=1, encoding="utf-8")
    lock = threading.Lock()

    def log(name: str, line: str) -> None:
        text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {name:11} {line}"
        with lock:
            handler.emit(logging.makeLogRecord({"msg": text}))
            say(text)

    try:
        yield log
    finally:
        handler.close()


def _path() -> str:
    here = Path(__file__).resolve().parents[1]
    return os.pathsep.join(filter(None, [str(here / "src"), str(here), os.environ.get("PYTHONPATH")]))
