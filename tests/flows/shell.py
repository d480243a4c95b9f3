"""The `flywheel` command as real processes, forked from one that has its libraries loaded: 10 s of imports once.

Run as a script it is that process: it reads requests as JSON lines, forks a child for each, and says how it ended.
"""

import atexit
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """How a command ended; a code below 0 is the signal that ended it."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Running:
    """A command on its way."""

    shell: "Shell"
    pid: int
    out: Path
    err: Path

    def done(self, timeout: float = 120) -> Done:
        """Wait for its end."""
        end = time.monotonic() + timeout
        while (code := self.shell.ask(wait=self.pid)["code"]) is None:
            if time.monotonic() > end:
                os.kill(self.pid, 9)
                raise TimeoutError(f"{self.err.read_text()}\nstill runs after {timeout} s")
            time.sleep(0.05)
        return Done(code, self.out.read_text(), self.err.read_text())


class Shell:
    """Starts commands; `--workspace` is where they run."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._count = scratch, 0
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            start_new_session=True,
        )

    def start(self, root: Path, *argv: str, env: dict[str, str] | None = None, uid: int | None = None) -> Running:
        self._count += 1
        out, err = (self._scratch / f"{self._count}.{kind}" for kind in ("out", "err"))
        said = self.ask(argv=list(argv), cwd=str(root), env=env or {}, out=str(out), err=str(err), uid=uid)
        return Running(self, said["pid"], out, err)

    def run(self, root: Path, *argv: str, env: dict[str, str] | None = None, uid: int | None = None) -> Done:
        return self.start(root, *argv, env=env, uid=uid).done()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


def _serve() -> None:
    from flywheel.integrations import prefect_api

    prefect_api.boot(Path())  # Prefect reads its settings at its first import

    import flows.backfill
    import flows.cli
    import flows.rebuilding
    import flows.replaying
    import flows.run
    import flows.show
    import flows.starting
    import flywheel.integrations.mlflow_plots
    import flywheel.sources.sql  # noqa: F401

    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if pid == 0:
                os.close(answers)
                _become(request)
                flows.cli.main()
                return
            answer = {"pid": pid}
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    for descriptor, path, mode in ((0, os.devnull, os.O_RDONLY), (1, request["out"], None), (2, request["err"], None)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT if mode is None else mode, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    os.environ["NO_COLOR"] = "1"
    sys.argv = ["flywheel", *request["argv"]]
    if request["uid"] is not None:
        os.setuid(request["uid"])
        atexit._clear()  # coverage's data is the first user's, and this one may not write there


if __name__ == "__main__":
    _serve()
