"""Runs a command that ends with whoever holds this process's standard input, however that dies.

    python -m flows.leash COMMAND ARGUMENT…

When the input ends the command is asked to end, and what it left behind in its process group is killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

GRACE = 18.0  # s for the command: a server drains for 11
REST = 10.0  # s for what it leaves behind: a turn stops within 10


def main() -> None:
    """Run the command; end as it does, and leave nothing of it behind."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_end, args=(command,), daemon=True).start()
    code = command.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        os.killpg(0, signal.SIGTERM)  # children of the command that outlived it; this process leads their group
    until = time.monotonic() + REST
    while _others() and time.monotonic() < until:
        time.sleep(0.1)
    os._exit(code if code >= 0 else 128 - code)


def _others() -> bool:
    """Whether anybody else is left in the process group."""
    group = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) == os.getpid() and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                group.append(pid)
    return len(group) > 1


def _wait_for_end(command: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1):
        pass
    command.terminate()
    try:
        command.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
